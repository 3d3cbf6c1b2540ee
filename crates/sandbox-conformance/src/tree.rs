//! One manifest with all that a tree can hold, and the digest of what becomes of it: the same on every backend.
//!
//! The digest is that of snapshots, taken of what lies in the sandbox afterwards and not of what was sent. It is over
//! paths, kinds, modes, owners by name, times and contents.

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, Plan, materialise};
use mooring_snapshot::SnapshotStore;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde_json::{Value, json};

use crate::bench::{Bench, unique};

/// What [`manifest`] becomes without groups. It changes with the manifest below and with the form of snapshots, and for
/// no other reason.
const DIGEST: &str = "125750a3ef2f648de5b182d58181f514c0ec918d38eadcd3bf8d747414145297";

/// What it becomes with groups, which sandboxes of one user refuse: those of an ordinary user without a range of numbers.
const DIGEST_WITH_GROUPS: &str = "655032d0e09381be87190fca9d5600659b184e8bda4beb1fbe5d9a22f8e0ade5";

pub(crate) async fn a_manifest_is_one_tree_on_every_backend(bench: &Bench) {
    // In a directory of the caller's too, whoever that is.
    let callers = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        chown(callers.path(), Some(2345), Some(2345)).unwrap();
    }
    for workspace in [None, Some(callers.path().to_owned())] {
        let found = digest_of(bench, manifest(&Value::Null, &Value::Null), workspace).await;
        assert_eq!(found.0, DIGEST, "what is there:\n{}", found.1);
    }
    if !bench.client.support().users {
        return bench.left_out("it has one user, and refuses groups");
    }
    let team = json!({ "name": "team", "users": [{ "name": "bob" }] });
    let found = digest_of(bench, manifest(&team, &json!({ "name": "ann" })), None).await;
    assert_eq!(found.0, DIGEST_WITH_GROUPS, "what is there:\n{}", found.1);
}

/// The digest of what a manifest became, and the tree as a command sees it.
async fn digest_of(bench: &Bench, manifest: Manifest, workspace: Option<PathBuf>) -> (String, String) {
    let base = tempfile::tempdir().unwrap();
    fill(base.path());
    let plan = Plan::new(&manifest, base.path(), &bench.client.support(), bench.client.backend_id()).unwrap();
    let request = CreateRequest { session_id: unique("s"), manifest, workspace };
    let sandbox = bench.start(&bench.client, request).await;
    materialise(&plan, sandbox.session.as_ref()).await.unwrap();
    let store = SnapshotStore::open(&base.path().join("snapshots")).unwrap();
    let digest = store.look(sandbox.session.as_ref()).await.unwrap().to_string();
    let look = "find . -mindepth 1 -exec stat -c '%A %U:%G %s %Y %n' {} + | sort -k 5";
    (digest, sandbox.out(look).await)
}

/// A manifest whose whole tree is fixed: directories that nothing names would have the time at which they are made.
fn manifest(group: &Value, user: &Value) -> Manifest {
    let mode = |owner, group, other| json!({ "owner": owner, "group": group, "other": other });
    let file = |content: &str| json!({ "type": "file", "content": content });
    let long = "n".repeat(255);
    let deep = "d".repeat(200);
    let value = json!({
        "users": if user.is_null() { json!([]) } else { json!([user]) },
        "groups": if group.is_null() { json!([]) } else { json!([group]) },
        "entries": {
            "plain": file("plain\n"),
            "empty": file(""),
            "run": { "type": "file", "content": "#!/bin/sh\necho ran\n", "permissions": mode(7, 5, 5) },
            "secret": { "type": "file", "content": "s", "permissions": mode(6, 0, 0) },
            "team's": { "type": "file", "content": "t", "permissions": mode(6, 6, 0), "group": group },
            "hers": { "type": "dir", "permissions": mode(7, 5, 0), "group": user, "children": {
                "nothing": { "type": "dir", "permissions": mode(7, 0, 1), "group": group },
                "file": file("whose group is nobody's but the user's"),
            } },
            // Two names that look the same.
            "\u{e9}": file("composed"),
            "e\u{301}": file("decomposed"),
            " \"quoted\" \n🦀 文件 ": file("odd"),
            long: file("long"),
            deep.clone(): { "type": "dir", "children": { deep.clone(): { "type": "dir", "children": {
                deep.clone(): { "type": "dir", "children": { deep: file("deep") } },
            } } } },
            "one": { "type": "local_file", "src": "one", "permissions": mode(6, 4, 4), "group": group },
            "tree": { "type": "local_dir", "src": "tree", "permissions": mode(7, 5, 5) },
            // Into what the tree brings, and in the place of it.
            "tree/sub": { "type": "dir", "permissions": mode(7, 5, 0), "group": group, "children": {
                "mine": file("the manifest's"),
            } },
        },
    });
    Manifest::from_value(&value).unwrap()
}

/// What the manifest copies.
fn fill(base: &Path) {
    let write = |path: &str, content: &[u8], mode: u32| {
        fs_err::write(base.join(path), content).unwrap();
        fs_err::set_permissions(base.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    fs_err::create_dir_all(base.join("tree/sub/空")).unwrap();
    // More than one piece of a snapshot's.
    let many: Vec<u8> = (0..2_000_000_u32).map(|number| (number.wrapping_mul(number) % 251) as u8).collect();
    write("one", &many, 0o600);
    write("tree/read-only", b"r", 0o444);
    write("tree/sub/mine", b"the tree's", 0o644);
    write("tree/sub/空/run", b"#!/bin/sh\n", 0o711);
    symlink("sub/空/run", base.join("tree/link")).unwrap();
    symlink("nowhere", base.join("tree/sub/dangling")).unwrap();
    for (path, mode) in [("tree/sub/空", 0o700), ("tree/sub", 0o777), ("tree", 0o755)] {
        fs_err::set_permissions(base.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // Last, and the inner ones first: what is written into a directory changes its time.
    let paths = [
        "one",
        "tree/read-only",
        "tree/sub/mine",
        "tree/sub/空/run",
        "tree/link",
        "tree/sub/dangling",
        "tree/sub/空",
        "tree/sub",
        "tree",
    ];
    for (number, path) in (1_000_000_000..).zip(paths) {
        let time = Timespec { tv_sec: number, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, base.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
