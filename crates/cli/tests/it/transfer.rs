//! Runs that go on elsewhere: exported from one home and imported into another, and forked from any event.

use serde_json::Value;

use crate::moor::{Moor, exec, say};

const AGENT: &str = r#"
model = "script:script.jsonl"

[[policy.rules]]
tool = "exec_command"
arguments.cmd = "*>> log"
action = "ask"
"#;

/// A run in a private workspace that waits for an approval; gives its id.
fn waiting(moor: &Moor) -> String {
    moor.write("agent.toml", AGENT);
    let turns = [
        exec(0, &["echo zero > log; mkdir d; ln -s ../log d/l"]),
        exec(1, &["echo one >> log"]),
        say("done"),
    ];
    moor.write("script.jsonl", &turns.concat());
    let ran = moor.run(&["run", "--agent", "agent.toml", "write the log"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    ran.run()
}

/// Another home of the same user.
fn elsewhere(moor: &Moor, home: &str, args: &[&str]) -> crate::moor::Ran {
    moor.command(args).env("MOOR_HOME", moor.path(home)).output().unwrap().into()
}

/// The workspace of a run, as its events say.
fn workspace(events: &[Value]) -> std::path::PathBuf {
    let ready = events.iter().rev().find(|event| event["type"] == "sandbox_ready").unwrap();
    ready["state"]["data"]["workspace"].as_str().unwrap().into()
}

fn approve_all(moor: &Moor, home: &str) -> usize {
    let waiting = elsewhere(moor, home, &["approvals", "--json"]).json();
    for approval in &waiting {
        let ran = elsewhere(moor, home, &["approve", approval["id"].as_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
    waiting.len()
}

#[test]
fn a_run_that_waits_is_approved_and_ended_in_another_home_with_its_workspace() {
    let moor = Moor::new();
    let run = waiting(&moor);
    let ran = moor.run(&["export-state", &run, "-o", "run.tar"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("1 run(s)") && ran.out.contains("1 workspace(s)"), "{}", ran.out);
    let again = moor.run(&["export-state", &run, "-o", "run.tar"]);
    assert_eq!(again.code, Some(2), "nothing is overwritten");
    let before = moor.events(&run);
    // The first machine is gone.
    fs_err::rename(moor.home(), moor.path("gone")).unwrap();

    let imported = elsewhere(&moor, "other", &["import-state", "run.tar"]);
    assert_eq!(imported.code, Some(0), "{}", imported.err);
    let after = elsewhere(&moor, "other", &["events", &run, "--json"]).json();
    assert_eq!(after.len(), before.len() + 1);
    for (mut old, mut new) in before.into_iter().zip(after) {
        // All but who held it: times and numbers too.
        (old["epoch"], new["epoch"]) = (Value::Null, Value::Null);
        assert_eq!(old, new);
    }
    let again = elsewhere(&moor, "other", &["import-state", "run.tar"]);
    assert!(again.out.contains("is here already"), "{again:?}");

    assert_eq!(approve_all(&moor, "other"), 1);
    let again = elsewhere(&moor, "other", &["import-state", "run.tar"]);
    assert_eq!(again.code, Some(2), "it has gone on here since: {again:?}");
    let resumed = elsewhere(&moor, "other", &["resume", &run]);
    assert_eq!((resumed.code, resumed.last()["output"].as_str()), (Some(0), Some("done")), "{}", resumed.err);
    let place = workspace(&elsewhere(&moor, "other", &["events", &run, "--json"]).json());
    assert!(place.starts_with(moor.path("other").canonicalize().unwrap()), "{}", place.display());
    assert_eq!(fs_err::read_to_string(place.join("d/l")).unwrap(), "zero\none\n");
    let shown = elsewhere(&moor, "other", &["show", &run]).out;
    assert!(shown.contains("brought in") && shown.contains("workspace restored"), "{shown}");
}

#[test]
fn a_run_moves_back_with_what_it_did_elsewhere() {
    let moor = Moor::new();
    let run = waiting(&moor);
    assert_eq!(moor.run(&["export-state", &run]).code, Some(0));
    let there = format!("{run}.tar");
    assert_eq!(elsewhere(&moor, "other", &["import-state", &there]).code, Some(0));
    approve_all(&moor, "other");
    assert_eq!(elsewhere(&moor, "other", &["export-state", &run, "-o", "back.tar"]).code, Some(0));
    let back = moor.run(&["import-state", "back.tar"]);
    assert_eq!(back.code, Some(0), "{}", back.err);
    let resumed = moor.run(&["resume", &run]);
    assert_eq!(resumed.last()["output"], "done", "{}", resumed.err);
    assert_eq!(fs_err::read_to_string(workspace(&moor.events(&run)).join("log")).unwrap(), "zero\none\n");
}

#[test]
fn without_its_workspace_a_run_begins_with_a_new_one_and_the_model_is_told() {
    let moor = Moor::new();
    let run = waiting(&moor);
    let ran = moor.run(&["export-state", &run, "-o", "run.tar", "--without-workspace"]);
    assert!(ran.out.contains("0 workspace(s)"), "{ran:?}");
    let imported = elsewhere(&moor, "other", &["import-state", "run.tar"]);
    assert!(imported.err.contains("made anew"), "{imported:?}");
    approve_all(&moor, "other");
    let resumed = elsewhere(&moor, "other", &["resume", &run]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.err);
    let events = elsewhere(&moor, "other", &["events", &run, "--json"]).json();
    assert_eq!(fs_err::read_to_string(workspace(&events).join("log")).unwrap(), "one\n");
    let told = events.iter().find(|event| event["type"] == "run_imported").unwrap();
    assert!(told["items"][0].to_string().contains("made anew"), "{told}");
}

#[test]
fn sub_agents_that_wait_move_with_their_caller() {
    let moor = Moor::new();
    moor.write(
        "worker.toml",
        &AGENT.replace("script.jsonl", "worker.jsonl").replace("\nmodel", "name = \"worker\"\nmodel"),
    );
    moor.write(
        "worker.jsonl",
        &[exec(0, &["echo zero > log"]), exec(1, &["echo one >> log"]), say("worked")].concat(),
    );
    moor.write(
        "boss.toml",
        "name = \"boss\"\nmodel = \"script:boss.jsonl\"\n[[agents]]\nagent = \"worker.toml\"\n",
    );
    let give = r#"[{"type": "function_call", "call_id": "w", "name": "worker", "arguments": "{\"input\": \"work\"}"}]"#;
    moor.write("boss.jsonl", &format!("{give}\n{}", say("all done")));
    let ran = moor.run(&["run", "--agent", "boss.toml", "go"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let run = ran.json()[0]["run"].as_str().unwrap().to_owned();
    let child = format!("{run}-1-0");
    let part = moor.run(&["export-state", &child]);
    assert!(part.code == Some(2) && part.err.contains("is part of run"), "{part:?}");

    let ran = moor.run(&["export-state", &run, "-o", "run.tar"]);
    assert!(ran.out.contains("2 run(s)") && ran.out.contains("2 workspace(s)"), "{ran:?}");
    fs_err::rename(moor.home(), moor.path("gone")).unwrap();
    let imported = elsewhere(&moor, "other", &["import-state", "run.tar"]);
    assert_eq!(imported.code, Some(0), "{}", imported.err);
    assert_eq!(approve_all(&moor, "other"), 1);
    let resumed = elsewhere(&moor, "other", &["resume", &run]);
    assert_eq!(
        (resumed.code, resumed.last()["output"].as_str()),
        (Some(0), Some("all done")),
        "{}",
        resumed.err
    );
    let events = elsewhere(&moor, "other", &["events", &child, "--json"]).json();
    assert_eq!(fs_err::read_to_string(workspace(&events).join("log")).unwrap(), "zero\none\n");
}

#[test]
fn no_secret_is_in_the_file() {
    let moor = Moor::new();
    moor.write(
        "home/config.toml",
        "[providers.openai]\napi_key = \"sk-secret-of-the-config\"\n[mcp.tools]\ncommand = \"nothing\"\n\
         env = {TOKEN = \"secret-of-the-server\"}\n",
    );
    moor.write("agent.toml", &AGENT.replace("model =", "mcp = [\"tools\"]\nmodel ="));
    moor.write("script.jsonl", &[exec(0, &["env > e"]), exec(1, &["echo one >> log"]), say("done")].concat());
    let secrets = ["sk-secret-of-the-config", "secret-of-the-server", "secret-of-the-environment"];
    let ran: crate::moor::Ran = moor
        .command(&["run", "--agent", "agent.toml", "go"])
        .env("OPENAI_API_KEY", secrets[2])
        .env("ANTHROPIC_API_KEY", secrets[2])
        .output()
        .unwrap()
        .into();
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let run = ran.run();
    let ran =
        moor.command(&["export-state", &run, "-o", "run.tar"]).env("OPENAI_API_KEY", secrets[2]).output();
    assert!(ran.unwrap().status.success());
    let file = fs_err::read(moor.path("run.tar")).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("HOME=") && holds(&run), "the archives are not compressed: what is in them is found");
    for secret in secrets {
        assert!(!holds(secret), "{secret}");
    }
}

#[test]
fn a_run_that_is_driven_is_not_exported() {
    let moor = Moor::new();
    moor.write("agent.toml", "model = \"script:script.jsonl\"\n");
    moor.write("script.jsonl", &[exec(0, &["echo begun > begun; sleep 60"]), say("done")].concat());
    let mut child = moor
        .command(&["run", "--agent", "agent.toml", "--workspace", "ws", "go"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !moor.path("ws/begun").exists() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let run = moor.run(&["runs", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    let ran = moor.run(&["export-state", &run]);
    assert!(ran.code == Some(2) && ran.err.contains("is being driven by"), "{ran:?}");
    assert!(!moor.path(&format!("{run}.tar")).exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_file_that_is_none_is_refused() {
    let moor = Moor::new();
    moor.write("no.tar", "hello");
    let ran = moor.run(&["import-state", "no.tar"]);
    assert!(ran.code == Some(2) && ran.err.contains("no.tar: the file cannot be used"), "{ran:?}");
    assert_eq!(moor.run(&["import-state", "nowhere.tar"]).code, Some(2));
}

#[test]
fn a_fork_goes_on_from_a_past_event_in_a_new_workspace() {
    let moor = Moor::new();
    moor.write("agent.toml", "model = \"script:script.jsonl\"\n");
    let turns = [exec(0, &["echo zero >> log"]), exec(1, &["echo one >> log"]), say("done"), say("again")];
    moor.write("script.jsonl", &turns.concat());
    let ran =
        moor.run(&["run", "--agent", "agent.toml", "--workspace", "ws", "--session", "s", "write the log"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let run = ran.run();
    let events = moor.events(&run);
    let seq = |kind: &str, nth: usize| {
        let mut found = events.iter().filter(|event| event["type"] == kind);
        found.nth(nth).unwrap()["seq"].to_string()
    };
    let forked = moor.run(&["fork", &run, "--at", &seq("tool_completed", 0)]);
    assert_eq!((forked.code, forked.last()["output"].as_str()), (Some(0), Some("done")), "{}", forked.err);
    assert!(forked.err.contains("made anew"), "{}", forked.err);
    let fork = forked.run();
    assert_eq!(fs_err::read_to_string(workspace(&moor.events(&fork)).join("log")).unwrap(), "one\n");
    assert_eq!(
        fs_err::read_to_string(moor.path("ws/log")).unwrap(),
        "zero\none\n",
        "the run's own is as it was"
    );
    assert!(moor.run(&["show", &fork]).out.contains(&format!("of run {run} · workspace made anew")));

    // From the end, with something to say.
    let last = seq("run_finished", 0);
    let forked = moor.run(&["fork", &run, "--at", &last, "--input", "and again"]);
    assert_eq!((forked.code, forked.last()["output"].as_str()), (Some(0), Some("again")), "{}", forked.err);
    assert!(moor.run(&["show", &forked.run()]).out.contains("> and again"));

    let wrong = moor.run(&["fork", &run, "--at", "999"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("has no event 999"), "{wrong:?}");
}

#[test]
fn a_fork_gets_the_workspace_of_the_nearest_snapshot() {
    let moor = Moor::new();
    moor.write("agent.toml", "model = \"script:s.jsonl\"\n[sandbox]\nsnapshots = \"turn\"\n");
    let turns =
        [exec(0, &["echo one >> log"]), exec(1, &["echo two >> log"]), exec(2, &["cat log"]), say("done")];
    moor.write("s.jsonl", &turns.concat());
    let ran = moor.run(&["run", "--agent", "agent.toml", "count"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let run = ran.run();
    // Forked at the snapshot after the first turn: what came later is not there, what came before is.
    let events = moor.events(&run);
    let taken = events.iter().find(|event| event["type"] == "snapshot_taken" && event["turn"] == 1).unwrap();
    let forked = moor.run(&["fork", &run, "--at", &taken["seq"].to_string()]);
    assert_eq!((forked.code, forked.last()["output"].as_str()), (Some(0), Some("done")), "{}", forked.err);
    assert!(forked.err.contains("after turn 1, from the nearest snapshot"), "{}", forked.err);
    let told = moor.run(&["show", &forked.run()]).out;
    assert!(told.contains("workspace restored") && told.contains("│ one\n  │ two"), "{told}");
    // The first run's own is as it was.
    let again = moor.run(&["show", &run]).out;
    assert!(again.contains("│ one\n  │ two"), "{again}");
}
