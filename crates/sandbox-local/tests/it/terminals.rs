//! Terminals.

use std::sync::Arc;
use std::time::Duration;

use mooring_sandbox::{Cursor, Outcome, Process, collect};
use mooring_sandbox_conformance::{on_terminal, read_until};

use crate::setup::{SOON, Sandbox, exited};

#[tokio::test]
async fn a_shell_controls_its_jobs() {
    let sandbox = Sandbox::new().await;
    let process =
        sandbox.session.spawn(on_terminal("PS1='$ ' exec bash --norc --noediting -i")).await.unwrap();
    let mut cursor = Cursor(0);
    // What comes after something is typed, up to its end.
    let mut answer = async |typed: &str, end: &str| {
        process.write_stdin(typed.to_owned().into()).await.unwrap();
        let mut text = String::new();
        while !text.ends_with(end) {
            let chunk = process.output(cursor, 4096, SOON).await.unwrap();
            cursor = chunk.next;
            chunk.pieces.iter().for_each(|piece| text += &String::from_utf8_lossy(&piece.data));
            assert_eq!(chunk.outcome, None, "it ended with {text:?}");
        }
        text
    };
    answer("stty -echo\n", "$ ").await;
    answer("\n", "$ ").await;
    // A job that starts nothing: dash starts a program by `vfork`, and one that is stopped before it runs holds up its
    // parent, which then never stops.
    let job = "python3 -c 'from signal import *; from os import write; import time\nsignal(SIGINT, SIG_DFL)\n\
               signal(SIGCONT, lambda *_: write(1, b\"again\\n\"))\nwrite(1, b\"up\\n\")\ntime.sleep(1000)'\n";
    answer(job, "up\r\n").await;
    let stopped = answer("\u{1a}", "$ ").await;
    assert!(stopped.contains("Stopped"), "{stopped:?}");
    answer("fg >/dev/null\n", "again\r\n").await;
    answer("\u{3}", "$ ").await;
    assert_eq!(answer("echo $?; jobs | wc -l\n", "$ ").await, "130\r\n0\r\n$ ");
    process.write_stdin("exit 5\n".into()).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(result.outcome, exited(5));
}

#[tokio::test]
async fn a_thousand_at_once() {
    let sandbox = Sandbox::new().await;
    let mut terminals: Vec<Arc<dyn Process>> = Vec::new();
    for number in 0..1000 {
        // dash, not bash: a thousand of them have to start.
        let mut request = on_terminal("");
        request.command = mooring_sandbox::CommandLine::Argv(
            ["sh", "-c", "read x; echo [$x]; read y"].map(str::to_owned).to_vec(),
        );
        let process = sandbox.session.spawn(request).await;
        terminals.push(process.unwrap_or_else(|error| panic!("terminal {number}: {error}")));
    }
    for (number, process) in terminals.iter().enumerate() {
        process.write_stdin(format!("{number}\n").into()).await.unwrap();
    }
    for (number, process) in terminals.iter().enumerate() {
        let text = read_until(process.as_ref(), "]\r\n").await;
        assert_eq!(text, format!("{number}\r\n[{number}]\r\n"));
    }
    // All are open still, and something else gets through.
    assert_eq!(sandbox.out("ls /dev/pts | grep -vc ptmx").await, "1000\n");
    let first = terminals[0].output(Cursor(0), 1, Duration::ZERO).await.unwrap();
    assert_eq!(first.outcome, None::<Outcome>);
    // They end one by one, and all together.
    for process in &terminals[..100] {
        process.release().await.unwrap();
    }
    assert_eq!(sandbox.out("ls /dev/pts | grep -vc ptmx").await, "900\n");
    sandbox.session.stop().await.unwrap();
}
