//! Bad input of every kind: a clear error that names file, line or key, and the next step; nothing is lost.

use crate::moor::{Moor, exec, say};

/// Runs `moor` and gives what it complains of, with this test's own directory left out.
fn complaint(moor: &Moor, args: &[&str], code: i32) -> String {
    let ran = moor.run(args);
    assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{}", ran.err);
    ran.err.replace(moor.dir.path().to_str().unwrap(), "DIR")
}

fn agent(moor: &Moor, text: &str) -> String {
    moor.write("agent.toml", text);
    complaint(moor, &["run", "--agent", "agent.toml", "hello"], 2)
}

#[test]
fn malformed_agents() {
    let moor = Moor::new();
    moor.write("s.jsonl", &say("hi"));
    let complaints = [
        complaint(&moor, &["run", "--agent", "nowhere.toml", "hello"], 2),
        agent(&moor, "name = \"x\nmodel = 1"),
        agent(&moor, "modle = \"script:s.jsonl\""),
        agent(&moor, "model = \"gpt-5\""),
        agent(&moor, "model = \"script:s.jsonl\"\ncapabilities = [\"shell\", \"telepathy\"]"),
        agent(&moor, "model = \"script:s.jsonl\"\n[sandbox]\nmemory = \"lots\""),
        agent(&moor, "model = \"script:s.jsonl\"\n[sandbox]\nbackend = \"cloud\""),
        agent(&moor, "model = \"script:s.jsonl\"\n[limits]\nmax_turns = -1"),
        agent(&moor, "model = \"script:s.jsonl\"\nmanifest = \"nowhere.yaml\""),
        agent(&moor, "model = \"script:s.jsonl\"\n[[policy.rules]]\nsandbox = \"moon\"\naction = \"deny\""),
        agent(&moor, "model = \"script:s.jsonl\"\n[[policy.rules]]\nread = \"the web\"\naction = \"ask\""),
        agent(&moor, "name = \"no model\""),
    ];
    insta::assert_snapshot!(complaints.concat());
}

#[test]
fn malformed_manifests() {
    let moor = Moor::new();
    moor.write("s.jsonl", &say("hi"));
    let mut complaints = String::new();
    for (name, text) in [
        ("m.yaml", "version: 2"),
        ("m.json", "{\"entries\": {\n  \"a\": {\"type\": \"file\" \"content\": \"x\"}}}"),
        ("m.json", "{\"entries\": {\"../x\": {\"type\": \"file\", \"content\": \"x\"}}}"),
        (
            "m.json",
            "{\"entries\": {\"/etc/x\": {\"type\": \"file\", \"content\": \"x\"}, \"b\": {\"type\": \"link\"}}}",
        ),
        ("m.toml", "[entries.a]\ntype = \"local_dir\"\nsrc = \"nowhere\""),
        (
            "m.yaml",
            "entries:\n  d:\n    type: s3_mount\n    bucket: b\n    mount_path: /srv/b\n    mount_strategy: {type: in_container, pattern: {type: rclone}}",
        ),
    ] {
        moor.write(name, text);
        complaints +=
            &complaint(&moor, &["run", "--model", "script:s.jsonl", "--manifest", name, "hello"], 2);
    }
    insta::assert_snapshot!(complaints);
    assert!(moor.run(&["runs", "--json"]).out.is_empty(), "a refused run leaves no trace");
}

#[test]
fn scripts_that_are_malformed_or_end_too_soon() {
    let moor = Moor::new();
    moor.write("bad.jsonl", &format!("{}{{\"output\": [}}\n", say("hi")));
    insta::assert_snapshot!(
        complaint(&moor, &["run", "--model", "script:bad.jsonl", "hello"], 2),
        @r#"error: --model: script:DIR/bad.jsonl: DIR/bad.jsonl:2:13: expected value. A line is the `output` array of one response, or {"output": […], "usage": {…}}"#
    );

    // The end of the script ends the run, with everything it did on record, and a longer script resumes it.
    moor.write("short.jsonl", &exec(0, &["echo one"]));
    let ran = moor.run(&["run", "--model", "script:short.jsonl", "hello"]);
    assert_eq!(ran.code, Some(1));
    let last = ran.last();
    assert_eq!(
        (last["status"].as_str(), last["error"]["code"].as_str()),
        (Some("failed"), Some("model_script"))
    );
    let message =
        last["error"]["message"].as_str().unwrap().replace(moor.dir.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!(
        message,
        @"script:DIR/short.jsonl: the script ends after 1 responses, and the run asks for number 2. Add a line with the next response; the last one of a run calls no tool"
    );
    moor.write("short.jsonl", &[exec(0, &["echo one"]), say("two")].concat());
    let resumed = moor.run(&["resume", &ran.run()]);
    assert_eq!((resumed.code, resumed.last()["output"].as_str()), (Some(0), Some("two")));
}

#[test]
fn missing_keys_and_addresses() {
    let moor = Moor::new();
    let mut complaints = String::new();
    for model in ["openai/gpt-5", "anthropic/claude-opus", "chat/qwen"] {
        complaints += &complaint(&moor, &["run", "--model", model, "hello"], 2);
    }
    moor.write("agent.toml", "model = \"openai/x\"\nbase_url = \"http://127.0.0.1:1/v1\"");
    let mut command = moor.command(&["run", "--agent", "agent.toml", "hello"]);
    let ran: crate::moor::Ran = command.env("OPENAI_API_KEY", "sk-do-not-leak").output().unwrap().into();
    assert_eq!(ran.code, Some(2));
    complaints += &ran.err;
    moor.write("home/config.toml", "[providers.openai]\napi_kee = \"sk-do-not-leak\"");
    complaints += &complaint(&moor, &["run", "--model", "openai/x", "hello"], 2);
    assert!(!complaints.contains("sk-do-not-leak"));
    insta::assert_snapshot!(complaints);
}

#[test]
fn unknown_runs_and_bad_usage() {
    let moor = Moor::new();
    let mut complaints = String::new();
    for command in ["show", "events", "resume", "cancel"] {
        complaints += &complaint(&moor, &[command, "no-such-run"], 2);
    }
    insta::assert_snapshot!(complaints);
    assert_eq!(moor.run(&["run"]).code, Some(2));
    assert_eq!(moor.run(&["sail"]).code, Some(2));
}

#[test]
fn a_damaged_journal_is_named_and_left_alone() {
    let moor = Moor::new();
    moor.write("s.jsonl", &say("hi"));
    let ran = moor.run(&["run", "--model", "script:s.jsonl", "hello"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let file = moor.home().join("journal.db");
    let whole = fs_err::read(&file).unwrap();
    assert!(!whole.is_empty());

    let torn = b"this is no database, whatever its name says".repeat(100);
    fs_err::write(&file, &torn).unwrap();
    let complaint = complaint(&moor, &["runs"], 1);
    insta::assert_snapshot!(
        complaint,
        @"error: the journal DIR/home/journal.db failed: the file is not a journal (file is not a database); move it away to start anew. `moor doctor` tells more"
    );
    assert_eq!(fs_err::read(&file).unwrap(), torn, "nothing was changed");
}

#[test]
fn a_full_disk_stops_the_run_and_loses_nothing() {
    let moor = Moor::new();
    let big = exec(0, &["head -c 300000 /dev/zero | tr '\\0' 'x'"]);
    let script: String = (0..12).map(|_| big.clone()).chain([say("never")]).collect();
    let script = unique_ids(&script);
    moor.write("s.jsonl", &script);
    // A file system of 512 KiB for the journal; the workspace lies elsewhere.
    let inside = format!(
        "mkdir -p {home} && mount -t tmpfs -o size=512k tmpfs {home} && \
         {moor} run --model script:s.jsonl --workspace ws --json hello > out && echo 0 > code || echo $? > code; \
         {moor} runs --json > runs",
        home = moor.home().display(),
        moor = env!("CARGO_BIN_EXE_moor"),
    );
    let unshared = std::process::Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-ec", &inside])
        .current_dir(moor.dir.path())
        .env("MOOR_HOME", moor.home())
        .output()
        .unwrap();
    let ran: crate::moor::Ran = unshared.into();
    let read = |name: &str| fs_err::read_to_string(moor.path(name)).unwrap();
    assert_eq!(read("code").trim(), "1", "{ran:?}");
    assert!(ran.err.contains("no space left for the journal"), "{}", ran.err);
    let out = read("out");
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((last["type"].as_str(), last["status"].as_str()), (Some("run_finished"), Some("interrupted")));
    let listed: serde_json::Value = serde_json::from_str(read("runs").lines().next().unwrap()).unwrap();
    assert_eq!(listed["status"], "interrupted");
    // What was shown is what was recorded: the lines before the last are events of the journal.
    assert_eq!(listed["events"].as_u64().unwrap() as usize, out.lines().count() - 1);
}

/// Calls of different turns get different ids.
fn unique_ids(script: &str) -> String {
    let line = |(turn, line): (usize, &str)| line.replace("call_0_", &format!("call_{turn}_")) + "\n";
    script.lines().enumerate().map(line).collect()
}
