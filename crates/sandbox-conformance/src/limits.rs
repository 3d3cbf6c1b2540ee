//! Limits: enforced or refused, and told apart from other deaths.

use mooring_manifest::Manifest;
use mooring_sandbox::{
    CommandLine, ExecRequest, ExecResult, Outcome, ResourceSupport, SandboxError, WriteOptions, collect,
};

use crate::Limits;
use crate::archives::{persist, reader};
use crate::bench::{Bench, SOON, Sandbox, exited, mark, request, unique};

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

/// A sandbox with one of the manifest's limits. `None`: the backend does not keep it, and that is said.
async fn with_resource(
    bench: &Bench,
    name: &str,
    limit: &str,
    kept: impl FnOnce(ResourceSupport) -> bool,
) -> Option<Sandbox> {
    if !kept(bench.client.support().resources) {
        bench.left_out(&format!("it refuses resources.{name}"));
        return None;
    }
    let manifest = serde_json::json!({ "x-mooring": { "resources": { name: limit } } });
    Some(bench.with_manifest(Manifest::from_value(&manifest).unwrap()).await)
}

pub(crate) async fn a_sandbox_ends_when_its_time_is_up(bench: &Bench) {
    let limit = with_resource(bench, "wall_clock", "2s", |support| support.wall_clock).await;
    let Some(sandbox) = limit else { return };
    let mark = mark();
    // What leaves its group and takes no notice ends too, and its output is there.
    let line = format!("echo begun; trap '' TERM; setsid sleep {mark} & while :; do sleep {mark}; done");
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    let ended = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!((ended.stdout.text().as_str(), ended.outcome), ("begun\n", Outcome::TimedOut));
    process.release().await.unwrap();
    // It goes once that is known.
    let give_up = tokio::time::Instant::now() + SOON;
    while sandbox.session.stat(".").await.is_ok() {
        assert!(tokio::time::Instant::now() < give_up, "it goes on");
    }
    let refused = sandbox.session.exec(ExecRequest::shell("echo late")).await;
    assert!(matches!(refused, Err(SandboxError::Gone { .. })), "{refused:?}");
    // The next start begins anew.
    sandbox.session.start().await.unwrap();
    assert_eq!(sandbox.running(&mark).await, 0);
}

const MIB: usize = 1 << 20;

pub(crate) async fn a_workspace_grows_no_further_than_its_limit(bench: &Bench) {
    let Some(sandbox) = with_resource(bench, "disk", "20MiB", |support| support.disk).await else { return };
    assert!(sandbox.session.isolation().unwrap().mechanisms["disk"].ends_with(", 20971520"));
    // One large file: the kernel stops it.
    let one = sandbox.sh("exec head -c 30000000 /dev/zero > one").await;
    assert_eq!(one.outcome, Outcome::OutOfDisk);
    assert_eq!(sandbox.out("stat -c %s one; rm one").await, "20971520\n");
    // Many files, hidden from whoever may not enter where they are: the measure finds them.
    let many = "mkdir deep; for i in $(seq 1000); do head -c 1000000 /dev/zero > deep/$i; chmod 0 deep; sleep 0.01; \
                chmod 700 deep; done";
    assert_eq!(sandbox.sh(many).await.outcome, Outcome::OutOfDisk);
    // While it is too large, nothing grows, and what is there can be removed.
    assert_eq!(sandbox.sh("echo more > more").await.outcome, Outcome::OutOfDisk);
    let full = sandbox.session.write("more", vec![0; MIB].into(), WriteOptions::default()).await.unwrap_err();
    assert!(full.to_string().contains("resources.disk"), "{full}");
    assert_eq!(sandbox.out("chmod 700 deep; rm -r deep more; ls").await, "");
    assert_eq!(sandbox.out("echo fits > more; cat more").await, "fits\n");
    sandbox.session.write("data", vec![0; MIB].into(), WriteOptions::default()).await.unwrap();
}

pub(crate) async fn an_archive_that_is_too_large_for_the_workspace_is_refused_on_the_way(bench: &Bench) {
    let Some(sandbox) = with_resource(bench, "disk", "20MiB", |support| support.disk).await else { return };
    let roomy = bench.sandbox().await;
    // Without holes, which an archive does not carry.
    roomy.out("head -c 12000000 /dev/urandom > a; cp a b").await;
    let both = persist(roomy.session.as_ref(), &[]).await;
    let unpacked = sandbox.session.unpack(".", reader(both.clone())).await;
    assert!(unpacked.unwrap_err().to_string().contains("resources.disk"));
    sandbox.out("rm -f a b; head -c 15000000 /dev/urandom > c").await;
    // What is restored takes the place of what is there.
    let one = persist(roomy.session.as_ref(), &["b"]).await;
    sandbox.session.restore(reader(one)).await.unwrap();
    assert_eq!(sandbox.out("ls").await, "a\n");
    // And it has to fit by itself.
    let restored = sandbox.session.restore(reader(both)).await;
    assert!(restored.unwrap_err().to_string().contains("resources.disk"));
    assert_eq!(sandbox.out("ls").await, "a\n", "what was there is there");
}
