//! Cancelling: by Ctrl-C, by another process, and a run that nobody drives.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::kill::processes_with;
use crate::moor::{Moor, exec, say};

/// A run that sleeps, once its command has begun.
fn sleeping(moor: &Moor, marker: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    moor.write("script.jsonl", &[exec(0, &[&format!("sleep {marker}")]), say("woke up")].concat());
    let mut command = moor.command(&["run", "--model", "script:script.jsonl", "--json", "sleep"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes_with(marker) == 0 {
        assert!(Instant::now() < deadline, "the command never started");
        std::thread::sleep(Duration::from_millis(10));
    }
    (child, out)
}

fn last_event(out: BufReader<std::process::ChildStdout>) -> serde_json::Value {
    serde_json::from_str(&out.lines().last().unwrap().unwrap()).unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn the_first_interrupt_ends_the_run_cleanly() {
    let moor = Moor::new();
    let marker = format!("71{}", std::process::id());
    let (mut child, out) = sleeping(&moor, &marker);
    signal(&child, "INT");
    let last = last_event(out);
    assert_eq!((last["type"].as_str(), last["status"].as_str()), (Some("run_finished"), Some("cancelled")));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(processes_with(&marker), 0);
    let events = moor.events(last["run"].as_str().unwrap());
    let call = events.iter().find(|event| event["type"] == "tool_completed").unwrap();
    assert_eq!(call["status"], "cancelled");
}

#[test]
fn another_process_can_cancel_a_run() {
    let moor = Moor::new();
    let marker = format!("72{}", std::process::id());
    let (mut child, out) = sleeping(&moor, &marker);
    let runs = moor.run(&["runs", "--json"]).json();
    assert_eq!(runs[0]["status"], "running");
    let run = runs[0]["id"].as_str().unwrap();

    let second = moor.run(&["resume", run]);
    assert_eq!(second.code, Some(2));
    assert!(second.err.contains("is being driven by process"), "{}", second.err);

    let cancelled = moor.run(&["cancel", run]);
    assert_eq!((cancelled.code, cancelled.out), (Some(0), format!("run {run} cancelled\n")));
    assert_eq!(last_event(out)["status"], "cancelled");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let again = moor.run(&["cancel", run]);
    assert_eq!((again.code, again.out), (Some(0), format!("run {run} is over already: cancelled\n")));

    // A cancelled run can be taken up again; the model hears what became of its call.
    let resumed = moor.run(&["resume", run]);
    assert_eq!((resumed.code, resumed.last()["output"].as_str()), (Some(0), Some("woke up")));
}

#[test]
fn a_run_without_a_driver_can_be_cancelled() {
    let moor = Moor::new();
    let marker = format!("73{}", std::process::id());
    let (mut child, _out) = sleeping(&moor, &marker);
    child.kill().unwrap();
    child.wait().unwrap();
    let runs = moor.run(&["runs", "--json"]).json();
    assert_eq!(runs[0]["status"], "interrupted");
    let run = runs[0]["id"].as_str().unwrap();
    assert_eq!(moor.run(&["cancel", run]).code, Some(0));
    assert_eq!(moor.run(&["runs", "--json"]).json()[0]["status"], "cancelled");
}

#[test]
fn events_can_be_followed_to_the_end() {
    let moor = Moor::new();
    moor.write("script.jsonl", &[exec(0, &["sleep 0.5"]), say("woke up")].concat());
    let mut command = moor.command(&["run", "--model", "script:script.jsonl", "--json", "sleep"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let followed = moor.run(&["events", first["run"].as_str().unwrap(), "--follow"]);
    assert_eq!(followed.code, Some(0));
    assert_eq!(followed.last()["type"], "run_finished");
    let shown: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(followed.json()[1..], shown);
    child.wait().unwrap();
}

/// The processes that a process started, and theirs.
fn descendants(of: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let mut found = vec![of];
    let all: Vec<u32> = fs_err::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    loop {
        let more: Vec<u32> = all
            .iter()
            .copied()
            .filter(|pid| !found.contains(pid) && parent(*pid).is_some_and(|parent| found.contains(&parent)))
            .collect();
        if more.is_empty() {
            return found.split_off(1);
        }
        found.extend(more);
    }
}

#[test]
fn the_second_interrupt_does_not_wait_for_anything() {
    let moor = Moor::new();
    let marker = format!("74{}", std::process::id());
    let (mut child, out) = sleeping(&moor, &marker);
    // A sandbox that answers nothing: a clean end would have to wait for it.
    let sandbox = descendants(child.id());
    let all = |name: &str| {
        for pid in &sandbox {
            Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
        }
    };
    all("STOP");
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "the first interrupt waits for a clean end");
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    all("CONT");
    let last = last_event(out);
    assert_ne!(last["type"], "run_finished", "it stopped at once, without an end");
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes_with(&marker) > 0 {
        assert!(Instant::now() < deadline, "what the run had started goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Nothing is lost: it is an interrupted run like any other.
    assert_eq!(moor.run(&["runs", "--json"]).json()[0]["status"], "interrupted");
    let resumed = moor.run(&["resume", last["run"].as_str().unwrap()]);
    assert_eq!((resumed.code, resumed.last()["output"].as_str()), (Some(0), Some("woke up")));
}
