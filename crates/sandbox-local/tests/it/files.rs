//! File operations: what they do, and that they stay in the workspace.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mooring_sandbox::{FileKind, SandboxError, WriteOptions};

use crate::setup::Sandbox;

fn new() -> WriteOptions {
    WriteOptions { create_new: true, ..WriteOptions::default() }
}

fn kind_of(error: &SandboxError) -> &'static str {
    match error {
        SandboxError::NotFound { .. } => "not found",
        SandboxError::AlreadyExists { .. } => "exists",
        SandboxError::PathEscape { .. } => "escape",
        SandboxError::File { .. } => "file",
        SandboxError::Invalid { .. } => "invalid",
        _ => "other",
    }
}

/// The workspace as the host has it.
fn on_host(sandbox: &Sandbox) -> PathBuf {
    sandbox.state.path().join("sandboxes").join(sandbox.session.id()).join("workspace")
}

#[tokio::test]
async fn what_is_written_is_read() {
    let sandbox = Sandbox::new().await;
    let session = &sandbox.session;
    let big: Bytes = (0..20_000_000_u32).map(|number| number as u8).collect();
    session.write("a", "text".into(), WriteOptions::default()).await.unwrap();
    session.write("/workspace/b", big.clone(), WriteOptions::default()).await.unwrap();
    assert_eq!(session.read("/workspace/./a", 4).await.unwrap(), "text");
    assert!(session.read("b", 1 << 30).await.unwrap() == big);
    assert_eq!(
        session.read("b/../a", 10).await.unwrap_err().to_string(),
        "cannot read b/../a: Not a directory (os error 20)"
    );
    // Commands see the same.
    assert_eq!(sandbox.out("cat a; stat -c '%U %a' a").await, "textagent 644\n");
    // No traces of how.
    assert_eq!(sandbox.out("ls -A").await, "a\nb\n");
}

#[tokio::test]
async fn reading_is_all_or_nothing() {
    let sandbox = Sandbox::new().await;
    sandbox.session.write("five", "12345".into(), WriteOptions::default()).await.unwrap();
    let refused = sandbox.session.read("five", 4).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot read five: it has 5 bytes, more than the 4 allowed");
    sandbox.out("mkdir folder; mkfifo fifo").await;
    for path in ["folder", "fifo", "/workspace"] {
        let refused = sandbox.session.read(path, 100).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("cannot read {path}: it is not a regular file"));
    }
    assert_eq!(kind_of(&sandbox.session.read("nothing", 100).await.unwrap_err()), "not found");
}

#[tokio::test]
async fn writing_keeps_the_mode_unless_told_otherwise() {
    let sandbox = Sandbox::new().await;
    let session = &sandbox.session;
    sandbox.out("echo old > tool; chmod 751 tool").await;
    session.write("tool", "new".into(), WriteOptions::default()).await.unwrap();
    assert_eq!(sandbox.out("stat -c %a tool; cat tool").await, "751\nnew");
    let options = WriteOptions { mode: Some(0o600), ..WriteOptions::default() };
    session.write("tool", "newer".into(), options).await.unwrap();
    assert_eq!(session.stat("tool").await.unwrap().mode, 0o600);
    let set_id = WriteOptions { mode: Some(0o6755), ..WriteOptions::default() };
    session.write("tool", "newest".into(), set_id).await.unwrap();
    assert_eq!(session.stat("tool").await.unwrap().mode, 0o755, "no set-user-id file is made");
}

#[tokio::test]
async fn writing_anew_refuses_whatever_is_there() {
    let sandbox = Sandbox::new().await;
    let session = &sandbox.session;
    sandbox.out("echo a > file; mkdir folder; ln -s nowhere dangling").await;
    for path in ["file", "folder", "dangling"] {
        assert_eq!(kind_of(&session.write(path, "x".into(), new()).await.unwrap_err()), "exists", "{path}");
    }
    session.write("fresh", "x".into(), new()).await.unwrap();
    assert_eq!(
        kind_of(&session.write("folder", "x".into(), WriteOptions::default()).await.unwrap_err()),
        "file"
    );
    assert_eq!(sandbox.out("cat file; ls -A").await, "a\ndangling\nfile\nfolder\nfresh\n");
}

#[tokio::test]
async fn parents_are_made_only_when_asked_for() {
    let sandbox = Sandbox::new().await;
    let session = &sandbox.session;
    let refused = session.write("a/b/c", "x".into(), WriteOptions::default()).await.unwrap_err();
    assert_eq!(kind_of(&refused), "not found");
    let parents = WriteOptions { parents: true, ..WriteOptions::default() };
    session.write("a/b/c", "x".into(), parents).await.unwrap();
    assert_eq!(kind_of(&session.mkdir("x/y", false).await.unwrap_err()), "not found");
    session.mkdir("x/y/z", true).await.unwrap();
    session.mkdir("x/y/z", true).await.unwrap();
    assert_eq!(kind_of(&session.mkdir("x", false).await.unwrap_err()), "exists");
    assert_eq!(sandbox.out("find . -mindepth 1 | sort").await, "./a\n./a/b\n./a/b/c\n./x\n./x/y\n./x/y/z\n");
}

#[tokio::test]
async fn a_directory_is_listed_by_name() {
    let sandbox = Sandbox::new().await;
    sandbox.out("mkdir -m 750 b; printf abc > a; ln -s /etc/passwd c; mkfifo d; touch -d @12.5 a").await;
    let files = sandbox.session.list(".").await.unwrap();
    let told: Vec<_> =
        files.iter().map(|file| (file.name.as_str(), file.kind, file.mode, file.uid)).collect();
    assert_eq!(
        told,
        [
            ("a", FileKind::File, 0o644, 1000),
            ("b", FileKind::Directory, 0o750, 1000),
            ("c", FileKind::Symlink, 0o777, 1000),
            ("d", FileKind::Other, 0o644, 1000),
        ]
    );
    assert_eq!((files[0].size, files[0].modified_ns), (3, 12_500_000_000));
    assert_eq!(files[2].target.as_deref(), Some("/etc/passwd"));
    let link = sandbox.session.stat("/workspace/c").await.unwrap();
    assert_eq!(
        (link.name.as_str(), link.kind, link.target.as_deref()),
        ("/workspace/c", FileKind::Symlink, Some("/etc/passwd"))
    );
    assert_eq!(sandbox.session.list("b").await.unwrap(), []);
    assert_eq!(kind_of(&sandbox.session.list("a").await.unwrap_err()), "file");
    assert_eq!(sandbox.session.stat(".").await.unwrap().kind, FileKind::Directory);
}

#[tokio::test]
async fn removing_is_careful_and_complete() {
    let sandbox = Sandbox::new().await;
    let session = &sandbox.session;
    sandbox
        .out("mkdir -p t/deep/er empty; touch t/deep/f g; ln -s /usr t/link; ln -s t l; chmod 000 t/deep/er")
        .await;
    let refused = session.remove("t", false).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot remove t: the directory is not empty; remove it recursively");
    session.remove("empty", false).await.unwrap();
    session.remove("g", false).await.unwrap();
    session.remove("l", true).await.unwrap();
    assert_eq!(sandbox.out("ls").await, "t\n", "a link is removed, not what it names");
    session.remove("t", true).await.unwrap();
    assert_eq!(sandbox.out("ls -A; ls -d /usr").await, "/usr\n");
    assert_eq!(kind_of(&session.remove("t", true).await.unwrap_err()), "not found");
    for root in [".", "/workspace", "x/.."] {
        assert_ne!(kind_of(&session.remove(root, true).await.unwrap_err()), "other", "{root}");
    }
    assert_eq!(sandbox.out("pwd").await, "/workspace\n");
}

#[tokio::test]
async fn renaming_replaces_nothing() {
    let sandbox = Sandbox::new().await;
    let session = &sandbox.session;
    sandbox.out("echo a > a; echo b > b; mkdir d").await;
    assert_eq!(kind_of(&session.rename("a", "b").await.unwrap_err()), "exists");
    assert_eq!(kind_of(&session.rename("nothing", "c").await.unwrap_err()), "not found");
    assert_eq!(kind_of(&session.rename("a", "nowhere/a").await.unwrap_err()), "not found");
    session.rename("a", "d/a").await.unwrap();
    assert_eq!(sandbox.out("cat d/a b").await, "a\nb\n");
}

#[tokio::test]
async fn no_path_leaves_the_workspace() {
    let sandbox = Sandbox::new().await;
    let session = &sandbox.session;
    sandbox
        .out(
            "ln -s /etc absolute; ln -s ../../etc relative; mkdir in; ln -s ../.. in/up; ln -s absolute/passwd chain; \
             ln -s /proc/self/root magic; ln -s loop2 loop1; ln -s loop1 loop2; ln -s /workspace/../etc sly",
        )
        .await;
    let escapes = [
        "/etc/passwd",
        "..",
        "../etc/passwd",
        "in/../../etc",
        "absolute/passwd",
        "relative/passwd",
        "in/up/etc/passwd",
        "chain",
        "magic/etc/passwd",
        "/workspace/../etc/passwd",
        "/workspaces",
        "/",
        "sly/passwd",
    ];
    for path in escapes {
        assert_eq!(kind_of(&session.read(path, 100).await.unwrap_err()), "escape", "read {path}");
        assert_eq!(kind_of(&session.list(path).await.unwrap_err()), "escape", "list {path}");
        let written = session.write(path, "x".into(), WriteOptions::default()).await.unwrap_err();
        assert!(["escape", "invalid"].contains(&kind_of(&written)), "write {path}: {written}");
        let made = session.mkdir(&format!("{path}/made"), true).await.unwrap_err();
        assert_eq!(kind_of(&made), "escape", "mkdir {path}");
    }
    for path in ["absolute/passwd", "relative/passwd", "in/up/etc/passwd", "/etc/passwd", "../x"] {
        assert_eq!(kind_of(&session.stat(path).await.unwrap_err()), "escape", "stat {path}");
        assert_eq!(kind_of(&session.remove(path, true).await.unwrap_err()), "escape", "remove {path}");
        assert_eq!(kind_of(&session.rename("in", path).await.unwrap_err()), "escape", "rename to {path}");
    }
    assert_eq!(kind_of(&session.read("loop1", 100).await.unwrap_err()), "file");
    assert_eq!(kind_of(&session.read("a\0b", 100).await.unwrap_err()), "invalid");
}

#[tokio::test]
async fn links_that_stay_are_followed() {
    let sandbox = Sandbox::new().await;
    let session = &sandbox.session;
    sandbox
        .out("mkdir -p a/b; echo x > a/b/f; ln -s a/b rel; ln -s /workspace/a abs; ln -s /workspace/abs/b/f deep; ln -s ../a/b/f a/up")
        .await;
    for path in ["rel/f", "abs/b/f", "deep", "a/up", "a/b/../../rel/f"] {
        assert_eq!(session.read(path, 100).await.unwrap(), "x\n", "{path}");
    }
    session.write("deep", "y".into(), WriteOptions::default()).await.unwrap();
    session.write("abs/b/new", "z".into(), WriteOptions::default()).await.unwrap();
    assert_eq!(sandbox.out("cat a/b/f a/b/new; readlink deep").await, "yz/workspace/abs/b/f\n");
}

#[tokio::test]
async fn a_race_with_links_leads_nowhere_else() {
    let sandbox = Sandbox::new().await;
    sandbox.out("mkdir real; echo mine > real/file; echo secret > /tmp/file").await;
    // `name` leads to the workspace's own directory, to /tmp, nowhere, and so on, as fast as can be.
    let workspace = on_host(&sandbox);
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let (away, here, name) = (workspace.join("away"), workspace.join("here"), workspace.join("name"));
            symlink("/tmp", &away).unwrap();
            symlink("real", &here).unwrap();
            while !stop.load(Ordering::Relaxed) {
                for target in [&away, &here] {
                    std::fs::rename(target, &name).unwrap();
                    std::thread::yield_now();
                    std::fs::rename(&name, target).unwrap();
                }
            }
        }
    });
    let (mut inside, mut refused) = (0, 0);
    for _ in 0..20_000 {
        match sandbox.session.read("name/file", 100).await {
            Ok(data) => {
                assert_ne!(data, "secret\n");
                inside += 1;
            }
            Err(error) => refused += usize::from(kind_of(&error) == "escape"),
        }
        let _ = sandbox.session.write("name/file", "mine".into(), WriteOptions::default()).await;
        let _ = sandbox.session.write("name/new", "x".into(), WriteOptions::default()).await;
        let _ = sandbox.session.remove("name/new", false).await;
        if inside > 20 && refused > 20 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
    assert!(inside > 0 && refused > 0, "no race took place: {inside} inside, {refused} refused");
    assert_eq!(sandbox.out("ls /tmp; cat /tmp/file").await, "file\nsecret\n");
}

#[tokio::test]
async fn on_the_host_files_belong_to_the_workspaces_owner() {
    let sandbox = Sandbox::new().await;
    sandbox.out("echo x > by-command; mkdir -p d/e").await;
    sandbox.session.write("by-call", "x".into(), WriteOptions::default()).await.unwrap();
    let owner = rustix::process::geteuid().as_raw();
    for name in ["by-command", "by-call", "d/e"] {
        let metadata = std::fs::metadata(on_host(&sandbox).join(name)).unwrap();
        assert_eq!(metadata.uid(), owner, "{name}");
    }
}

#[tokio::test]
async fn a_directory_too_large_to_be_told_is_one_calls_trouble() {
    let sandbox = Sandbox::new().await;
    sandbox
        .out("mkdir d; cd d; python3 -c 'for i in range(16000): open(\"x\" * 240 + str(i), \"w\").close()'")
        .await;
    let error = sandbox.session.list("d").await.unwrap_err();
    assert!(error.to_string().contains("the answer is too long"), "{error}");
    assert_eq!(sandbox.out("ls d | wc -l").await, "16000\n");
}
