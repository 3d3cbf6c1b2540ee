//! `kill -9` of a process that drives a team: a run, two sub-agents at work beside each other, and the agent that the
//! conversation is handed over to. Killed at every event, and twice more while it goes on.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::moor::{Moor, exec, say};

/// More events than the run has.
const EVENTS: usize = 100;

/// A team whose commands each leave one line in `log`. Nothing isolates them: the log is outside of all workspaces.
fn team(moor: &Moor) {
    let log = moor.path("log").display().to_string();
    let note = |turn: usize, lines: &[&str]| {
        let commands: Vec<String> = lines.iter().map(|line| format!("echo {line} >> {log}")).collect();
        exec(turn, &commands.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let call = |n: usize, name: &str, arguments: Value| json!({"type": "function_call", "call_id": format!("c{n}"), "name": name, "arguments": arguments.to_string()});
    let agent = |name: &str, more: &str| {
        let text = format!(
            "name = \"{name}\"\nmodel = \"script:{name}.jsonl\"\n{more}\n[sandbox]\nisolation = \"none\"\n\
             [[policy.rules]]\nsandbox = \"none\"\naction = \"allow\"\n"
        );
        moor.write(&format!("{name}.toml"), &text);
    };
    agent(
        "lead",
        "[[agents]]\nagent = \"one.toml\"\n[[agents]]\nagent = \"two.toml\"\n[[handoffs]]\nagent = \"closer.toml\"",
    );
    let give = json!([call(0, "one", json!({"input": "go"})), call(1, "two", json!({"input": "go"}))]);
    let hand_over = json!([call(2, "transfer_to_closer", json!({}))]);
    moor.write("lead.jsonl", &(note(0, &["lead"]) + &format!("{give}\n{hand_over}\n")));
    for name in ["one", "two"] {
        agent(name, "");
        let (a, b, c) = (format!("{name}-a"), format!("{name}-b"), format!("{name}-c"));
        moor.write(&format!("{name}.jsonl"), &(note(0, &[&a, &b]) + &note(1, &[&c]) + &say(name)));
    }
    agent("closer", "");
    moor.write("closer.jsonl", &(note(0, &["closer"]) + &say("closed")));
}

/// Starts `moor` and kills it after so many lines of output. Whether it lived that long.
fn killed(moor: &Moor, args: &[&str], after: usize) -> bool {
    let mut child = moor.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let seen = BufReader::new(child.stdout.take().unwrap()).lines().take(after).count();
    child.kill().unwrap();
    child.wait().unwrap();
    seen == after
}

/// One run with its deaths; gives how many there were.
fn survive(first: usize) -> usize {
    let moor = Moor::new();
    team(&moor);
    let mut kills = usize::from(killed(
        &moor,
        &["run", "--agent", "lead.toml", "--workspace", "ws", "--json", "go"],
        first,
    ));
    let all = moor.run(&["runs", "--json"]).json();
    // The newest is first; one that was made and has no event yet says nothing of its parent.
    let Some(run) = all.last() else {
        assert!(!moor.path("log").exists(), "nothing is done before it is recorded");
        return kills;
    };
    let run = run["id"].as_str().unwrap().to_owned();
    for after in [1 + first % 7, 1 + first % 11] {
        kills += usize::from(killed(&moor, &["resume", &run, "--json"], after));
    }
    let last = moor.run(&["resume", &run]);
    match last.code {
        Some(0) => {}
        Some(2) if last.err.contains("has completed") => {}
        Some(2) if last.err.contains("has not begun") => {
            assert!(!moor.path("log").exists());
            return kills;
        }
        _ => panic!("{last:?}"),
    }
    let log = fs_err::read_to_string(moor.path("log")).unwrap_or_default();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    log.lines().for_each(|line| *counts.entry(line).or_default() += 1);
    let mut answered = 0;
    for row in moor.run(&["runs", "--json"]).json() {
        assert_eq!(row["status"], "completed", "{row}");
        let events = moor.events(row["id"].as_str().unwrap());
        let mut arguments: BTreeMap<String, String> = BTreeMap::new();
        for event in &events {
            let call = event["call_id"].as_str().unwrap_or_default().to_owned();
            if event["type"] == "tool_requested" {
                arguments.insert(call, event["arguments"].as_str().unwrap().to_owned());
            } else if event["type"] == "tool_completed" && event["tool"] == "exec_command" {
                answered += 1;
                let text = arguments[&call].split_whitespace().nth(1).unwrap();
                let count = counts.get(text).copied().unwrap_or(0);
                match event["status"].as_str().unwrap() {
                    "completed" => assert_eq!(count, 1, "{event}\n{log}"),
                    "outcome_unknown" => assert!(count <= 1, "{event}\n{log}"),
                    other => panic!("{other}: {event}"),
                }
            }
        }
    }
    assert_eq!(answered, 8, "every command of the team is answered once");
    kills
}

/// Every second event, so that two tests share the work.
fn all(begin: usize) {
    let kills: usize = (begin..EVENTS).step_by(2).map(survive).sum();
    println!("{kills} kills, nothing lost, nothing twice");
    assert!(kills >= 75, "the run is too short: {kills} kills");
}

#[test]
fn killed_at_every_odd_event() {
    all(1);
}

#[test]
fn killed_at_every_even_event() {
    all(2);
}
