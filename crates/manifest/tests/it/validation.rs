//! What must hold before use.

use mooring_manifest::{Manifest, PathError, RelPath};
use serde_json::{Value, json};

fn problems(text: &str) -> String {
    let problems = Manifest::from_json(text).unwrap().validate().unwrap_err();
    problems.iter().fold(String::new(), |text, problem| text + &problem.to_string() + "\n")
}

fn of(value: &Value) -> String {
    problems(&value.to_string())
}

fn file() -> Value {
    json!({ "type": "file", "content": "" })
}

#[test]
fn every_name_is_checked() {
    let names = [
        "",
        ".",
        "/abs",
        "..",
        "a/../b",
        "a\\b",
        "\\x",
        "C:/x",
        "c:",
        "nul\0",
        "ok/../../x",
        &"n".repeat(256),
    ];
    let entries: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), file())).collect();
    insta::assert_snapshot!(of(&json!({ "entries": { "d": { "type": "dir", "children": entries } } })));
}

#[test]
fn a_path_that_is_too_long_as_a_whole_is_found() {
    let mut value = file();
    for _ in 0..20 {
        value = json!({ "type": "dir", "children": { "d".repeat(250): value } });
    }
    let found = of(&json!({ "entries": { "e": value } }));
    assert!(found.contains("manifest path must have at most 4095 bytes"), "{found}");
}

#[test]
fn one_path_holds_one_entry() {
    insta::assert_snapshot!(of(&json!({ "entries": {
        "a/b": file(),
        "a": { "type": "dir", "children": { "./b": file(), "c": file() } },
        "a//c": file(),
        "f": file(),
        "f/g/h": file(),
        "link": { "type": "local_file", "src": "x" },
        "link/y": { "type": "dir" },
    } })));
}

#[test]
fn a_source_may_be_overlaid_and_mounts_may_nest() {
    let mount = |at: Value| {
        json!({ "type": "s3_mount", "bucket": "b", "mount_path": at,
            "mount_strategy": { "type": "in_container", "pattern": { "type": "rclone" } } })
    };
    let nested = json!({ "entries": {
        "repo": { "type": "git_repo", "repo": "o/r", "ref": "main" },
        "repo/.env": file(),
        "m": mount(Value::Null),
        "n": mount(json!("m/inner")),
    } });
    assert_eq!(Manifest::from_value(&nested).unwrap().validate(), Ok(()));
    insta::assert_snapshot!(of(&json!({ "entries": {
        "m": mount(Value::Null),
        "n": mount(json!("/workspace/m")),
        "m/hidden": file(),
        "out": mount(json!("../../etc")),
        "out2": mount(json!("/mnt/../etc")),
    } })));
}

#[test]
fn keys_that_mean_nothing_are_found_at_any_depth() {
    insta::assert_snapshot!(problems(
        r#"{"entriez": {}, "version": 1, "version": 1,
            "entries": {"a": {"type": "file", "content": "1", "content": "2", "mode": "0600", "descriptoin": "d"},
                        "a": {"type": "file", "content": "3", "permissions": {"owner": 6, "grup": 4}},
                        "m": {"type": "s3_mount", "bucket": "b", "permissions": {"owner": 1},
                              "mount_strategy": {"type": "in_container", "pattern": {"type": "rclone", "args": []}}}},
            "environment": {"PATH": "/bin", "value": {"X": {"description": "d", "value": "v"}}},
            "users": [{"name": "u", "uid": 5}]}"#
    ));
}

#[test]
fn modes_groups_names_and_variables_are_checked() {
    insta::assert_snapshot!(of(&json!({
        "root": "/",
        "entries": {
            "a": { "type": "file", "content": "", "is_dir": true,
                "permissions": { "owner": 15, "group": -1, "other": 8 } },
            "b": { "type": "file", "content": "", "group": { "name": "nobody-said" } },
            "c": { "type": "file", "content": "", "group": { "name": "devs", "users": [] } },
            "d": { "type": "file", "content": "", "group": { "name": "carol" } },
            "e": { "type": "local_dir", "src": "a\0b" },
        },
        "environment": { "value": { "": "x", "A=B": "x", "OK": "x", "N": "\0" } },
        "users": [{ "name": "alice" }, { "name": "alice" }, { "name": "-rf /" }],
        "groups": [{ "name": "devs", "users": [{ "name": "carol" }, { "name": "carol" }] }, { "name": "", "users": [] }],
        "extra_path_grants": [{ "path": "/opt/a" }, { "path": "/opt/./a/" }],
    })));
}

#[test]
fn a_root_must_be_a_place_of_its_own() {
    for root in ["", "workspace", "/", "//", "/.", "/a/..", "/a/../b", "/a\0"] {
        assert!(of(&json!({ "root": root })).starts_with("root: the workspace root must"), "{root:?}");
    }
    assert_eq!(Manifest { root: "/home/u/w".into(), ..Manifest::default() }.validate(), Ok(()));
}

#[test]
fn what_git_could_misread_is_refused() {
    let repo = |field: &str, value: &str| {
        let mut entry = json!({ "type": "git_repo", "repo": "o/r", "ref": "main" });
        entry[field] = value.into();
        json!({ "entries": { "r": entry } })
    };
    for (field, bad) in [
        (
            "ref",
            &["", "--upload-pack=x", "-", "a b", "a..b", "a:b", "@{u}", "x.lock", "a//b", "\n", "/a", "a/"][..],
        ),
        (
            "host",
            &[
                "",
                "-x",
                "a b",
                "user@host",
                "ext::sh -c",
                "host:",
                "host:x",
                "file://x",
                "file:///a/../b",
                "h/p",
                ".h",
            ],
        ),
        ("repo", &["", "/etc", "../x", "o//r", "-x", "o/-r", "o r", "o?x", "o#x", "u@h", "a:b", "o/r/"]),
        ("subpath", &["../x", "/x", "  ", "a\\b", "C:/x", "a/../b"]),
    ] {
        for bad in bad {
            let found = of(&repo(field, bad));
            assert!(found.starts_with(&format!("entries.r.{field}: ")), "{field} {bad:?}: {found}");
        }
    }
    for (field, good) in [
        ("ref", &["v1.2.3", "feature/x-1", "0123456789abcdef0123456789abcdef01234567", "release_1"][..]),
        ("host", &["gitlab.example.com", "localhost:8443", "file:///srv/git"]),
        ("repo", &["group/sub/proj", "o/r.js", ".github"]),
        ("subpath", &["", ".", "packages/core", "./a//b"]),
    ] {
        for good in good {
            let manifest = Manifest::from_value(&repo(field, good)).unwrap();
            assert_eq!(manifest.validate(), Ok(()), "{field} {good:?}");
        }
    }
}

#[test]
fn a_relative_path_is_normalised() {
    let path = |text: &str| RelPath::parse(text).map(|path| path.to_string());
    assert_eq!(path("a//b/./c/"), Ok("a/b/c".to_owned()));
    assert_eq!(path(".hidden"), Ok(".hidden".to_owned()));
    assert_eq!(path("a:b"), Ok("a:b".to_owned()));
    assert_eq!(path("..."), Ok("...".to_owned()));
    assert_eq!(path("a\\..\\b"), Err(PathError::Escape));
    assert_eq!(RelPath::parse("a/b/c").unwrap().parents().collect::<Vec<_>>(), ["a/b", "a"]);
}
