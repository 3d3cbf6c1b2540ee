//! What is refused before anything starts.

use std::fs;
use std::os::unix::fs::symlink;

use mooring_manifest::Manifest;
use mooring_sandbox::{NetworkSupport, Plan, Support};
use serde_json::{Value, json};

use crate::support::{base, plan, refusal, write};

fn unsupported(manifest: &Value) -> String {
    let manifest = Manifest::from_value(manifest).unwrap();
    Plan::new(&manifest, ".".as_ref(), &Support::default(), "local").unwrap_err().to_string()
}

#[test]
fn what_a_backend_lacks_is_named() {
    let mount = json!({ "type": "s3_mount", "bucket": "b",
        "mount_strategy": { "type": "in_container", "pattern": { "type": "rclone" } } });
    let found = [
        unsupported(&json!({ "entries": { "in": { "type": "dir", "children": { "data": mount } } } })),
        unsupported(&json!({ "users": [{ "name": "alice" }] })),
        unsupported(&json!({ "groups": [{ "name": "devs", "users": [] }] })),
        unsupported(&json!({ "extra_path_grants": [{ "path": "/opt/tools", "host_path": "/srv" }] })),
    ];
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn what_a_backend_cannot_keep_of_our_additions_is_named() {
    let allow = json!({ "allow": ["pypi.org"] });
    let secret = json!({ "token": { "inject": [{ "host": "pypi.org" }] } });
    let found: Vec<String> = [
        json!({ "resources": { "cpu": 1.5 } }),
        json!({ "resources": { "memory": "1GiB" } }),
        json!({ "resources": { "pids": 5 } }),
        json!({ "resources": { "disk": "2GiB" } }),
        json!({ "resources": { "wall_clock": "30m" } }),
        json!({ "network": "deny" }),
        json!({ "network": allow }),
        json!({ "network": "unrestricted" }),
        json!({ "ports": [8080] }),
        json!({ "setup": ["make"] }),
        json!({ "image": "python:3.14-slim" }),
    ]
    .iter()
    .map(|additions| unsupported(&json!({ "x-mooring": additions })))
    .collect();
    insta::assert_snapshot!(found.join("\n"));

    let manifest = json!({ "x-mooring": { "network": allow, "secrets": secret } });
    let manifest = Manifest::from_value(&manifest).unwrap();
    let support = Support { network: NetworkSupport::ALL, ..Support::default() };
    insta::assert_snapshot!(Plan::new(&manifest, ".".as_ref(), &support, "local").unwrap_err());
    let support = Support { secrets: true, ..support };
    Plan::new(&manifest, ".".as_ref(), &support, "local").unwrap();
}

#[test]
fn a_manifest_with_problems_is_no_plan() {
    let found = unsupported(&json!({ "entries": { "../x": { "type": "dir" } }, "extra": 1 }));
    insta::assert_snapshot!(found);
}

#[test]
fn sources_that_cannot_be_copied_are_refused_with_their_path() {
    let base = base(&[("docs/a", "a"), ("links/x", "x"), ("deep/a/b", "x"), ("secret", "s")]);
    let at = |name: &str| base.path().join(name);
    symlink("docs", at("alias")).unwrap();
    symlink("secret", at("docs-link")).unwrap();
    symlink("/etc/passwd", at("links/abs")).unwrap();
    symlink("up/../../../secret", at("deep/a/sly")).unwrap();
    symlink("../../secret", at("deep/a/out")).unwrap();
    fs::create_dir(at("sockets")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("sockets/s")).unwrap();
    let dir = |src: &str| json!({ "e": { "type": "local_dir", "src": src } });
    let file = |src: &str| json!({ "e": { "type": "local_file", "src": src } });
    let mut found = String::new();
    for entries in [
        dir("no-such"),
        dir("../elsewhere"),
        dir("/etc"),
        dir("docs/../.."),
        dir("alias"),
        dir("secret"),
        dir("links"),
        dir("sockets"),
        file("/etc/hostname"),
        file("docs-link"),
        file("docs"),
        file("alias/a"),
        file("sockets/s"),
    ] {
        let message = refusal(&entries, base.path());
        found += &message.replace(&fs::canonicalize(base.path()).unwrap().display().to_string(), "BASE");
        found.push('\n');
    }
    fs::remove_file(at("deep/a/out")).unwrap();
    found += &refusal(&dir("deep"), base.path());
    insta::assert_snapshot!(found);
}

#[test]
fn a_source_may_be_named_in_any_way_that_ends_below_the_base() {
    let base = base(&[("docs/a", "a")]);
    let real = fs::canonicalize(base.path()).unwrap();
    let above = TempDirLink::new(&real);
    let inside = format!("docs/../../{}/docs", real.file_name().unwrap().to_str().unwrap());
    for src in ["docs", "./docs/", "docs/.", "x/../docs", &inside, &format!("{}/docs", real.display())] {
        plan(&json!({ "e": { "type": "local_dir", "src": src } }), base.path())
            .unwrap_or_else(|e| panic!("{src}: {e}"));
    }
    // The base itself may be reached through a link: the caller named it.
    let named = format!("{}/docs", above.link.display());
    plan(&json!({ "e": { "type": "local_dir", "src": named } }), &above.link).unwrap();
}

struct TempDirLink {
    link: std::path::PathBuf,
    _home: tempfile::TempDir,
}

impl TempDirLink {
    fn new(to: &std::path::Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        let link = home.path().join("link");
        symlink(to, &link).unwrap();
        Self { link, _home: home }
    }
}

#[test]
fn entries_clash_with_what_a_source_brings_where_neither_can_win() {
    let base = base(&[("tree/a/b", "file"), ("tree/f", "file")]);
    let file = json!({ "type": "file", "content": "" });
    let source = json!({ "type": "local_dir", "src": "tree" });
    let below = refusal(&json!({ "t": source, "t/a/b/c": file }), base.path());
    let dir =
        refusal(&json!({ "t": source, "t/f": { "type": "dir", "children": { "x": file } } }), base.path());
    insta::assert_snapshot!(format!("{below}\n{dir}"));
}

#[test]
fn a_manifest_without_sources_needs_no_base() {
    let nowhere = std::path::Path::new("/no/such/base");
    plan(&json!({ "a": { "type": "file", "content": "" } }), nowhere).unwrap();
    let message = refusal(&json!({ "a": { "type": "local_file", "src": "x" } }), nowhere);
    assert!(message.contains("cannot open the base directory /no/such/base"), "{message}");
}

#[test]
fn a_directory_that_holds_something_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let file = json!({ "type": "file", "content": "" });
    let entries = json!({ "new.txt": file, "b/c": file, "b/d": file });
    let plan = plan(&entries, ".".as_ref()).unwrap();
    plan.refuse_conflicts(directory.path()).unwrap();
    write(directory.path().join("b/c"), "");
    let refused = plan.refuse_conflicts(directory.path()).unwrap_err().to_string();
    assert!(refused.contains("the manifest's entry 'b/c' would overwrite it"), "{refused}");
}

/// Every manifest that the SDK refuses is refused here at the latest, by a backend that has nothing.
#[test]
fn what_the_sdk_refuses_is_no_plan() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifest/tests/corpus/invalid");
    let empty = tempfile::tempdir().unwrap();
    let mut planned = 0;
    for file in fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let Ok(manifest) = Manifest::from_json(&fs::read_to_string(&path).unwrap()) else { continue };
        planned += 1;
        let plan = Plan::new(&manifest, empty.path(), &Support::default(), "local");
        assert!(plan.is_err(), "{}", path.display());
    }
    assert!(planned > 15, "{planned}");
}
