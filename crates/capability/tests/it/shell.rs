//! The shell tools: what the model reads, and that no output is lost between calls. Time is virtual.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use mooring_capability::{Capability, ToolContext, ToolInput, ToolResult, ToolStatus, capability, truncate};
use mooring_sandbox::{CommandLine, Outcome, Stdin, Stream};
use serde_json::{Value, json};

use crate::memory_session::{MemorySession, Script};

const DONE: Outcome = Outcome::Exited { code: 0 };

/// One run: a shell with its table, and a session whose next commands are scripted.
pub(crate) struct Shell {
    capability: Capability,
    pub(crate) session: Arc<MemorySession>,
    shown: Arc<Mutex<String>>,
}

impl Shell {
    pub(crate) fn new(scripts: impl IntoIterator<Item = Script>) -> (Self, Vec<Arc<Script>>) {
        let scripts: Vec<_> = scripts.into_iter().map(Arc::new).collect();
        let session = MemorySession::default();
        session.scripts.lock().unwrap().extend(scripts.iter().cloned());
        let capability = capability("shell").unwrap();
        (Self { capability, session: Arc::new(session), shown: Arc::default() }, scripts)
    }

    async fn call(&self, tool: usize, input: Value) -> ToolResult {
        let shown = Arc::clone(&self.shown);
        let context = ToolContext {
            session: Arc::clone(&self.session) as _,
            key: format!("call of {input}"),
            progress: Arc::new(move |text| shown.lock().unwrap().push_str(text)),
        };
        self.capability.tools[tool].call(&context, &ToolInput::Json(input), &Value::Null).await
    }

    pub(crate) async fn exec(&self, input: Value) -> ToolResult {
        self.call(0, input).await
    }

    pub(crate) async fn write(&self, input: Value) -> ToolResult {
        self.call(1, input).await
    }
}

/// The text after `Output:`.
fn output(result: &ToolResult) -> String {
    result.output.text().split_once("Output:\n").unwrap().1.to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_command_that_ends_gives_its_output_and_code_at_once() {
    let script = Script::new([(0, Stream::Stdout, b"out\n" as &[u8]), (3, Stream::Stderr, b"err\n")]);
    let (shell, scripts) = Shell::new([script.ends(5, Outcome::Exited { code: 3 })]);
    let result = shell.exec(json!({ "cmd": "make" })).await;
    insta::assert_snapshot!(result.output.text());
    assert_eq!(result.status, ToolStatus::Completed);
    assert_eq!(
        result.details,
        json!({ "outcome": { "type": "exited", "code": 3 }, "session_id": null, "omitted": 0 })
    );
    assert_eq!(*shell.shown.lock().unwrap(), "out\nerr\n");
    assert!(scripts[0].released.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_goes_on_is_read_on() {
    let script = Script::new([
        (0, Stream::Stdout, b"one\n" as &[u8]),
        (11_000, Stream::Stdout, b"two\n"),
        (11_100, Stream::Stdout, b"three\n"),
    ]);
    let (shell, scripts) = Shell::new([script.ends(20_000, DONE)]);
    let first = shell.exec(json!({ "cmd": "serve" })).await;
    insta::assert_snapshot!(first.output.text());
    assert_eq!(first.details, json!({ "outcome": null, "session_id": 1, "omitted": 0 }));
    assert!(!scripts[0].released.load(SeqCst));

    // What came while nobody read is there, and comes once.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let second = shell.write(json!({ "session_id": 1 })).await;
    insta::assert_snapshot!(second.output.text());
    let third = shell.write(json!({ "session_id": 1, "yield_time_ms": 99_999_999 })).await;
    insta::assert_snapshot!(third.output.text());
    let gone = shell.write(json!({ "session_id": 1 })).await;
    insta::assert_snapshot!(gone.output.text());
    assert_eq!(gone.status, ToolStatus::Failed);
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_said() {
    let outcomes = [
        Outcome::Signalled { signal: 9 },
        Outcome::Signalled { signal: 64 },
        Outcome::TimedOut,
        Outcome::OutOfMemory,
        Outcome::OutOfDisk,
        Outcome::TransportLost,
        Outcome::Cancelled,
    ];
    let (shell, _) = Shell::new(outcomes.map(|outcome| Script::default().ends(0, outcome)));
    let mut report = Vec::new();
    for outcome in outcomes {
        let result = shell.exec(json!({ "cmd": "x" })).await;
        let text = result.output.text();
        let said: Vec<_> = text.lines().skip(2).take_while(|line| *line != "Output:").collect();
        report.push(format!("{outcome:?}: {said:?}, {:?}, lost {}", result.status, result.session_lost));
    }
    insta::assert_snapshot!(report.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_character_in_two_parts_is_delivered_whole() {
    let script = Script::new([
        (0, Stream::Stdout, b"a\xe2\x98" as &[u8]),
        // The other stream comes between, and has its own half.
        (1, Stream::Stderr, b"b\xf0\x9d\x84"),
        (20_000, Stream::Stdout, b"\x83c"),
        (20_001, Stream::Stderr, b"\x9ed\xff\xe2\x98"),
    ]);
    let (shell, _) = Shell::new([script.ends(20_002, DONE)]);
    let first = shell.exec(json!({ "cmd": "x", "yield_time_ms": 0 })).await;
    assert_eq!(output(&first), "ab");
    let second = shell.write(json!({ "session_id": 1, "yield_time_ms": 30_000 })).await;
    assert_eq!(output(&second), "\u{2603}c\u{1d11e}d\u{fffd}\u{fffd}");
    assert_eq!(*shell.shown.lock().unwrap(), "ab\u{2603}c\u{1d11e}d\u{fffd}\u{fffd}");
}

#[tokio::test(start_paused = true)]
async fn long_output_is_cut_as_one_text_however_it_comes() {
    let line = "naïve ☃ line of output\n".repeat(10_000);
    let pieces = |size: usize| {
        let pieces = line.as_bytes().chunks(size).map(|piece| (0, Stream::Stdout, piece.to_vec()));
        Script { output: pieces.collect(), ..Script::default() }.ends(0, DONE)
    };
    let (shell, _) = Shell::new([pieces(1 << 20), pieces(1000), pieces(1000)]);
    for size in [1 << 20, 1000] {
        let result = shell.exec(json!({ "cmd": "x" })).await;
        let (expected, tokens) = truncate(&line, 10_000);
        assert_eq!(output(&result), expected, "{size}");
        let count = format!("Original token count: {}\n", tokens.unwrap());
        assert!(result.output.text().contains(&count), "{size}");
        assert_eq!(*shell.shown.lock().unwrap(), line);
        shell.shown.lock().unwrap().clear();
    }
    let result = shell.exec(json!({ "cmd": "x", "max_output_tokens": 20 })).await;
    assert_eq!(output(&result), truncate(&line, 20).0);
    let shown = output(&result);
    let kept =
        shown.len() - shown.split('…').nth(1).unwrap().len() - 6 - "Total output lines: 10000\n\n".len();
    assert_eq!(result.details["omitted"], line.len() - kept);
}

#[tokio::test(start_paused = true)]
async fn output_that_the_sandbox_dropped_is_counted() {
    let mut script = Script::new([(0, Stream::Stdout, b"the end\n" as &[u8])]).ends(0, DONE);
    script.dropped = 4_000_000_000;
    let (shell, _) = Shell::new([script]);
    let result = shell.exec(json!({ "cmd": "yes" })).await;
    insta::assert_snapshot!(output(&result));
    assert_eq!(result.details["omitted"], 4_000_000_000_u64);
}

#[tokio::test(start_paused = true)]
async fn arguments_reach_the_sandbox() {
    let (shell, _) = Shell::new([Script::default().ends(0, DONE), Script::default().ends(0, DONE)]);
    shell.exec(json!({ "cmd": "a", "unknown": 1 })).await;
    shell.exec(json!({ "cmd": "b", "workdir": "sub", "shell": "zsh", "login": false, "tty": true })).await;
    let requests = shell.session.requests.lock().unwrap();
    let line = |line: &str, shell: Option<&str>, login| CommandLine::Shell {
        line: line.into(),
        shell: shell.map(Into::into),
        login,
    };
    assert_eq!(requests[0], mooring_sandbox::ExecRequest::new(line("a", None, true)));
    let mut second = mooring_sandbox::ExecRequest::new(line("b", Some("zsh"), false)).cwd("sub");
    second.tty = requests[1].tty;
    second.stdin = Stdin::Open;
    assert_eq!(requests[1], second);
    assert!(second.tty.is_some());
}

#[tokio::test(start_paused = true)]
async fn typing_needs_a_terminal_that_listens() {
    let mut closed = Script::new([(0, Stream::Stdout, b"last words\n" as &[u8])]).ends(20_000, DONE);
    closed.stdin_closed = true;
    let (shell, scripts) = Shell::new([Script::default(), Script::default(), closed]);
    for tty in [false, true, true] {
        shell.exec(json!({ "cmd": "x", "tty": tty, "yield_time_ms": 0 })).await;
    }
    let without = shell.write(json!({ "session_id": 1, "chars": "y\n" })).await;
    insta::assert_snapshot!(without.output.text());
    let typed = shell.write(json!({ "session_id": 2, "chars": "y\n\u{3}" })).await;
    assert_eq!((typed.status, output(&typed)), (ToolStatus::Completed, String::new()));
    assert_eq!(*scripts[1].typed.lock().unwrap(), b"y\n\x03");
    let ended = shell.write(json!({ "session_id": 3, "chars": "y\n", "yield_time_ms": 30_000 })).await;
    insta::assert_snapshot!(ended.output.text());
}

#[tokio::test(start_paused = true)]
async fn at_most_64_commands_are_kept() {
    // The 10th has ended unseen; all others go on.
    let scripts = (1..=67).map(|nth| {
        let end = if nth == 10 { Some((5_000, DONE)) } else { None };
        Script { end, ..Script::default() }
    });
    let (shell, scripts) = Shell::new(scripts);
    for nth in 1..=64 {
        let result = shell.exec(json!({ "cmd": "x", "yield_time_ms": 250 })).await;
        assert_eq!(output(&result), "", "{nth}");
    }
    // Used again, the first is not the least recent any more.
    shell.write(json!({ "session_id": 1 })).await;
    let mut notes = String::new();
    for _ in 65..=67 {
        notes += &output(&shell.exec(json!({ "cmd": "x", "yield_time_ms": 250 })).await);
    }
    insta::assert_snapshot!(notes);
    let released: Vec<_> = (1..=67).filter(|nth| scripts[nth - 1].released.load(SeqCst)).collect();
    assert_eq!(released, [2, 3, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_is_gone_is_said_so() {
    let (shell, _) = Shell::new([Script { gone: true, ..Script::default() }]);
    let result = shell.exec(json!({ "cmd": "x" })).await;
    insta::assert_snapshot!(result.output.text());
    assert!(result.session_lost);
    assert_eq!(result.status, ToolStatus::Failed);
    // It is forgotten: asking again does not lose the new sandbox as well.
    let again = shell.write(json!({ "session_id": 1 })).await;
    assert!(!again.session_lost && again.output.text().contains("PTY session not found: 1"));
}

#[tokio::test(start_paused = true)]
async fn bad_arguments_and_failed_starts_are_said() {
    let (shell, _) = Shell::new([]);
    let mut report = Vec::new();
    for (tool, input) in [
        (0, json!({})),
        (0, json!({ "cmd": "" })),
        (0, json!({ "cmd": ["ls"] })),
        (0, json!({ "cmd": "x", "yield_time_ms": -1 })),
        (0, json!({ "cmd": "x", "max_output_tokens": 0 })),
        (1, json!({ "session_id": "one" })),
        (0, json!({ "cmd": "x" })),
    ] {
        let result = shell.call(tool, input.clone()).await;
        assert_eq!(result.status, ToolStatus::Failed, "{input}");
        report.push(format!("{input}\n    {}", result.output.text()));
    }
    insta::assert_snapshot!(report.join("\n"));
}
