//! Terminals.

use std::sync::Arc;
use std::time::Duration;

use mooring_sandbox::{CommandLine, Cursor, ExecRequest, Process, SandboxError, Stdin, TtySize, collect};

use crate::bench::{Bench, SOON, exited, seen};

const NONE: &str = "it has no terminals";

/// A shell line on a terminal of 30 lines with 100 columns, to be typed at.
pub fn on_terminal(line: &str) -> ExecRequest {
    let mut request = ExecRequest::shell(line).timeout(SOON * 3);
    request.tty = Some(TtySize { rows: 30, cols: 100 });
    request.stdin = Stdin::Open;
    request
}

/// Reads a process's output from its beginning until it ends with `end`.
///
/// # Panics
/// Where it ends in another way.
pub async fn read_until(process: &dyn Process, end: &str) -> String {
    let mut text = String::new();
    let mut cursor = Cursor(0);
    while !text.ends_with(end) {
        let chunk = process.output(cursor, 4096, SOON).await.unwrap();
        assert!(cursor != chunk.next || chunk.outcome.is_some(), "nothing came after {text:?}");
        cursor = chunk.next;
        chunk.pieces.iter().for_each(|piece| text += &String::from_utf8_lossy(&piece.data));
        assert!(chunk.outcome.is_none() || text.ends_with(end), "ended with {text:?}");
    }
    text
}

pub(crate) async fn a_command_has_a_terminal_of_the_size_asked_for(bench: &Bench) {
    if !bench.client.support().tty {
        return bench.left_out(NONE);
    }
    let sandbox = bench.sandbox().await;
    let line = "test -t 0 && test -t 1 && test -t 2 && tty | cut -c-5; stty size; echo $TERM; echo err >&2";
    let process = sandbox.session.spawn(on_terminal(line)).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    let expected = "/dev/\r\n30 100\r\nxterm-256color\r\nerr\r\n";
    assert_eq!(seen(&result), (expected.into(), String::new(), exited(0)));
}

pub(crate) async fn it_is_typed_at_resized_and_interrupted(bench: &Bench) {
    if !bench.client.support().tty {
        return bench.left_out(NONE);
    }
    let sandbox = bench.sandbox().await;
    let line = "trap 'stty size' WINCH; trap 'echo interrupted' INT; printf 'name? '; read name; echo hello $name; \
                while [ ! -e go ]; do sleep 0.02; done; echo bye";
    let process = sandbox.session.spawn(on_terminal(line)).await.unwrap();
    read_until(process.as_ref(), "name? ").await;
    process.write_stdin("moor\n".into()).await.unwrap();
    read_until(process.as_ref(), "hello moor\r\n").await;
    process.resize(TtySize { rows: 5, cols: 7 }).await.unwrap();
    read_until(process.as_ref(), "5 7\r\n").await;
    process.write_stdin("\u{3}".into()).await.unwrap();
    read_until(process.as_ref(), "interrupted\r\n").await;
    sandbox.out("touch go").await;
    let text = read_until(process.as_ref(), "bye\r\n").await;
    assert_eq!(text, "name? moor\r\nhello moor\r\n5 7\r\n^Cinterrupted\r\nbye\r\n");
}

pub(crate) async fn closing_its_input_is_an_end_of_file(bench: &Bench) {
    if !bench.client.support().tty {
        return bench.left_out(NONE);
    }
    let sandbox = bench.sandbox().await;
    let process = sandbox.session.spawn(on_terminal("stty -echo; echo ready; cat; echo end")).await.unwrap();
    read_until(process.as_ref(), "ready\r\n").await;
    process.write_stdin("line\n".into()).await.unwrap();
    process.close_stdin().await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!((result.stdout.text().as_str(), result.outcome), ("ready\r\nline\r\nend\r\n", exited(0)));
}

pub(crate) async fn a_command_without_one_cannot_be_resized(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let process = sandbox.session.spawn(ExecRequest::argv(["sleep", "100"])).await.unwrap();
    let refused = process.resize(TtySize::default()).await;
    assert!(matches!(refused, Err(SandboxError::Invalid { .. })), "{refused:?}");
}

pub(crate) async fn a_hundred_at_once(bench: &Bench) {
    if !bench.client.support().tty {
        return bench.left_out(NONE);
    }
    let sandbox = bench.sandbox().await;
    let mut terminals: Vec<Arc<dyn Process>> = Vec::new();
    for number in 0..100 {
        let mut request = on_terminal("");
        request.command =
            CommandLine::Argv(["sh", "-c", "read x; echo [$x]; read y"].map(str::to_owned).to_vec());
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
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
    let first = terminals[0].output(Cursor(0), 1, Duration::ZERO).await.unwrap();
    assert_eq!(first.outcome, None);
}
