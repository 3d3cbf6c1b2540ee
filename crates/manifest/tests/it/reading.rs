//! Text to manifest.

use std::fmt::Write;
use std::path::Path;

use mooring_manifest::{EntryKind, Format, Manifest, ManifestError};
use serde_json::{Value, json};

const YAML: &str = r#"
root: /srv/project
entries:
  task.md: {type: file, content: "Do it.\n", description: the task}
  src:
    type: dir
    children:
      main.py: {type: file, content: print(1)}
environment:
  value: {LANG: C.UTF-8}
"#;

const TOML: &str = r#"
root = "/srv/project"
[entries."task.md"]
type = "file"
content = "Do it.\n"
description = "the task"
[entries.src]
type = "dir"
[entries.src.children."main.py"]
type = "file"
content = "print(1)"
[environment.value]
LANG = "C.UTF-8"
"#;

#[test]
fn all_formats_give_the_same_manifest() {
    let yaml = Manifest::from_yaml(YAML).unwrap();
    assert_eq!(Manifest::from_toml(TOML).unwrap(), yaml);
    assert_eq!(Manifest::from_json(&yaml.to_json()).unwrap(), yaml);
    assert_eq!(yaml.validate(), Ok(()));
    assert_eq!(yaml.resolved_environment(), [("LANG".to_owned(), "C.UTF-8".to_owned())].into());
}

#[test]
fn an_ending_names_the_format() {
    let format = |path: &str| Format::from_path(Path::new(path));
    assert_eq!(format("a/m.json"), Ok(Format::Json));
    assert_eq!(format("m.yml"), Ok(Format::Yaml));
    assert_eq!(format("m.yaml"), Ok(Format::Yaml));
    assert_eq!(format("m.toml"), Ok(Format::Toml));
    assert_eq!(
        format("m.txt").unwrap_err().to_string(),
        "cannot tell the format of 'm.txt' by its ending; name it .json, .yaml, .yml or .toml"
    );
}

#[test]
fn syntax_errors_have_a_place() {
    let mut messages = String::new();
    for (format, text) in [
        (Format::Json, "{\n  \"entries\": {,}\n}"),
        (Format::Json, "{} x"),
        (Format::Json, ""),
        (Format::Yaml, "entries:\n  a: [1\n  b: 2"),
        (Format::Yaml, "a: !tag {b: 1}"),
        (Format::Yaml, "a: .nan"),
        (Format::Yaml, "{}\n---\n{}"),
        (Format::Yaml, ""),
        (Format::Toml, "root = \"/w\"\nentries = = 1"),
        (Format::Toml, "root = 1\nroot = 2"),
    ] {
        let error = Manifest::read(text, format).unwrap_err();
        writeln!(messages, "{error}").unwrap();
    }
    insta::assert_snapshot!(messages);
}

#[test]
fn structure_is_refused_with_the_place_and_all_at_once() {
    let error = Manifest::from_value(&json!({
        "version": "1",
        "root": 7,
        "mountCredentialExposurePolicy": {},
        "entries": {
            "src": { "type": "dir", "children": { "../x": { "type": "file" }, "y": [], "z": { "type": "fil" } } },
            "g": { "type": "git_repo", "repo": "o/r" },
            "e": { "type": "file", "content": "x", "ephemeral": "yes" },
            "p": { "type": "file", "content": "x", "permissions": { "owner": "7" } },
            "m": { "type": "s3_mount", "bucket": "b", "mount_strategy":
                { "type": "in_container", "pattern": { "type": "rclone", "mode": "ftp" } } },
        },
        "environment": { "value": { "A": 1, "B": { "type": "vault" }, "C": { "description": "no value" } } },
        "users": [{ "name": "a" }, {}],
        "extra_path_grants": [{ "path": "/x/.." }, { "path": "x" }],
        "x-mooring": [],
    }))
    .unwrap_err();
    insta::assert_snapshot!(error);
}

#[test]
fn the_depth_is_bounded() {
    let object = |members: [(&str, Value); 2]| {
        Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let mut value = json!({ "type": "dir" });
    for _ in 0..100_000 {
        let children = object([("d", value), ("e", Value::Null)]);
        value = object([("type", "dir".into()), ("children", children)]);
    }
    // Dropping it would overflow the stack: that is the test's own doing.
    let value = std::mem::ManuallyDrop::new(object([
        ("entries", object([("d", value), ("e", Value::Null)])),
        ("root", "/w".into()),
    ]));
    let error = Manifest::from_value(&value).unwrap_err();
    assert!(
        error.to_string().contains(".d.children: directories are nested more than 64 levels deep"),
        "{error}"
    );
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (before, name) in "abcdefghijkl".chars().zip("bcdefghijklm".chars()) {
        writeln!(text, "{name}: &{name} [{}]", vec![format!("*{before}"); 9].join(", ")).unwrap();
    }
    assert!(matches!(Manifest::from_yaml(&text), Err(ManifestError::Syntax { .. })));
}

#[test]
fn paths_on_the_host_are_normalised_as_the_sdk_does() {
    let manifest = Manifest::from_json(
        r#"{"entries": {"f": {"type": "local_file", "src": "./a//b/../c"}, "d": {"type": "local_dir", "src": ""}}}"#,
    )
    .unwrap();
    let sources: Vec<_> = manifest
        .entries
        .values()
        .map(|entry| match &entry.kind {
            EntryKind::LocalFile(file) => file.src.as_str(),
            EntryKind::LocalDir(dir) => dir.src.as_deref().unwrap(),
            _ => "",
        })
        .collect();
    assert_eq!(sources, ["a/b/../c", "."]);
}
