//! `moor sandbox exec` in a pipe: nothing is lost on the way, and it ends with its neighbours.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::moor::Moor;

struct Sandbox(Moor);

impl Sandbox {
    fn new() -> Self {
        let moor = Moor::new();
        assert_eq!(moor.run(&["sandbox", "create", "--name", "one"]).code, Some(0));
        Self(moor)
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.0.command(&["sandbox", "exec"]);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until a program of this name runs inside no more.
    fn gone(&self, program: &str) {
        let line = format!("while grep -sqx {program} /proc/[0-9]*/comm; do sleep 0.05; done");
        let ran = self.0.run(&["sandbox", "exec", "--timeout", "20", "one", "--", "sh", "-c", &line]);
        assert_eq!(ran.code, Some(0), "{program} still runs");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.0.run(&["sandbox", "rm", "one"]);
    }
}

#[test]
fn a_slow_reader_gets_all_of_it() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.spawn(&["one", "--", "seq", "1", "400000"]);
    std::thread::sleep(Duration::from_millis(700));
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let expected: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
    assert!(text == expected, "{} of {} bytes came", text.len(), expected.len());
}

#[test]
fn a_command_that_reads_late_gets_all_of_it() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.spawn(&["-i", "one", "--", "sh", "-c", "sleep 1; wc -c"]);
    let mut input = child.stdin.take().unwrap();
    (0..20).for_each(|_| input.write_all(&vec![b'x'; 1_000_000]).unwrap());
    drop(input);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert_eq!(String::from_utf8(ended.stdout).unwrap().trim(), "20000000");
}

#[test]
fn a_command_ends_when_nobody_takes_what_it_says() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.spawn(&["one", "--", "yes"]);
    child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!((ended.code(), ended.signal()), (Some(141), None));
    sandbox.gone("yes");
}

#[test]
fn a_command_ends_with_who_started_it() {
    let sandbox = Sandbox::new();
    for (signal, code) in [(rustix::process::Signal::TERM, 143), (rustix::process::Signal::HUP, 129)] {
        let mut child = sandbox.spawn(&["one", "--", "sh", "-c", "echo there; exec sleep 600"]);
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        sandbox.gone("sleep");
    }
}

#[test]
fn a_full_disk_here_is_told() {
    let sandbox = Sandbox::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = sandbox.0.command(&["sandbox", "exec", "one", "--", "echo", "word"]);
    let ended = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && told.contains("cannot print what the command says"), "{told}");
}
