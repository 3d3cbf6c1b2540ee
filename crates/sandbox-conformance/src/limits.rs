//! Limits: enforced or refused, and told apart from other deaths.

use mooring_sandbox::{CommandLine, ExecRequest, ExecResult, Outcome};

use crate::Limits;
use crate::bench::{Bench, SOON, Sandbox, exited, request, unique};

/// A shell that holds 60 MB, and more while it reads them.
const EATER: &str = "x=$(yes xxxxxxxxxxxxxxx | head -c 59999999); echo ${#x}";

async fn eat(sandbox: &Sandbox, line: &str) -> ExecResult {
    sandbox.session.exec(ExecRequest::shell(line).timeout(SOON * 3)).await.unwrap()
}

pub(crate) async fn memory_is_limited_and_the_outcome_says_so(bench: &Bench) {
    let client = match bench.backend.limited(Limits::Memory(40 << 20)) {
        Ok(client) => client,
        Err(why) => return bench.left_out(&why),
    };
    let sandbox = bench.start(&client, request(&unique("s"))).await;
    assert_eq!(eat(&sandbox, EATER).await.outcome, Outcome::OutOfMemory);
    let below_a_shell = eat(&sandbox, &format!("({EATER}); exit $?")).await;
    assert_eq!(below_a_shell.outcome, Outcome::OutOfMemory);
    // An earlier death is not blamed on a later command, and the sandbox lives.
    assert_eq!(sandbox.sh("kill -9 $$").await.outcome, Outcome::Signalled { signal: 9 });
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

pub(crate) async fn without_a_limit_there_is_none(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let result = eat(&sandbox, EATER).await;
    assert_eq!((result.stdout.text().trim(), result.outcome), ("59999999", exited(0)));
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
