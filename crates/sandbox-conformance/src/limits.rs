//! Limits: enforced or refused, and told apart from other deaths.

use mooring_sandbox::{CommandLine, ExecRequest, Outcome};

use crate::Limits;
use crate::bench::{Bench, SOON, exited, request, unique};

/// A shell that holds 100 MB, and more while it reads them.
const EATER: &str = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}";

pub(crate) async fn memory_is_limited_and_the_outcome_says_so(bench: &Bench) {
    let client = match bench.backend.limited(Limits::Memory(64 << 20)) {
        Ok(client) => client,
        Err(why) => return bench.left_out(&why),
    };
    let sandbox = bench.start(&client, request(&unique("s"))).await;
    assert_eq!(sandbox.sh(EATER).await.outcome, Outcome::OutOfMemory);
    let below_a_shell = sandbox.sh(&format!("({EATER}); exit $?")).await;
    assert_eq!(below_a_shell.outcome, Outcome::OutOfMemory);
    // An earlier death is not blamed on a later command, and the sandbox lives.
    assert_eq!(sandbox.sh("kill -9 $$").await.outcome, Outcome::Signalled { signal: 9 });
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

pub(crate) async fn without_a_limit_there_is_none(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let result = sandbox.sh(EATER).await;
    assert_eq!((result.stdout.text().trim(), result.outcome), ("100000000", exited(0)));
}

pub(crate) async fn processes_are_limited(bench: &Bench) {
    let client = match bench.backend.limited(Limits::Processes(20)) {
        Ok(client) => client,
        Err(why) => return bench.left_out(&why),
    };
    let sandbox = bench.start(&client, request(&unique("s"))).await;
    let line = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); echo $i; done";
    // `sh` gives up where it cannot fork; bash would try again for a while.
    let command = CommandLine::Shell { line: line.into(), shell: Some("sh".into()), login: false };
    let result = sandbox.session.exec(ExecRequest::new(command).timeout(SOON)).await.unwrap();
    let started: u32 = result.stdout.text().lines().last().unwrap_or("0").parse().unwrap();
    assert!((5..20).contains(&started), "{started} were started: {result:?}");
    // All of it ended with the command, so there is room again.
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}
