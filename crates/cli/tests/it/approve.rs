//! Approvals: asked in one process, answered in a second, gone on with in a third.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::moor::{Moor, exec, say};

const AGENT: &str = r#"
model = "script:script.jsonl"

[policy]
expires_s = 3600

[[policy.rules]]
tool = "exec_command"
arguments.cmd = "*>> log"
action = "ask"
reason = "it writes the log"
"#;

/// A run that waits for two approvals; gives its id.
fn waiting(moor: &Moor) -> String {
    moor.write("agent.toml", AGENT);
    let turns = [exec(0, &["echo one >> log", "echo free"]), exec(1, &["echo two >> log"]), say("done")];
    moor.write("script.jsonl", &turns.concat());
    let ran = moor.run(&["run", "--agent", "agent.toml", "--workspace", "ws", "write the log"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert_eq!(
        (ran.last()["type"].as_str(), ran.last()["status"].as_str()),
        (Some("run_finished"), Some("waiting"))
    );
    assert!(!moor.path("ws/log").exists());
    ran.run()
}

fn pending(moor: &Moor) -> Vec<String> {
    let lines = moor.run(&["approvals", "--json"]).json();
    lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_goes_on_once_its_calls_are_approved() {
    let moor = Moor::new();
    let run = waiting(&moor);
    assert_eq!(moor.run(&["runs", "--json"]).json()[0]["status"], "waiting");
    let shown = moor.run(&["show", &run]).out;
    assert!(
        shown.contains("exec_command echo one >> log  · it writes the log")
            && shown.contains("moor approve ID"),
        "{shown}"
    );

    let first = pending(&moor);
    assert_eq!(first.len(), 1);
    let approved = moor.run(&["approve", &first[0]]);
    assert_eq!(
        (approved.code, approved.out),
        (Some(0), format!("approved; go on with: moor resume {run}\n"))
    );
    assert_eq!(moor.run(&["approve", &first[0]]).out, "answered before: allow\n");
    let other = moor.run(&["deny", &first[0]]);
    assert_eq!((other.code, other.out.as_str()), (Some(2), ""), "it was not denied");
    assert!(other.err.contains("was answered before: allow"), "{}", other.err);
    assert!(pending(&moor).is_empty());

    assert_eq!(moor.run(&["resume", &run]).code, Some(3), "the second command is asked for on its own");
    assert_eq!(fs_err::read_to_string(moor.path("ws/log")).unwrap(), "one\n");
    let second = pending(&moor);
    let denied = moor.run(&["deny", &second[0], "--reason", "one is enough"]);
    assert_eq!(denied.code, Some(0), "{}", denied.err);
    let resumed = moor.run(&["resume", &run]);
    assert_eq!((resumed.code, resumed.last()["output"].as_str()), (Some(0), Some("done")));
    assert_eq!(fs_err::read_to_string(moor.path("ws/log")).unwrap(), "one\n");
    let told = moor
        .events(&run)
        .iter()
        .any(|event| event["output"]["output"].as_str().is_some_and(|text| text.contains("one is enough")));
    assert!(told, "the model hears why");
}

#[test]
fn always_asks_no_more_in_this_run() {
    let moor = Moor::new();
    let run = waiting(&moor);
    assert_eq!(moor.run(&["approve", "--always", &pending(&moor)[0]]).code, Some(0));
    assert_eq!(moor.run(&["resume", &run]).code, Some(0));
    assert_eq!(fs_err::read_to_string(moor.path("ws/log")).unwrap(), "one\ntwo\n");
}

#[test]
fn an_answer_waits_for_a_run_that_is_at_work() {
    let moor = Moor::new();
    moor.write("agent.toml", AGENT);
    let busy = "touch busy; while [ ! -e free ]; do sleep 0.05; done";
    moor.write("script.jsonl", &[exec(0, &["echo one >> log", busy]), say("done")].concat());
    let line = ["run", "--agent", "agent.toml", "--workspace", "ws", "write the log"];
    let mut running = moor.command(&line).stdout(Stdio::null()).spawn().unwrap();
    while !moor.path("ws/busy").exists() || pending(&moor).is_empty() {
        assert!(running.try_wait().unwrap().is_none(), "it has ended too soon");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let line = ["approve", &pending(&moor)[0]];
    let mut answering = moor.command(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(answering.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("is at work on other calls"), "{told}");
    fs_err::write(moor.path("ws/free"), "").unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(3));
    assert_eq!(answering.wait().unwrap().code(), Some(0));
    assert!(pending(&moor).is_empty());
}

#[test]
fn nothing_in_the_sandbox_can_approve() {
    let moor = Moor::new();
    moor.write("agent.toml", AGENT);
    // The model tries: the program, its journal and its home are not there.
    let attempt =
        "moor approvals; ls $MOOR_HOME /root /home/* 2>&1; find / -name journal.db 2>/dev/null; echo tried";
    moor.write("script.jsonl", &[exec(0, &["echo one >> log", attempt]), say("done")].concat());
    let ran = moor.run(&["run", "--agent", "agent.toml", "write the log"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let events = moor.events(&ran.run());
    let tried = events.iter().find(|event| event["type"] == "tool_completed").unwrap();
    let output = tried["output"]["output"].as_str().unwrap();
    assert!(output.contains("moor: command not found") && output.contains("tried"), "{output}");
    assert!(!output.contains("journal.db"), "{output}");
}

#[test]
fn an_unknown_approval_is_bad_input() {
    let moor = Moor::new();
    let ran = moor.run(&["approve", "0123456789ab"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("nothing waits for an approval '0123456789ab'"), "{}", ran.err);
    assert_eq!(moor.run(&["approvals", "--json"]).out, "");
}
