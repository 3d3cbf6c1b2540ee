//! What ends up in a workspace.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime};

use mooring_sandbox::{SandboxError, apply_to_dir, materialise};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{DirSession, base, chmod, listing, plan, tree, write};

#[tokio::test]
async fn everything_is_staged_with_modes_links_and_empty_directories() {
    let base = base(&[("in/run.sh", "#!/bin/sh\n"), ("in/sub/data", "d"), ("in/locked", "l"), ("tool", "t")]);
    let at = |name: &str| base.path().join(name);
    fs::create_dir(at("in/empty")).unwrap();
    symlink("../run.sh", at("in/sub/link")).unwrap();
    symlink("sub", at("in/other")).unwrap();
    chmod(at("in/run.sh"), 0o4755);
    chmod(at("in/locked"), 0o600);
    chmod(at("in/sub"), 0o711);
    chmod(at("tool"), 0o644);
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_500_000_000, 0);
    fs::File::open(at("in/locked")).unwrap().set_modified(old).unwrap();

    let entries = json!({
        "task.md": { "type": "file", "content": "Do it.\n", "permissions": { "owner": 6, "group": 4, "other": 4 } },
        "a/b/deep.txt": { "type": "file", "content": "deep" },
        "out": { "type": "dir", "permissions": { "owner": 7, "group": 7, "other": 0 },
            "children": { "keep": { "type": "local_dir" } } },
        "in": { "type": "local_dir", "src": "in", "permissions": { "owner": 7, "group": 5, "other": 0 } },
        "bin/tool": { "type": "local_file", "src": "tool", "permissions": { "owner": 5, "group": 5, "other": 5 } },
        "mnt": { "type": "s3_mount", "bucket": "b",
            "mount_strategy": { "type": "in_container", "pattern": { "type": "rclone" } } },
    });
    let session = DirSession::new();
    let staged = materialise(&plan(&entries, base.path()).unwrap(), &session).await.unwrap();
    insta::assert_snapshot!(listing(session.path()));
    insta::assert_json_snapshot!(staged);
    let mtime = |name: &str| fs::metadata(session.path().join(name)).unwrap().mtime();
    assert_eq!((mtime("in/locked"), mtime("task.md")), (1_500_000_000, 315_532_800));

    // The same again, into a directory, which has no groups.
    let root = tempfile::tempdir().unwrap();
    let mut grouped = entries.clone();
    grouped["out"]["group"] = json!({ "name": "devs" });
    let error =
        apply_to_dir(&plan(&grouped, base.path()).unwrap(), root.path()).await.unwrap_err().to_string();
    assert!(
        error.starts_with("not supported: group 'devs' of entry 'out' on the directory sandbox"),
        "{error}"
    );
    let applied =
        apply_to_dir(&plan(&entries, base.path()).unwrap(), &root.path().join("new/ws")).await.unwrap();
    assert_eq!(applied, staged);
    assert_eq!(tree(&root.path().join("new/ws")), tree(session.path()));
}

#[tokio::test]
async fn an_entry_wins_over_what_a_source_brings() {
    let base = base(&[
        ("t/a", "source"),
        ("t/d/x", "source"),
        ("t/d/y", "source"),
        ("t/gone/z", "source"),
        ("u/n", "u"),
    ]);
    let file = json!({ "type": "file", "content": "entry" });
    let entries = json!({
        "t/a": file,
        "t": { "type": "local_dir", "src": "t" },
        "t/d": { "type": "dir", "permissions": { "owner": 7, "group": 0, "other": 0 }, "children": { "x": file } },
        "t/gone": { "type": "local_dir", "src": "u" },
    });
    let session = DirSession::new();
    materialise(&plan(&entries, base.path()).unwrap(), &session).await.unwrap();
    insta::assert_snapshot!(listing(session.path()));
}

#[tokio::test]
async fn the_digest_follows_content_modes_and_names_alone() {
    let digest = |files: &'static [(&str, &str)], executable: bool| async move {
        let base = base(files);
        if executable {
            chmod(base.path().join("d").join(files[0].0.trim_start_matches("d/")), 0o755);
        }
        let plan = plan(&json!({ "d": { "type": "local_dir", "src": "d" } }), base.path()).unwrap();
        materialise(&plan, &DirSession::new()).await.unwrap().digest
    };
    let one = digest(&[("d/a", "1"), ("d/b", "2")], false).await;
    assert_eq!(one, digest(&[("d/b", "2"), ("d/a", "1")], false).await);
    for other in [
        digest(&[("d/a", "1"), ("d/b", "3")], false).await,
        digest(&[("d/a", "1"), ("d/c", "2")], false).await,
        digest(&[("d/a", "1"), ("d/b", "2")], true).await,
    ] {
        assert_ne!(one, other);
    }
}

#[tokio::test]
async fn a_directory_swapped_for_a_link_is_not_followed() {
    let outside = base(&[("secret", "secret")]);
    for swapped in ["in", "in/sub"] {
        let base = base(&[("in/sub/secret", "mine"), ("file", "mine")]);
        let plan = plan(&json!({ "d": { "type": "local_dir", "src": "in" } }), base.path()).unwrap();
        fs::remove_dir_all(base.path().join(swapped)).unwrap();
        symlink(outside.path(), base.path().join(swapped)).unwrap();
        let session = DirSession::new();
        let error = materialise(&plan, &session).await.unwrap_err();
        assert!(matches!(error, SandboxError::Stage { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("cannot stage entry 'd'") && text.contains("symbolic link"), "{text}");
        assert!(!listing(session.path()).contains("secret"), "{}", listing(session.path()));
    }
    let base = base(&[("f", "mine")]);
    let plan = plan(&json!({ "f": { "type": "local_file", "src": "f" } }), base.path()).unwrap();
    fs::remove_file(base.path().join("f")).unwrap();
    symlink(outside.path().join("secret"), base.path().join("f")).unwrap();
    assert!(matches!(materialise(&plan, &DirSession::new()).await, Err(SandboxError::Stage { .. })));
}

/// A directory is swapped for a link to another and back, all the time. Whatever the moment, what is outside never
/// comes along.
#[tokio::test]
async fn a_race_never_leads_out_of_the_base() {
    let base = base(&[("in/sub/file", "mine")]);
    let outside = crate::support::base(&[("file", "secret")]);
    let (sub, aside) = (base.path().join("in/sub"), base.path().join("aside"));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let (stop, sub, aside, outside) =
            (stop.clone(), sub.clone(), aside.clone(), outside.path().to_owned());
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fs::rename(&sub, &aside).unwrap();
                symlink(&outside, &sub).unwrap();
                fs::remove_file(&sub).unwrap();
                fs::rename(&aside, &sub).unwrap();
            }
        }
    });
    let mut staged = 0;
    for _ in 0..200 {
        let Ok(plan) = plan(&json!({ "d": { "type": "local_dir", "src": "in" } }), base.path()) else {
            continue;
        };
        let session = DirSession::new();
        staged += u32::from(materialise(&plan, &session).await.is_ok());
        assert!(!listing(session.path()).contains("secret"), "{}", listing(session.path()));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapping.join().unwrap();
    // Not a measure of anything; only that the test tested something.
    println!("{staged} of 200 were staged");
}

#[tokio::test]
async fn a_thousand_files_go_in_one_stream() {
    let files: Map<String, Value> = (0..1000)
        .map(|n| (format!("d{}/f{n}.txt", n % 10), json!({ "type": "file", "content": format!("{n}") })))
        .collect();
    let root = tempfile::tempdir().unwrap();
    let plan = plan(&files.into(), ".".as_ref()).unwrap();
    let staged = apply_to_dir(&plan, root.path()).await.unwrap();
    assert_eq!((staged.files, tree(root.path()).len()), (1000, 1010));
    assert_eq!(fs::read_to_string(root.path().join("d7/f987.txt")).unwrap(), "987");
}

#[tokio::test]
async fn what_exists_in_a_directory_is_not_touched() {
    let root = tempfile::tempdir().unwrap();
    write(root.path().join("a/mine"), "mine");
    let file = json!({ "type": "file", "content": "new" });
    let plan =
        plan(&json!({ "b": file, "a": { "type": "dir", "children": { "x": file } } }), ".".as_ref()).unwrap();
    let error = apply_to_dir(&plan, root.path()).await.unwrap_err();
    let expected =
        format!("already exists: {}/a (the manifest's entry 'a' would overwrite it", root.path().display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(listing(root.path()), "a: dir 755\na/mine: 644 \"mine\"\n");
}

#[tokio::test]
async fn a_session_that_cannot_unpack_says_why() {
    let session = DirSession::new();
    fs::create_dir(session.path().join("f")).unwrap();
    let plan = plan(&json!({ "f": { "type": "file", "content": "x" } }), ".".as_ref()).unwrap();
    let error = materialise(&plan, &session).await.unwrap_err();
    assert_eq!(error.to_string(), "archive refused at 'f': a directory is in its place");
}

fn target() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![3 => "[abl]", 2 => Just("..".to_owned()), 1 => Just(".".to_owned())],
        1..6,
    )
    .prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever links a source holds: where they can be followed after staging, they end in the staged tree.
    #[test]
    fn links_that_are_staged_stay_in_their_tree(
        links in proptest::collection::vec((prop_oneof![Just("l"), Just("a/l"), Just("a/b/l"), Just("b/l")], target()), 1..4)
    ) {
        let base = base(&[("in/a/b/f", ""), ("in/b/f", ""), ("f", "")]);
        for (link, to) in links {
            let _ = symlink(to, base.path().join("in").join(link));
        }
        if let Ok(plan) = plan(&json!({ "x/y": { "type": "local_dir", "src": "in" } }), base.path()) {
            let root = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(apply_to_dir(&plan, root.path())).unwrap();
            let top = fs::canonicalize(root.path().join("x/y")).unwrap();
            for link in ["l", "a/l", "a/b/l", "b/l"] {
                if let Ok(end) = fs::canonicalize(top.join(link)) {
                    prop_assert!(end.starts_with(&top), "{link} leads to {}", end.display());
                }
            }
        }
    }
}

#[tokio::test]
async fn what_came_out_otherwise_than_it_was_staged_is_named() {
    let entries = json!({
        "d": { "type": "dir", "children": { "a.txt": { "type": "file", "content": "a" } } },
        "closed": { "type": "dir", "permissions": { "owner": 0, "group": 0, "other": 0 }, "children": {
            "b.txt": { "type": "file", "content": "b" },
        } },
    });
    let plan = plan(&entries, ".".as_ref()).unwrap();
    let mut session = DirSession::new();
    materialise(&plan, &session).await.unwrap();
    chmod(session.path().join("closed"), 0o700);
    session = DirSession { spoils: Some("d/a.txt"), ..DirSession::new() };
    let error = materialise(&plan, &session).await.unwrap_err();
    chmod(session.path().join("closed"), 0o700);
    insta::assert_snapshot!(
        error,
        @"cannot stage entry 'd/a.txt': it was staged with mode 755 and has 640 there; does the workspace's file system keep modes?"
    );
}
