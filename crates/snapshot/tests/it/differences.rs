//! A patch leads from one snapshot to the other, and git takes it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{Dir, Place};

async fn diff(place: &Place, old: &Dir, new: &Dir) -> String {
    let from = place.store.look(old).await.unwrap();
    let to = place.store.look(new).await.unwrap();
    let mut patch = Vec::new();
    place.store.diff(&from, &to, &mut patch).unwrap();
    String::from_utf8(patch).unwrap()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn before(root: &Path) {
    fs::create_dir_all(root.join("src/deep")).unwrap();
    let lines: Vec<String> = (1..60).map(|number| format!("line {number}")).collect();
    fs::write(root.join("src/long.txt"), lines.join("\n") + "\n").unwrap();
    fs::write(root.join("src/deep/goes.txt"), "goes\n").unwrap();
    fs::write(root.join("same"), "same\n").unwrap();
    fs::write(root.join("tool"), "#!/bin/sh\n").unwrap();
    fs::write(root.join("no newline"), "without").unwrap();
    fs::write(root.join("becomes-link"), "text\n").unwrap();
    fs::write(root.join("cr"), "one\rtwo\r\nthree\n").unwrap();
    fs::write(root.join("was-empty"), "").unwrap();
    fs::write(root.join("goes-empty"), "").unwrap();
    symlink("same", root.join("link")).unwrap();
    for name in ["src/long.txt", "src/deep/goes.txt", "same", "tool", "no newline", "cr"] {
        mode(&root.join(name), 0o644);
    }
}

fn after(root: &Path) {
    let text = fs::read_to_string(root.join("src/long.txt")).unwrap();
    let text =
        text.replace("line 5\n", "LINE 5\n").replace("line 40\n", "").replace("line 58\n", "line 58\nmore\n");
    fs::write(root.join("src/long.txt"), text).unwrap();
    fs::remove_dir_all(root.join("src/deep")).unwrap();
    mode(&root.join("tool"), 0o755);
    fs::write(root.join("no newline"), "with\n").unwrap();
    fs::write(root.join("new file"), "new\nwithout end").unwrap();
    fs::write(root.join("tab\tand \"quotes\""), "odd\n").unwrap();
    fs::write(root.join("für"), "unicode\n").unwrap();
    fs::write(root.join("cr"), "one\rtwo\r\nthree\rfour\n").unwrap();
    fs::write(root.join("new-empty"), "").unwrap();
    fs::write(root.join("was-empty"), "text\n").unwrap();
    fs::remove_file(root.join("goes-empty")).unwrap();
    fs::remove_file(root.join("becomes-link")).unwrap();
    symlink("/usr/bin/env", root.join("becomes-link")).unwrap();
    fs::remove_file(root.join("link")).unwrap();
    symlink("tool", root.join("link")).unwrap();
    fs::create_dir(root.join("new-dir")).unwrap();
    fs::write(root.join("new-dir/f"), "x\n").unwrap();
}

#[tokio::test]
async fn git_applies_it_and_gets_the_same_tree() {
    let place = Place::new();
    let (old, new, applied) = (place.near("old"), place.near("new"), place.near("applied"));
    for dir in [&old, &new, &applied] {
        before(&dir.path);
    }
    after(&new.path);
    let patch = diff(&place, &old, &new).await;
    let file = place.home.path().join("patch");
    fs::write(&file, &patch).unwrap();
    let done = Command::new("git").arg("apply").arg(&file).current_dir(&applied.path).output().unwrap();
    assert!(done.status.success(), "{}\n{patch}", String::from_utf8_lossy(&done.stderr));
    // Nothing but times differs now.
    assert_eq!(diff(&place, &new, &applied).await, "");
    // And back.
    let done =
        Command::new("git").args(["apply", "-R"]).arg(&file).current_dir(&applied.path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(diff(&place, &old, &applied).await, "");
}

#[tokio::test]
async fn what_a_patch_cannot_say_is_noted() {
    let place = Place::new();
    let (old, new) = (place.near("old"), place.near("new"));
    for dir in [&old, &new] {
        fs::write(dir.path.join("text"), "a\n").unwrap();
        fs::write(dir.path.join("image"), [0, 1, 2]).unwrap();
        fs::write(dir.path.join("secret"), "s\n").unwrap();
        mode(&dir.path.join("secret"), 0o644);
    }
    fs::write(new.path.join("text"), "b\n").unwrap();
    fs::write(new.path.join("image"), [0, 1, 2, 3]).unwrap();
    fs::write(new.path.join("other"), [0; 10]).unwrap();
    mode(&new.path.join("secret"), 0o600);
    fs::create_dir(new.path.join("empty")).unwrap();
    let patch = diff(&place, &old, &new).await;
    assert_eq!(
        patch,
        "diff --git a/text b/text\n--- a/text\n+++ b/text\n@@ -1 +1 @@\n-a\n+b\n\
         # new empty directory: empty\n\
         # not text, and not in this patch: image: 3 bytes before, 4 bytes now\n\
         # not text, and not in this patch: other: none before, 10 bytes now\n\
         # permissions of secret: 644 before, 600 now\n"
    );
    let file = place.home.path().join("patch");
    fs::write(&file, &patch).unwrap();
    let done = Command::new("git").arg("apply").arg(&file).current_dir(&old.path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(fs::read_to_string(old.path.join("text")).unwrap(), "b\n");
}
