//! Conversations over several runs.

use std::io::Write as _;
use std::process::Stdio;

use crate::moor::{Moor, Ran, exec, say};

fn script(moor: &Moor) {
    let lines = [
        exec(0, &["echo kept > note; echo first"]),
        say("noted"),
        exec(1, &["cat note"]),
        say("remembered"),
        say("third"),
    ];
    moor.write("script.jsonl", &lines.concat());
}

#[test]
fn a_conversation_goes_on_where_it_was() {
    let moor = Moor::new();
    script(&moor);
    let first = moor.run(&["run", "--model", "script:script.jsonl", "--session", "s", "note something"]);
    assert_eq!((first.code, first.last()["output"].as_str()), (Some(0), Some("noted")), "{}", first.err);
    // The agent, the model and the workspace are those of the conversation.
    let second = moor.run(&["run", "--session", "s", "what was it?"]);
    assert_eq!(
        (second.code, second.last()["output"].as_str()),
        (Some(0), Some("remembered")),
        "{}",
        second.err
    );
    let events = second.json();
    assert_eq!(events[0]["history"]["run"], first.run());
    // What was read before counts on, for rules of the policy.
    assert_eq!(events[0]["history"]["read"], serde_json::json!(["sandbox"]));
    let input: Vec<&str> = events[0]["input"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["role"] == "user")
        .map(|item| item["content"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(input, ["note something", "what was it?"]);
    let output = events.iter().find(|event| event["type"] == "tool_completed").unwrap();
    assert!(output["output"]["output"].as_str().unwrap().ends_with("Output:\nkept\n"), "{output}");
    let ready = events.iter().find(|event| event["type"] == "sandbox_ready").unwrap();
    assert!(ready.get("staged").is_none(), "the workspace is staged once");

    let other = moor.run(&["run", "--model", "script:script.jsonl", "--session", "other", "note something"]);
    assert_eq!(other.last()["output"], "noted", "another name is another conversation");
    let refused = moor.run(&["run", "--session", "s", "--workspace", "ws", "more"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("has its workspace already"), "{}", refused.err);
}

#[test]
fn a_conversation_whose_last_run_is_open_waits_for_it() {
    let moor = Moor::new();
    moor.write("script.jsonl", &[exec(0, &["sleep 0.2"]), say("slept")].concat());
    let mut command =
        moor.command(&["run", "--model", "script:script.jsonl", "--session", "s", "--json", "sleep"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("\"tool_requested\"")));
    let busy = moor.run(&["run", "--session", "s", "more"]);
    assert_eq!(busy.code, Some(2));
    assert!(busy.err.contains("is being driven by"), "{}", busy.err);
    child.kill().unwrap();
    child.wait().unwrap();
    let interrupted = moor.run(&["run", "--session", "s", "more"]);
    assert_eq!(interrupted.code, Some(2));
    assert!(
        interrupted.err.contains("was interrupted. First go on with it: moor resume"),
        "{}",
        interrupted.err
    );
}

#[test]
fn chat_takes_a_line_at_a_time() {
    let moor = Moor::new();
    script(&moor);
    let mut command = moor.command(&["chat", "--model", "script:script.jsonl", "--session", "s"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"note something\n\nwhat was it?\n").unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let outputs: Vec<String> = ran
        .json()
        .iter()
        .filter(|event| event["type"] == "run_finished")
        .map(|event| event["output"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outputs, ["noted", "remembered"]);
    let third = moor.run(&["run", "--session", "s", "and now?"]);
    assert_eq!(third.last()["output"], "third");
}
