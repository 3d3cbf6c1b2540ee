//! Deadlines and cancelling: whatever a command does, it ends, and everything it started with it.

use std::time::Duration;

use mooring_sandbox::{Cursor, ExecRequest, Outcome, TtySize, collect};

use crate::setup::{SOON, Sandbox, exited, running, seen, unique, until};

/// Long enough for a command to get going, even on a busy machine.
const DEADLINE: Duration = Duration::from_millis(1500);

/// Runs a line with a deadline; `MARK` in it is an argument that is looked for on the host afterwards.
async fn times_out(line: &str) -> String {
    let sandbox = Sandbox::new().await;
    let mark = unique("mark");
    let line = line.replace("MARK", &mark);
    let result = sandbox.session.exec(ExecRequest::shell(&line).timeout(DEADLINE)).await.unwrap();
    assert_eq!(result.outcome, Outcome::TimedOut, "{line}");
    assert_eq!(running(&mark), 0, "still running after {line}");
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
    result.stdout.text()
}

#[tokio::test]
async fn a_plain_command_ends_at_its_deadline_with_its_output() {
    assert_eq!(times_out("echo before; exec -a MARK sleep 1000; echo after").await, "before\n");
}

#[tokio::test]
async fn one_that_ignores_sigterm_ends_too() {
    let line =
        "trap '' TERM INT HUP; echo before; (exec -a MARK sleep 1000) & while true; do sleep 0.05; done";
    assert_eq!(times_out(line).await, "before\n");
}

#[tokio::test]
async fn one_that_uses_its_grace_is_heard() {
    let line = "trap 'echo cleaned up; exit 0' TERM; echo before; while true; do sleep 0.02; done # MARK";
    assert_eq!(times_out(line).await, "before\ncleaned up\n");
}

#[tokio::test]
async fn forks_end_too() {
    let line = "for i in 1 2 3 4 5 6 7 8; do (exec -a MARK sleep 1000) & done; echo before; wait";
    assert_eq!(times_out(line).await, "before\n");
}

#[tokio::test]
async fn a_double_fork_into_a_session_of_its_own_ends_too() {
    let line = "(setsid bash -c 'trap \"\" TERM; (exec -a MARK sleep 1000) & exec -a MARK sleep 1000' &) ; \
                echo before; sleep 1000";
    assert_eq!(times_out(line).await, "before\n");
}

#[tokio::test]
async fn one_that_keeps_forking_ends_too() {
    // Each copy starts the next and ends, so that there is never one to be found for long.
    let line = "printf 'sleep 0.01; setsid bash hop.sh MARK & \n' > hop.sh; bash hop.sh MARK & \n\
                echo before; sleep 1000";
    assert_eq!(times_out(line).await, "before\n");
}

#[tokio::test]
async fn process_substitution_that_holds_the_pipe_ends_too() {
    assert_eq!(times_out("exec > >(exec -a MARK tee copy); echo before; sleep 1000").await, "before\n");
}

#[tokio::test]
async fn a_stopped_command_ends_too() {
    assert_eq!(
        times_out("echo before; (exec -a MARK sleep 1000) & kill -STOP $!; kill -STOP $$").await,
        "before\n"
    );
}

#[tokio::test]
async fn one_that_kills_or_stops_its_reaper_gains_nothing() {
    // As an ordinary user the reaper is the same user's; as root it cannot be signalled.
    times_out("(exec -a MARK sleep 1000) & echo before; kill -STOP $PPID; sleep 1000").await;
    let sandbox = Sandbox::new().await;
    let mark = unique("mark");
    let line =
        format!("(setsid bash -c 'exec -a {mark} sleep 1000') & kill -KILL $PPID; exec -a {mark} sleep 1000");
    let result = sandbox.session.exec(ExecRequest::shell(line).timeout(DEADLINE)).await.unwrap();
    assert!(matches!(result.outcome, Outcome::TimedOut | Outcome::Signalled { signal: 9 }), "{result:?}");
    until("all of it is gone", || running(&mark) == 0).await;
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

#[tokio::test]
async fn a_terminal_ends_too() {
    let sandbox = Sandbox::new().await;
    let mark = unique("mark");
    let line =
        format!("trap '' HUP TERM; echo before; (setsid bash -c 'exec -a {mark} sleep 1000') & sleep 1000");
    let mut request = ExecRequest::shell(line).timeout(DEADLINE);
    request.tty = Some(TtySize::default());
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(seen(&result), ("before\r\n".into(), String::new(), Outcome::TimedOut));
    assert_eq!(running(&mark), 0);
}

#[tokio::test]
async fn cancelling_ends_everything_and_says_so() {
    let sandbox = Sandbox::new().await;
    let mark = unique("mark");
    let line =
        format!("(setsid bash -c 'exec -a {mark} sleep 1000') & echo before; exec -a {mark} sleep 1000");
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    until("it runs", || running(&mark) == 2).await;
    process.cancel().await.unwrap();
    assert_eq!(running(&mark), 0);
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(seen(&result), ("before\n".into(), String::new(), Outcome::Cancelled));
    // Again is no error, and changes nothing.
    process.cancel().await.unwrap();
    assert_eq!(collect(process.as_ref(), Some(SOON)).await.unwrap().outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn cancelling_what_has_ended_does_not_change_how() {
    let sandbox = Sandbox::new().await;
    let process = sandbox.session.spawn(ExecRequest::shell("exit 4")).await.unwrap();
    assert_eq!(collect(process.as_ref(), Some(SOON)).await.unwrap().outcome, exited(4));
    process.cancel().await.unwrap();
    assert_eq!(collect(process.as_ref(), Some(SOON)).await.unwrap().outcome, exited(4));
}

#[tokio::test]
async fn a_background_process_does_not_hold_up_its_command() {
    let sandbox = Sandbox::new().await;
    let mark = unique("mark");
    let line = format!("(exec -a {mark} sleep 1000) & echo hi");
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(seen(&result), ("hi\n".into(), String::new(), exited(0)));
    assert_eq!(running(&mark), 1, "it goes on while its command is held");
    process.release().await.unwrap();
    assert_eq!(running(&mark), 0, "and ends with it");
}

#[tokio::test]
async fn what_a_background_process_says_later_can_still_be_read() {
    let sandbox = Sandbox::new().await;
    let line = "(while [ ! -e go ]; do sleep 0.02; done; echo later) & echo now";
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(seen(&result), ("now\n".into(), String::new(), exited(0)));
    sandbox.out("touch go").await;
    let mut text = Vec::new();
    while text != b"later\n" {
        let chunk =
            process.output(Cursor(4 + text.len() as u64), 100, Duration::from_millis(100)).await.unwrap();
        assert_eq!(chunk.outcome, Some(exited(0)));
        chunk.pieces.iter().for_each(|piece| text.extend_from_slice(&piece.data));
    }
}

#[tokio::test]
async fn stopping_the_session_ends_everything() {
    let sandbox = Sandbox::new().await;
    let mark = unique("mark");
    let line =
        format!("(setsid bash -c 'trap \"\" TERM; exec -a {mark} sleep 1000' &); exec -a {mark} sleep 1000");
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    until("it runs", || running(&mark) >= 2).await;
    sandbox.session.stop().await.unwrap();
    assert_eq!(running(&mark), 0);
    let lost = collect(process.as_ref(), Some(SOON)).await.unwrap_err();
    assert!(lost.session_lost(), "{lost}");
}
