//! A walk stays in its tree, also while somebody changes it.

use std::fs;
use std::os::unix::fs::symlink;

use mooring_archive::{ArchiveError, Kind, Visit, walk, walk_layers};

/// A tree `tree` with `sub/file`, and `outside/file` beside it.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for (name, content) in [("tree/sub/file", "mine"), ("outside/file", "secret")] {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    home
}

/// Walks `tree`; `meanwhile` runs between the look at each node and what follows.
fn walked(home: &tempfile::TempDir, meanwhile: impl Fn(&str)) -> Result<Vec<String>, ArchiveError> {
    let mut seen = Vec::new();
    let tree = fs::File::open(home.path().join("tree")).unwrap();
    walk(tree, &mut |node| {
        let name = node.path.to_str().unwrap();
        meanwhile(name);
        let content = if node.kind == Kind::File {
            std::io::read_to_string(node.open()?).unwrap()
        } else {
            String::new()
        };
        seen.push(format!("{name} {content}"));
        Ok::<_, ArchiveError>(Visit::Descend)
    })?;
    Ok(seen)
}

#[test]
fn a_quiet_tree_is_seen_in_order() {
    assert_eq!(walked(&home(), |_| {}).unwrap(), ["sub ", "sub/file mine"]);
}

#[test]
fn what_is_swapped_for_a_link_during_the_walk_is_not_followed() {
    for victim in ["sub", "sub/file"] {
        let home = home();
        let outside = home.path().join(if victim == "sub" { "outside" } else { "outside/file" });
        let swapped = walked(&home, |name| {
            if name == victim {
                let path = home.path().join("tree").join(victim);
                fs::rename(&path, home.path().join("aside")).unwrap();
                symlink(&outside, path).unwrap();
            }
        });
        assert!(matches!(swapped, Err(ArchiveError::File { .. })), "{victim}: {swapped:?}");
    }
}

#[test]
fn what_is_swapped_for_another_file_is_not_read() {
    let home = home();
    let swapped = walked(&home, |name| {
        if name == "sub/file" {
            fs::rename(home.path().join("outside/file"), home.path().join("tree/sub/file")).unwrap();
        }
    });
    assert_eq!(swapped.unwrap_err().to_string(), "cannot read sub/file: it was replaced meanwhile");
}

#[test]
fn a_tree_without_bottom_is_refused() {
    let home = home();
    let mut path = home.path().join("tree/sub");
    for _ in 0..300 {
        path.push("d");
        fs::create_dir(&path).unwrap();
    }
    let error = walked(&home, |_| {}).unwrap_err().to_string();
    assert!(error.ends_with("the tree is more than 256 levels deep"), "{error}");
}

/// What is looked at ahead, in a tree of more directories than that may be.
fn looked_at(root: &std::path::Path, visit: &mut dyn FnMut(usize)) -> Result<usize, ArchiveError> {
    let mut visited = 0;
    walk_layers(&[fs::File::open(root).unwrap()], &[], &mut |node| {
        visited += 1;
        visit(visited);
        let enough =
            || ArchiveError::Refused { member: node.path.display().to_string(), reason: "enough".into() };
        if visited == 300 { Err(enough()) } else { Ok(()) }
    })?;
    Ok(visited)
}

#[test]
fn whoever_looks_ahead_ends_with_who_visits() {
    let root = tempfile::tempdir().unwrap();
    (0..200).for_each(|n| fs::create_dir_all(root.path().join(format!("{n:03}/below/it"))).unwrap());
    let ended = looked_at(root.path(), &mut |_| {});
    assert!(matches!(ended, Err(ArchiveError::Refused { .. })), "{ended:?}");
}

#[test]
fn what_goes_while_it_is_looked_at_ahead_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    (0..90).for_each(|n| fs::create_dir_all(root.path().join(format!("{n:03}/below"))).unwrap());
    let ended = looked_at(root.path(), &mut |visited| {
        if visited == 1 {
            fs::remove_dir_all(root.path().join("089")).unwrap();
        }
    });
    assert!(matches!(ended, Err(ArchiveError::File { .. })), "{ended:?}");
}

#[test]
fn a_path_that_could_not_be_put_back_is_refused_before() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let root = tempfile::tempdir().unwrap();
    let name = "x".repeat(100);
    let mut at = openat(CWD, root.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..41 {
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let refused = mooring_archive::pack(root.path(), std::io::sink(), &[], &|_, _| ("", "")).unwrap_err();
    let told = refused.to_string();
    assert!(told.contains("is longer than 4095 bytes") && told.len() < 500, "{told}");
}
