//! Deadlines and cancelling: whatever a command does, it ends, and everything it started with it.

use std::time::Duration;

use mooring_sandbox::{Cursor, ExecRequest, Outcome, TtySize, collect};

use crate::bench::{Bench, SOON, exited, mark, seen};

/// Long enough for a command to get going, even on a busy machine.
const DEADLINE: Duration = Duration::from_millis(1500);

/// Runs a line with a deadline; `MARK` in it is an argument that is looked for afterwards. It must have said
/// `expected`.
async fn times_out(bench: &Bench, line: &str, expected: &str) {
    let sandbox = bench.sandbox().await;
    let mark = mark();
    let line = line.replace("MARK", &mark);
    let result = sandbox.session.exec(ExecRequest::shell(&line).timeout(DEADLINE)).await.unwrap();
    assert_eq!((result.outcome, result.stdout.text().as_str()), (Outcome::TimedOut, expected), "{line}");
    assert_eq!(sandbox.running(&mark).await, 0, "still running after {line}");
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

pub(crate) async fn a_plain_command_ends_at_its_deadline_with_its_output(bench: &Bench) {
    times_out(bench, "echo before; sleep MARK; echo after", "before\n").await;
}

pub(crate) async fn one_that_ignores_sigterm_ends_too(bench: &Bench) {
    let line = "trap '' TERM INT HUP; echo before; sleep MARK & while true; do sleep 0.05; done";
    times_out(bench, line, "before\n").await;
}

pub(crate) async fn one_that_uses_its_grace_is_heard(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let line = "trap 'echo cleaned up; exit 0' TERM; echo before; while true; do sleep 0.02; done";
    let mut said = String::new();
    // The grace is short, and a busy machine may let it pass.
    for _ in 0..5 {
        let result = sandbox.session.exec(ExecRequest::shell(line).timeout(DEADLINE)).await.unwrap();
        assert_eq!(result.outcome, Outcome::TimedOut);
        said = result.stdout.text();
        if said == "before\ncleaned up\n" {
            return;
        }
    }
    panic!("it was never heard: {said:?}");
}

pub(crate) async fn forks_end_too(bench: &Bench) {
    let line = "for i in 1 2 3 4 5 6 7 8; do sleep MARK & done; echo before; wait";
    times_out(bench, line, "before\n").await;
}

pub(crate) async fn a_double_fork_into_a_session_of_its_own_ends_too(bench: &Bench) {
    let line = "(setsid sh -c 'trap \"\" TERM; sleep MARK & exec sleep MARK' &) ; echo before; sleep 1000";
    times_out(bench, line, "before\n").await;
}

pub(crate) async fn one_that_keeps_forking_ends_too(bench: &Bench) {
    // Each copy starts the next and ends, so that there is never one to be found for long.
    let line = "printf 'sleep 0.01; setsid sh hop.sh MARK & \n' > hop.sh; sh hop.sh MARK & \n\
                echo before; sleep 1000";
    times_out(bench, line, "before\n").await;
}

pub(crate) async fn a_child_that_holds_the_pipe_ends_too(bench: &Bench) {
    times_out(bench, "(trap '' PIPE TERM; sleep MARK | cat) & echo before; sleep 1000", "before\n").await;
}

pub(crate) async fn a_stopped_command_ends_too(bench: &Bench) {
    times_out(bench, "echo before; sleep MARK & kill -STOP $!; kill -STOP $$", "before\n").await;
}

pub(crate) async fn one_that_stops_or_kills_its_parent_gains_nothing(bench: &Bench) {
    times_out(bench, "sleep MARK & echo before; kill -STOP $PPID 2>/dev/null; sleep 1000", "before\n").await;
    let sandbox = bench.sandbox().await;
    let mark = mark();
    let line = format!("setsid sleep {mark} & kill -KILL $PPID; exec sleep {mark}");
    let result = sandbox.session.exec(ExecRequest::shell(line).timeout(DEADLINE)).await.unwrap();
    assert!(matches!(result.outcome, Outcome::TimedOut | Outcome::Signalled { signal: 9 }), "{result:?}");
    sandbox.until_running(&mark, 0).await;
}

pub(crate) async fn a_terminal_ends_too(bench: &Bench) {
    if !bench.client.support().tty {
        return bench.left_out("it has no terminals");
    }
    let sandbox = bench.sandbox().await;
    let mark = mark();
    let line = format!("trap '' HUP TERM; echo before; setsid sleep {mark} & sleep 1000");
    let mut request = ExecRequest::shell(line).timeout(DEADLINE);
    request.tty = Some(TtySize::default());
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(seen(&result), ("before\r\n".into(), String::new(), Outcome::TimedOut));
    assert_eq!(sandbox.running(&mark).await, 0);
}

pub(crate) async fn cancelling_ends_everything_and_says_so(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let mark = mark();
    let line = format!("setsid sleep {mark} & echo before; exec sleep {mark}");
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    sandbox.until_running(&mark, 2).await;
    process.cancel().await.unwrap();
    assert_eq!(sandbox.running(&mark).await, 0);
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(seen(&result), ("before\n".into(), String::new(), Outcome::Cancelled));
    // Again is no error, and changes nothing.
    process.cancel().await.unwrap();
    assert_eq!(collect(process.as_ref(), Some(SOON)).await.unwrap().outcome, Outcome::Cancelled);
}

pub(crate) async fn cancelling_what_has_ended_does_not_change_how(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let process = sandbox.session.spawn(ExecRequest::shell("exit 4")).await.unwrap();
    assert_eq!(collect(process.as_ref(), Some(SOON)).await.unwrap().outcome, exited(4));
    process.cancel().await.unwrap();
    assert_eq!(collect(process.as_ref(), Some(SOON)).await.unwrap().outcome, exited(4));
}

pub(crate) async fn a_background_process_does_not_hold_up_its_command(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let mark = mark();
    let process = sandbox.session.spawn(ExecRequest::shell(format!("sleep {mark} & echo hi"))).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(seen(&result), ("hi\n".into(), String::new(), exited(0)));
    assert_eq!(sandbox.running(&mark).await, 1, "it goes on while its command is held");
    process.release().await.unwrap();
    assert_eq!(sandbox.running(&mark).await, 0, "and ends with it");
}

pub(crate) async fn what_a_background_process_says_later_can_still_be_read(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let line = "(while [ ! -e go ]; do sleep 0.02; done; echo later) & echo now";
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(seen(&result), ("now\n".into(), String::new(), exited(0)));
    sandbox.out("touch go").await;
    let mut text = Vec::new();
    while text != b"later\n" {
        let after = Cursor(4 + text.len() as u64);
        let chunk = process.output(after, 100, Duration::from_millis(100)).await.unwrap();
        assert_eq!(chunk.outcome, Some(exited(0)));
        chunk.pieces.iter().for_each(|piece| text.extend_from_slice(&piece.data));
    }
}

pub(crate) async fn stopping_the_session_ends_everything(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let mark = mark();
    let line = format!("(setsid sh -c 'trap \"\" TERM; exec sleep {mark}' &); exec sleep {mark}");
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    sandbox.until_running(&mark, 2).await;
    sandbox.session.stop().await.unwrap();
    let lost = collect(process.as_ref(), Some(SOON)).await.unwrap_err();
    assert!(lost.session_lost(), "{lost}");
    sandbox.session.start().await.unwrap();
    assert_eq!(sandbox.running(&mark).await, 0);
}
