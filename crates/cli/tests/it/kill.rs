//! `kill -9` at any moment, then `moor resume`: the run finishes, and no completed command ran twice.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::moor::{Moor, exec, repository, say};

/// How many events the run below has.
const EVENTS: usize = 26;

/// Commands that each leave one line, so that a second run of one would show.
fn counting(moor: &Moor) {
    let turns = [
        exec(0, &["echo 0 >> log"]),
        exec(1, &["echo 1 >> log", "echo 2 >> log"]),
        exec(2, &["sleep 0.05; echo 3 >> log"]),
        exec(3, &["echo 4 >> log; sleep 0.05"]),
        say("counted"),
    ];
    moor.write("script.jsonl", &turns.concat());
}

/// `moor run`, with its events as they come.
fn start(moor: &Moor) -> Child {
    let mut command =
        moor.command(&["run", "--model", "script:script.jsonl", "--workspace", "ws", "--json", "count"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The only run's id, if it has been made.
fn run_of(moor: &Moor) -> Option<String> {
    Some(moor.run(&["runs", "--json"]).json().first()?["id"].as_str()?.to_owned())
}

/// Resumes until the run is over, and checks that nothing was lost and nothing was done twice.
fn resume_and_check(moor: &Moor, output: &str, calls: usize) {
    let Some(run) = run_of(moor) else {
        // It died before anything was recorded: nothing may have been done.
        assert!(!moor.path("ws/log").exists());
        return;
    };
    let resumed = moor.run(&["resume", &run]);
    match resumed.code {
        Some(0) => {}
        Some(2) if resumed.err.contains("has completed") => {}
        Some(2) if resumed.err.contains("has not begun") => {
            assert!(!moor.path("ws/log").exists());
            return;
        }
        _ => panic!("{resumed:?}"),
    }
    let events = moor.events(&run);
    let last = events.last().unwrap();
    assert_eq!((last["status"].as_str(), last["output"].as_str()), (Some("completed"), Some(output)));
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());

    let completed: Vec<&Value> = events.iter().filter(|event| event["type"] == "tool_completed").collect();
    assert_eq!(completed.len(), calls, "every call is answered once");
}

/// How often each counting command ran, and what the journal says of it.
fn check_counts(moor: &Moor) {
    let Some(run) = run_of(moor) else { return };
    let log = fs_err::read_to_string(moor.path("ws/log")).unwrap_or_default();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    log.lines().for_each(|line| *counts.entry(line).or_default() += 1);
    for event in moor.events(&run) {
        if event["type"] != "tool_completed" {
            continue;
        }
        let number = match event["call_id"].as_str().unwrap() {
            "call_0_0" => "0",
            "call_1_0" => "1",
            "call_1_1" => "2",
            "call_2_0" => "3",
            _ => "4",
        };
        let count = counts.get(number).copied().unwrap_or(0);
        match event["status"].as_str().unwrap() {
            "completed" => assert_eq!(count, 1, "{event}\n{log}"),
            "outcome_unknown" => assert!(count <= 1, "{event}\n{log}"),
            other => panic!("{other}: {event}"),
        }
    }
}

#[test]
fn killed_at_every_event_the_run_still_ends_well() {
    for event in 1..=EVENTS {
        let moor = Moor::new();
        counting(&moor);
        let mut child = start(&moor);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = lines.take(event).count();
        kill(&mut child);
        resume_and_check(&moor, "counted", 5);
        check_counts(&moor);
        if seen < event {
            assert!(event > 18, "the run has more events than {seen}");
            return;
        }
    }
}

#[test]
fn killed_at_any_time_the_run_still_ends_well() {
    let moor = Moor::new();
    counting(&moor);
    let began = Instant::now();
    start(&moor).wait_with_output().unwrap();
    let whole = began.elapsed();
    for n in 0..25_u32 {
        let moor = Moor::new();
        counting(&moor);
        let mut child = start(&moor);
        std::thread::sleep(whole * n / 24);
        kill(&mut child);
        resume_and_check(&moor, "counted", 5);
        check_counts(&moor);
    }
}

#[test]
fn killed_again_and_again_the_run_still_ends_well() {
    let moor = Moor::new();
    counting(&moor);
    let mut child = start(&moor);
    BufReader::new(child.stdout.take().unwrap()).lines().nth(3);
    kill(&mut child);
    let run = run_of(&moor).unwrap();
    for events in 2..8 {
        let mut command = moor.command(&["resume", &run, "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).lines().nth(events);
        kill(&mut child);
    }
    resume_and_check(&moor, "counted", 5);
    check_counts(&moor);
}

#[test]
fn the_example_survives_too() {
    let agent = repository().join("examples/fix-the-bug/agent.toml");
    for event in [2, 4, 7, 10, 13, 16, 19] {
        let moor = Moor::new();
        let mut command =
            moor.command(&["run", "--agent", agent.to_str().unwrap(), "--json", "Make the tests pass."]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).lines().nth(event);
        kill(&mut child);
        let run = run_of(&moor).unwrap();
        let resumed = moor.run(&["resume", &run]);
        assert!(resumed.code == Some(0) || resumed.err.contains("has completed"), "{resumed:?}");
        let events = moor.events(&run);
        assert_eq!(events.last().unwrap()["status"], "completed");
        let completed: Vec<&Value> =
            events.iter().filter(|event| event["type"] == "tool_completed").collect();
        // The patch is never in doubt: the tool finds out what became of it.
        assert_eq!(completed[2]["status"], "completed", "{}", completed[2]);
        if completed[3]["status"] == "completed" {
            let output = completed[3]["output"]["output"].as_str().unwrap();
            assert!(output.trim_end().ends_with("OK"), "{output}");
        }
    }
}

#[test]
fn nothing_of_a_killed_run_goes_on() {
    let moor = Moor::new();
    let marker = format!("86{}", std::process::id());
    let script = [exec(0, &[&format!("setsid sleep {marker} & sleep {marker}")]), say("never")].concat();
    moor.write("script.jsonl", &script);
    let mut command = moor.command(&["run", "--model", "script:script.jsonl", "--json", "sleep"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"tool_requested\"")));
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes_with(&marker) < 2 {
        assert!(Instant::now() < deadline, "the command never started");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(&mut child);
    while processes_with(&marker) > 0 {
        assert!(Instant::now() < deadline, "processes of a killed run go on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many processes of this machine have `sleep MARKER` as their command line.
pub(crate) fn processes_with(marker: &str) -> usize {
    let Ok(dir) = fs_err::read_dir("/proc") else { return 0 };
    let command_lines = dir.filter_map(|entry| fs_err::read(entry.ok()?.path().join("cmdline")).ok());
    let wanted = format!("sleep\0{marker}\0");
    command_lines.filter(|line| line == wanted.as_bytes()).count()
}

#[test]
fn no_refund_is_paid_twice() {
    let output = std::process::Command::new(repository().join("examples/refunds/run.sh"))
        .arg(env!("CARGO_BIN_EXE_moor"))
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && told.contains("\n0 paid twice, 0 recorded otherwise"), "{told}");
}
