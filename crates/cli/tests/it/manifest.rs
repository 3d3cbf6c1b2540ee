//! `moor manifest`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::moor::{Moor, exec, repository, say};

#[test]
fn check_says_what_is_wrong_where() {
    let moor = Moor::new();
    moor.write("good.yaml", "entries:\n  a.txt: {type: file, content: hello}\n");
    moor.write(
        "bad.json",
        "{\"entries\": {\"d\": {\"type\": \"dir\", \"children\": {\"../x\": {\"type\": \"file\", \"content\": \"\"}}}}}",
    );
    let good = moor.run(&["manifest", "check", "good.yaml"]);
    assert_eq!(good.code, Some(0), "{}", good.err);
    assert!(good.out.starts_with("good.yaml: valid · "), "{}", good.out);
    let both = moor.run(&["manifest", "check", "good.yaml", "bad.json"]);
    assert_eq!(both.code, Some(2));
    assert!(both.out.starts_with("good.yaml: valid"), "{}", both.out);
    insta::assert_snapshot!(
        both.err,
        @r#"error: bad.json: the manifest is not valid: entries.d.children["../x"]: manifest path must not escape root: ../x; write the path without '..'"#
    );
}

#[test]
fn apply_stages_into_a_directory_and_overwrites_nothing() {
    let moor = Moor::new();
    moor.write("src/deep/b.txt", "b");
    moor.write(
        "m.yaml",
        "entries:\n  a.txt: {type: file, content: hello, permissions: {owner: 6, group: 4, other: 0}}\n  \
         d: {type: local_dir, src: src}\n",
    );
    let applied = moor.run(&["manifest", "apply", "m.yaml", "--root", "out"]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    assert_eq!(fs_err::read_to_string(moor.path("out/d/deep/b.txt")).unwrap(), "b");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs_err::metadata(moor.path("out/a.txt")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o640);

    fs_err::write(moor.path("out/a.txt"), "mine").unwrap();
    let again = moor.run(&["manifest", "apply", "m.yaml", "--root", "out"]);
    assert_eq!(again.code, Some(2));
    assert_eq!(fs_err::read_to_string(moor.path("out/a.txt")).unwrap(), "mine");
}

#[test]
fn what_was_locked_is_staged_again_or_refused() {
    let moor = Moor::new();
    moor.write("docs/a.txt", "a");
    moor.write("m.yaml", "entries:\n  docs: {type: local_dir, src: docs}\n  n: {type: file, content: n}\n");
    let locked = moor.run(&["manifest", "lock", "m.yaml"]);
    assert_eq!(locked.code, Some(0), "{}", locked.err);
    assert!(locked.out.ends_with("m.lock: 2 entries\n"), "{}", locked.out);
    let applied = moor.run(&["manifest", "apply", "m.yaml", "--root", "one"]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);

    moor.write("docs/a.txt", "b");
    let differs = moor.run(&["manifest", "apply", "m.yaml", "--root", "two"]);
    assert_eq!(differs.code, Some(2));
    assert!(
        differs.err.starts_with("error: m.lock: cannot stage entry 'docs': it is not what was"),
        "{}",
        differs.err
    );
    assert!(
        differs.err.ends_with("Lock it anew with `moor manifest lock m.yaml`, or remove the lock\n"),
        "{}",
        differs.err
    );
    assert!(!moor.path("two").exists(), "nothing was staged");
    let run = moor.run(&["run", "--model", "script:none.toml", "--manifest", "m.yaml", "go"]);
    assert_eq!((run.code, run.err), (Some(2), differs.err));

    assert_eq!(moor.run(&["manifest", "lock", "m.yaml"]).code, Some(0));
    assert_eq!(moor.run(&["manifest", "apply", "m.yaml", "--root", "two"]).code, Some(0));
}

/// Every path below a directory, with its mode and content.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut due = vec![root.to_owned()];
    while let Some(directory) = due.pop() {
        for entry in fs_err::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let about = fs_err::symlink_metadata(&path).unwrap();
            let content = about.is_file().then(|| fs_err::read(&path).unwrap());
            if about.is_dir() {
                due.push(path.clone());
            }
            let mode = std::os::unix::fs::MetadataExt::mode(&about);
            found.insert(path.strip_prefix(root).unwrap().to_owned(), (mode, content));
        }
    }
    found
}

/// Every manifest of the corpus that needs nothing but files, and one with files of this host.
#[test]
fn apply_gives_the_tree_that_the_sdk_gives() {
    let moor = Moor::new();
    moor.write("docs/deep/b.txt", "b");
    moor.write("note.txt", "n");
    let host = r#"{"entries": {"in/docs": {"type": "local_dir", "src": "docs"},
        "note": {"type": "local_file", "src": "note.txt", "permissions": {"owner": 6, "group": 4, "other": 0}}}}"#;
    let mut manifests = BTreeMap::from([("host".to_owned(), host.to_owned())]);
    let corpus = repository().join("crates/manifest/tests/corpus/valid");
    for file in fs_err::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let text = fs_err::read_to_string(&path).unwrap();
        let plain = !["git_repo", "local_", "_mount\"", "\"name\"", "\"path\""]
            .iter()
            .any(|word| text.contains(word));
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // Ours refuses two of them on purpose: modes that are none, and a file that is a directory too. And the SDK
        // starts a process for each of many files.
        if plain && !["11_", "40_", "41_"].iter().any(|number| name.starts_with(number)) {
            manifests.insert(name, text);
        }
    }
    assert!(manifests.len() > 8, "the corpus is here: {manifests:?}");

    let python = repository().join("target/counterparts/venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup --tests", python.display());
    let cases = manifests.iter().map(|(name, text)| {
        let manifest: serde_json::Value = serde_json::from_str(text).unwrap();
        serde_json::json!({ "manifest": manifest, "root": moor.path(&format!("theirs-{name}")) }).to_string()
            + "\n"
    });
    moor.write("cases", &cases.collect::<String>());
    let staged = std::process::Command::new(python)
        .arg(repository().join("crates/cli/tests/stage.py"))
        .current_dir(moor.path("."))
        .stdin(std::fs::File::open(moor.path("cases")).unwrap())
        .output()
        .unwrap();
    assert!(staged.status.success(), "{}", String::from_utf8_lossy(&staged.stderr));
    for (name, text) in manifests {
        moor.write(&format!("{name}.json"), &text);
        let ours = format!("ours-{name}");
        let applied = moor.run(&["manifest", "apply", &format!("{name}.json"), "--root", &ours]);
        assert_eq!(applied.code, Some(0), "{name}: {}", applied.err);
        assert_eq!(tree(&moor.path(&ours)), tree(&moor.path(&format!("theirs-{name}"))), "{name}");
    }
}

#[test]
fn a_run_leaves_what_its_manifest_asks_for_or_has_failed() {
    let moor = Moor::new();
    moor.write(
        "m.yaml",
        "x-mooring: {setup: [echo ready > state], outputs: [report.md, {path: more, required: false}]}\n",
    );
    let write = |file: &str| {
        moor.write("s.jsonl", &[exec(0, &[&format!("cat state; true > {file}")]), say("Done.")].concat());
        moor.run(&["run", "--json", "--model", "script:s.jsonl", "--manifest", "m.yaml", "go"])
    };
    let left = write("report.md");
    assert_eq!(left.code, Some(0), "{}{}", left.out, left.err);
    assert!(left.out.contains("ready"), "setup ran before: {}", left.out);
    let missing = write("other.md");
    assert_eq!(missing.code, Some(1), "{}{}", missing.out, missing.err);
    let why = "the manifest asks for outputs that are not there: 'report.md'";
    assert!(missing.out.contains("outputs_missing") && missing.out.contains(why), "{}", missing.out);
}

#[test]
fn the_schema_is_json() {
    let moor = Moor::new();
    let schema: serde_json::Value = serde_json::from_str(&moor.run(&["manifest", "schema"]).out).unwrap();
    assert!(schema["properties"]["entries"].is_object());
}

#[test]
fn the_examples_manifest_is_valid() {
    let moor = Moor::new();
    let file = repository().join("examples/fix-the-bug/manifest.yaml");
    assert_eq!(moor.run(&["manifest", "check", file.to_str().unwrap()]).code, Some(0));
}

#[test]
fn doctor_says_what_is_here_and_what_is_missing() {
    let moor = Moor::new();
    let mut command = moor.command(&["doctor"]);
    let ran: crate::moor::Ran = command.env("ANTHROPIC_API_KEY", "sk-do-not-leak").output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    for expected in
        ["user namespace", "key from ANTHROPIC_API_KEY", "set OPENAI_API_KEY to use it", "journal.db"]
    {
        assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
    }
    assert!(!ran.out.contains("sk-do-not-leak"));
}

#[test]
fn what_others_wrote_becomes_a_manifest_and_what_is_left_out_is_told() {
    let moor = Moor::new();
    moor.write(
        "shop/.devcontainer/devcontainer.json",
        "{\"image\": \"python:3.14\", /* so */ \"name\": \"Shop\"}",
    );
    moor.write(
        "task/task.toml",
        "[environment]\ncpus = 2\nworkdir = \"/app\"\nnetwork_mode = \"no-network\"\n",
    );
    moor.write("task/environment/Dockerfile", "FROM ubuntu\n");
    moor.write("task/instruction.md", "Do it.");
    moor.write(
        "env.yaml",
        "name: data\nconfig: {type: cloud, packages: {pip: [numpy]}, networking: {type: unrestricted}}\n",
    );
    let import = |source: &str| {
        let imported = moor.run(&["manifest", "import", source]);
        assert_eq!(imported.code, Some(0), "{}", imported.err);
        moor.write("made.json", &imported.out);
        assert_eq!(moor.run(&["manifest", "check", "made.json"]).code, Some(0), "{}", imported.out);
        let value: serde_json::Value = serde_json::from_str(&imported.out).unwrap();
        (value, imported.err)
    };
    let (project, told) = import("shop");
    assert_eq!(project["entries"]["shop"]["src"], "shop");
    assert_eq!(project["x-mooring"]["image"], "python:3.14");
    assert_eq!(import("shop/.devcontainer/devcontainer.json"), (project, told.clone()));
    insta::assert_snapshot!(told, @r"
    left out: name: a manifest has no place for it
    left out: network: a dev container reaches everything, and the manifest says nothing about it; say below x-mooring.network what is needed
    ");
    let (task, told) = import("task");
    assert_eq!(task["root"], "/app");
    assert_eq!(task["x-mooring"]["image"]["context"], "task/environment");
    insta::assert_snapshot!(told, @"left out: (instruction.md): it is what the agent is asked; give its text as the prompt");

    let (environment, _) = import("env.yaml");
    assert_eq!(environment["x-mooring"]["setup"][0]["run"], "pip install numpy");
    let exported = moor.run(&["manifest", "export", "made.json", "--name", "data"]);
    assert_eq!((exported.code, exported.err.as_str()), (Some(0), ""));
    let exported: serde_json::Value = serde_json::from_str(&exported.out).unwrap();
    let expected = serde_json::json!({ "name": "data", "config": {
        "type": "cloud", "networking": { "type": "unrestricted" }, "packages": { "pip": ["numpy"] },
    } });
    assert_eq!(exported, expected);

    let none = moor.run(&["manifest", "import", "."]);
    assert_eq!(none.code, Some(2));
    insta::assert_snapshot!(none.err, @"error: .: it holds neither a task.toml nor a devcontainer.json");
}
