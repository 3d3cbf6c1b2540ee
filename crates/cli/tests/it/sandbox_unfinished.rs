//! `moor sandbox create`, ended before it was done; and a disk that is full.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::moor::Moor;
use crate::sandbox::{inside, ok, remove_all};

/// A sandbox `one` whose set-up has begun, and waits.
fn begun(moor: &Moor) -> Child {
    moor.write("m.yaml", "version: 1\nx-mooring: {setup: ['echo begun > begun; sleep 1000']}\n");
    let args = ["sandbox", "create", "--name", "one", "--manifest", "m.yaml"];
    let child = moor.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    until(|| moor.path("home/sandboxes/one/workspace/begun").exists());
    child
}

fn until(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "it takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Of a sandbox's processes each has the workspace in its mounts.
fn runs(moor: &Moor) -> bool {
    let place = moor.path("home").display().to_string();
    let mut all = std::fs::read_dir("/proc").unwrap().flatten();
    all.any(|one| {
        std::fs::read_to_string(one.path().join("mountinfo")).is_ok_and(|mounts| mounts.contains(&place))
            || std::fs::read_to_string(one.path().join("cmdline")).is_ok_and(|line| line.contains(&place))
    })
}

#[test]
fn one_that_is_interrupted_while_it_is_made_is_removed() {
    for signal in [Signal::INT, Signal::TERM] {
        let moor = Moor::new();
        let child = begun(&moor);
        let told = moor.run(&["sandbox", "exec", "one", "true"]).err;
        assert!(told.contains("is being made just now"), "{told}");
        assert_eq!(moor.run(&["sandbox", "rm", "one"]).code, Some(2));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ran = child.wait_with_output().unwrap();
        assert_eq!(ran.status.code(), Some(130), "{ran:?}");
        assert_eq!(ok(&moor, &["sandbox", "list", "--json"]), "");
        assert!(!moor.path("home/sandboxes/one").exists());
        until(|| !runs(&moor));
    }
}

#[test]
fn one_whose_maker_was_killed_is_listed_refused_and_removed() {
    let moor = Moor::new();
    let mut child = begun(&moor);
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = moor.run(&["sandbox", "list", "--json"]).json();
    assert_eq!((&listed[0]["id"], &listed[0]["unfinished"]), (&"one".into(), &true.into()));
    for args in [
        &["sandbox", "create", "--name", "one"][..],
        &["sandbox", "exec", "one", "true"],
        &["sandbox", "cp", "one:begun", "here"],
        &["sandbox", "diff", "one"],
        &["sandbox", "fork", "one", "--name", "two"],
    ] {
        let ran = moor.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.err.contains("unfinished") && ran.err.contains("`moor sandbox rm one`"), "{}", ran.err);
    }
    assert!(runs(&moor), "the set-up goes on");
    assert_eq!(ok(&moor, &["sandbox", "rm", "one"]), "removed sandbox one\n");
    until(|| !runs(&moor));
    assert!(!moor.path("home/sandboxes/one").exists());
    ok(&moor, &["sandbox", "create", "--name", "one"]);
    assert_eq!(inside(&moor, "one", "ls"), "");
    remove_all(&moor);
}

#[test]
fn a_workspace_that_nobody_knows_is_not_taken_over() {
    let moor = Moor::new();
    moor.write("home/sandboxes/one/workspace/others", "");
    let ran = moor.run(&["sandbox", "create", "--name", "one"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("there is a workspace 'one' already"), "{}", ran.err);
    assert_eq!(ok(&moor, &["sandbox", "list", "--json"]), "");
}

#[test]
fn one_that_cannot_be_made_leaves_nothing() {
    let moor = Moor::new();
    moor.write("m.yaml", "version: 1\nx-mooring: {setup: ['exit 3']}\n");
    let ran = moor.run(&["sandbox", "create", "--name", "one", "--manifest", "m.yaml"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(moor.run(&["sandbox", "create", "--name", "one", "--workspace", "/"]).code, Some(2));
    assert_eq!(ok(&moor, &["sandbox", "list", "--json"]), "");
    assert!(!moor.path("home/sandboxes/one").exists());
}

#[test]
fn on_a_full_disk_something_can_be_removed() {
    let moor = Moor::new();
    ok(&moor, &["sandbox", "create", "--name", "one"]);
    inside(&moor, "one", "echo much > z");
    // No file of this process may grow: each write meets what a full disk is.
    let mut limited = std::process::Command::new("bash");
    let program = env!("CARGO_BIN_EXE_moor");
    limited.args(["-c", &format!("ulimit -f 0; exec {program} sandbox exec one -- rm z")]);
    let ran = limited.env("MOOR_HOME", moor.home()).current_dir(moor.dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    assert!(told.contains("when it was used last is not kept"), "{told}");
    assert_eq!(inside(&moor, "one", "ls"), "");
    let left = std::fs::read_dir(moor.path("home/sessions")).unwrap().count();
    assert_eq!(left, 1, "no half of a record stays");
    remove_all(&moor);
}
