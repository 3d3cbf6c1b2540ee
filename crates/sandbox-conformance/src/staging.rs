//! A manifest becomes the same tree everywhere, repositories included, and what does not is found out.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use mooring_manifest::Manifest;
use mooring_sandbox::{Plan, SandboxError, apply_to_dir, materialise};

use crate::bench::Bench;

pub(crate) async fn a_manifest_is_the_same_tree_as_in_a_directory(bench: &Bench) {
    let base = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(base.path().join("src/deep/er")).unwrap();
    fs_err::write(base.path().join("src/a.txt"), "a\n").unwrap();
    fs_err::write(base.path().join("src/deep/er/run"), "#!/bin/sh\necho ran\n").unwrap();
    fs_err::set_permissions(base.path().join("src/deep/er/run"), std::fs::Permissions::from_mode(0o755))
        .unwrap();
    symlink("deep/er/run", base.path().join("src/link")).unwrap();
    fs_err::write(base.path().join("one"), vec![7; 1 << 20]).unwrap();
    let manifest = serde_json::json!({
        "entries": {
            "readme.md": { "type": "file", "content": "# read me\n" },
            "tree": { "type": "local_dir", "src": "src" },
            "data/one": { "type": "local_file", "src": "one" },
            "empty": { "type": "dir" },
            "tree/extra": {
                "type": "dir",
                "permissions": { "owner": 7, "group": 5, "other": 0 },
                "children": { "x": { "type": "file", "content": "x" } },
            },
        }
    });
    let manifest = Manifest::from_json(&manifest.to_string()).unwrap();
    let plan = Plan::new(&manifest, base.path(), &bench.client.support(), bench.client.backend_id()).unwrap();
    let here = tempfile::tempdir().unwrap();
    let expected = apply_to_dir(&plan, here.path()).await.unwrap();

    let sandbox = bench.with_manifest(manifest).await;
    let staged = materialise(&plan, sandbox.session.as_ref()).await.unwrap();
    assert_eq!(staged, expected);
    let tree =
        sandbox.out("find . -mindepth 1 | sort | while read f; do stat -c '%n %a %F' \"$f\"; done").await;
    assert_eq!(
        tree,
        "./data 755 directory\n./data/one 755 regular file\n./empty 755 directory\n./readme.md 755 regular file\n\
         ./tree 755 directory\n./tree/a.txt 644 regular file\n./tree/deep 755 directory\n./tree/deep/er 755 directory\n\
         ./tree/deep/er/run 755 regular file\n./tree/extra 750 directory\n./tree/extra/x 755 regular file\n\
         ./tree/link 777 symbolic link\n"
    );
    assert_eq!(sandbox.out("tree/link; cat readme.md; wc -c < data/one").await, "ran\n# read me\n1048576\n");
    // Again replaces what is there, and ends the same.
    assert_eq!(materialise(&plan, sandbox.session.as_ref()).await.unwrap(), expected);
}

pub(crate) async fn a_group_that_is_not_what_was_staged_is_found_out(bench: &Bench) {
    let manifest = |group: &str| {
        let manifest = serde_json::json!({
            "groups": [{ "name": group, "users": [{ "name": "bob" }] }],
            "entries": {
                "mine": { "type": "file", "content": "m" },
                "ours": { "type": "dir", "children": {
                    "file": { "type": "file", "content": "o", "group": { "name": group } },
                } },
            },
        });
        Manifest::from_value(&manifest).unwrap()
    };
    let plan = |group| Plan::new(&manifest(group), ".".as_ref(), &bench.client.support(), "this");
    if !bench.client.support().users {
        let refused = plan("team").unwrap_err();
        assert!(matches!(refused, SandboxError::Unsupported { .. }), "{refused}");
        return bench.left_out("it has one user, and refuses groups");
    }
    let sandbox = bench.with_manifest(manifest("team")).await;
    materialise(&plan("team").unwrap(), sandbox.session.as_ref()).await.unwrap();
    let told = ["mine", "ours", "ours/file"].map(|path| sandbox.session.stat(path));
    let told = futures::future::try_join_all(told).await.unwrap();
    let told: Vec<_> = told.iter().map(|stat| (stat.user.as_str(), stat.group.as_str())).collect();
    assert_eq!(told, [("agent", "agent"), ("agent", "agent"), ("agent", "team")]);
    // A sandbox that does not know the group unpacks all the same.
    match materialise(&plan("others").unwrap(), sandbox.session.as_ref()).await.unwrap_err() {
        SandboxError::Stage { entry, reason } => {
            assert_eq!(entry, "ours/file");
            assert!(
                reason.starts_with("it was staged for the group 'others' and belongs to 'agent'"),
                "{reason}"
            );
        }
        other => panic!("{other}"),
    }
}

pub(crate) async fn a_repository_comes_at_its_commit(bench: &Bench) {
    let base = tempfile::tempdir().unwrap();
    let work = base.path().join("srv/o/r");
    fs_err::create_dir_all(&work).unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]);
        git.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(&work);
        let done = git.output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    fs_err::write(work.join("run"), "#!/bin/sh\necho one\n").unwrap();
    fs_err::set_permissions(work.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("run", work.join("link")).unwrap();
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "one"]);
    git(&["tag", "v1"]);
    let first = git(&["rev-parse", "HEAD"]);
    fs_err::write(work.join("run"), "#!/bin/sh\necho two\n").unwrap();
    git(&["commit", "--quiet", "-am", "two"]);
    let second = git(&["rev-parse", "HEAD"]);

    let host = format!("file://{}/srv", base.path().display());
    let entry = |reference: &str| serde_json::json!({ "type": "git_repo", "host": host, "repo": "o/r", "ref": reference });
    let manifest = serde_json::json!({ "entries": { "old": entry("v1"), "new": entry("main"), "by/commit": entry(&first) } });
    let manifest = Manifest::from_value(&manifest).unwrap();
    let plan = Plan::new(&manifest, base.path(), &bench.client.support(), bench.client.backend_id()).unwrap();
    let sandbox = bench.with_manifest(manifest).await;
    let staged = materialise(&plan, sandbox.session.as_ref()).await.unwrap();
    let expected = [("by/commit", &first), ("new", &second), ("old", &first)];
    assert_eq!(staged.commits, expected.map(|(entry, commit)| (entry.to_owned(), commit.clone())).into());
    // The clone is a repository there too, with the branch or the commit checked out.
    let told = sandbox
        .out("old/link; new/link; by/commit/link; cat old/.git/HEAD new/.git/HEAD by/commit/.git/HEAD");
    assert_eq!(told.await, format!("one\ntwo\none\n{first}\nref: refs/heads/main\n{first}\n"));
}
