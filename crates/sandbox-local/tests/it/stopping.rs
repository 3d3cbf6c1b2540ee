//! What only bash can do, and what only the host can see: everything ends.

use std::time::Duration;

use mooring_sandbox::{ExecRequest, Outcome};

use crate::setup::{Sandbox, running, unique};

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
async fn process_substitution_that_holds_the_pipe_ends_too() {
    assert_eq!(times_out("exec > >(exec -a MARK tee copy); echo before; sleep 1000").await, "before\n");
}

#[tokio::test]
async fn an_archive_that_fails_leaves_no_job() {
    let sandbox = Sandbox::new().await;
    // A pipe whose other end is gone in the middle of a member.
    let (mut writer, reader) = tokio::io::duplex(1024);
    tokio::io::AsyncWriteExt::write_all(&mut writer, &[0; 100]).await.unwrap();
    drop(writer);
    sandbox.session.unpack(".", Box::pin(reader)).await.unwrap_err();
    // The shell's reaper and the supervisor, but no job.
    assert_eq!(
        sandbox.out("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c ^moor-supervisor").await,
        "2\n"
    );
}
