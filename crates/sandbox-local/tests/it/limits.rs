//! Limits: enforced or refused.

use mooring_manifest::Manifest;
use std::process::{Child, Command, Stdio};

use mooring_sandbox::{CommandLine, CreateRequest, ExecRequest, Outcome, SandboxClient as _, SandboxError};
use mooring_sandbox_local::{Limits, LocalOptions, LocalSandboxClient};

use crate::setup::{SOON, Sandbox, is_root, running, unique};

async fn limited(limits: Limits) -> Sandbox {
    Sandbox::with(|options| options.limits = limits, Manifest::default(), None).await
}

const EATER: &str = "/usr/bin/python3 -c 'x = bytearray(400 << 20); print(len(x))'";

#[tokio::test]
async fn memory_is_limited_and_the_outcome_says_so() {
    if !is_root() {
        return;
    }
    let sandbox = limited(Limits { memory_bytes: Some(100 << 20), ..Limits::default() }).await;
    let told = &sandbox.session.isolation().unwrap().mechanisms["memory"];
    assert!(told.starts_with("cgroup v") && told.ends_with(", 104857600"), "{told}");
    assert_eq!(sandbox.sh(EATER).await.outcome, Outcome::OutOfMemory);
    let below_a_shell = sandbox.sh(&format!("{EATER}; exit $?")).await;
    assert_eq!(below_a_shell.outcome, Outcome::OutOfMemory);
    // An earlier death is not blamed on a later command, and the sandbox lives.
    assert_eq!(sandbox.sh("kill -9 $$").await.outcome, Outcome::Signalled { signal: 9 });
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

/// Processes outside, ended with the test.
struct Outside(Vec<Child>);

impl Drop for Outside {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[tokio::test]
async fn processes_are_limited_by_what_runs_inside_alone() {
    // Outside, the same user has more than the limit.
    let sleep = |_| Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
    let _outside = Outside((0..30).map(sleep).collect());
    let sandbox = limited(Limits { pids: Some(20), ..Limits::default() }).await;
    let line = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); echo $i; done";
    // dash gives up at once when it cannot fork; bash tries again for a while.
    let command = CommandLine::Shell { line: line.into(), shell: Some("sh".into()), login: false };
    let result = sandbox.session.exec(ExecRequest::new(command).timeout(SOON)).await.unwrap();
    let started: u32 = result.stdout.text().lines().last().unwrap_or("0").parse().unwrap();
    assert!((9..20).contains(&started), "{started} were started: {result:?}");
    assert!(result.stderr.text().contains("fork"), "{result:?}");
    // All of it ended with the command, so there is room again.
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
    let how = if is_root() { "cgroup v" } else { "RLIMIT_NPROC" };
    let told = &sandbox.session.isolation().unwrap().mechanisms["pids"];
    assert!(told.starts_with(how) && told.ends_with(", 20"), "{told}");
}

#[tokio::test]
async fn processor_time_is_limited() {
    if !is_root() {
        return;
    }
    let sandbox = limited(Limits { cpus: Some(0.2), ..Limits::default() }).await;
    let told = &sandbox.session.isolation().unwrap().mechanisms["cpu"];
    assert!(told.starts_with("cgroup v"), "{told}");
    // Its share of two seconds, in hundredths of a second; far from all of it.
    let line = "timeout 2 bash -c 'while :; do :; done'; cut -d' ' -f16,17 /proc/$$/stat";
    let used: u32 = sandbox
        .sh(line)
        .await
        .stdout
        .text()
        .split_whitespace()
        .map(|ticks| ticks.parse::<u32>().unwrap())
        .sum();
    assert!((1..120).contains(&used), "{used} ticks were used");
}

#[tokio::test]
async fn a_limit_that_cannot_be_enforced_is_refused_by_name() {
    if is_root() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    for (limits, name) in [
        (Limits { memory_bytes: Some(1 << 30), ..Limits::default() }, "cgroup memory controller"),
        (Limits { cpus: Some(1.0), ..Limits::default() }, "cgroup cpu controller"),
    ] {
        let options = LocalOptions { limits, ..LocalOptions::new(state.path()) };
        let client = LocalSandboxClient::new(options);
        let request =
            CreateRequest { session_id: unique("s"), manifest: Manifest::default(), workspace: None };
        let session = client.create(request).await.unwrap();
        match session.start().await {
            Err(SandboxError::Isolation { primitive, hint, .. }) => {
                assert_eq!(primitive, name);
                assert!(hint.contains("Delegate=yes"), "{hint}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(session.isolation(), None);
    }
}

/// How many groups of the kernel there are of a session: one for each controller.
fn groups_of(session: &str) -> usize {
    let name = format!("mooring-{session}*");
    let found = std::process::Command::new("find").args(["/sys/fs/cgroup", "-name", &name]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().count()
}

/// Two state directories may have sessions of one id, and their sandboxes have nothing in common.
#[tokio::test]
async fn sandboxes_of_one_id_in_two_places_are_limited_each_by_itself() {
    if !is_root() {
        return;
    }
    let limits = Limits { memory_bytes: Some(1 << 30), pids: Some(100), ..Limits::default() };
    let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let id = unique("same");
    let mut sessions = Vec::new();
    for state in &states {
        let client = LocalSandboxClient::new(LocalOptions { limits, ..LocalOptions::new(state.path()) });
        let request =
            CreateRequest { session_id: id.clone(), manifest: Manifest::default(), workspace: None };
        let session = client.create(request).await.unwrap();
        session.start().await.unwrap();
        sessions.push(session);
    }
    assert_eq!(groups_of(&id), 4);
    sessions[0].stop().await.unwrap();
    assert_eq!(groups_of(&id), 2);
    sessions[1].stop().await.unwrap();
}

#[tokio::test]
async fn groups_are_removed_with_the_sandbox() {
    if !is_root() {
        return;
    }
    let limits =
        Limits { memory_bytes: Some(1 << 30), pids: Some(100), cpus: Some(1.0), ..Limits::default() };
    let sandbox = limited(limits).await;
    assert_eq!(groups_of(sandbox.session.id()), 3);
    sandbox.session.stop().await.unwrap();
    assert_eq!(groups_of(sandbox.session.id()), 0);
}

#[tokio::test]
async fn a_sandbox_ends_when_its_time_is_up_and_says_how_its_commands_did() {
    let manifest = Manifest::from_json(r#"{"x-mooring": {"resources": {"wall_clock": "1s"}}}"#).unwrap();
    let sandbox = Sandbox::with(|_| {}, manifest, None).await;
    let mark = unique("mark");
    let process =
        sandbox.session.spawn(ExecRequest::shell(format!("exec -a {mark} sleep 1000"))).await.unwrap();
    let ended = mooring_sandbox::collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(ended.outcome, Outcome::TimedOut);
    // It goes once that is known, and nothing is left of it.
    process.release().await.unwrap();
    let give_up = tokio::time::Instant::now() + SOON;
    while sandbox.session.stat(".").await.is_ok() {
        assert!(tokio::time::Instant::now() < give_up, "it goes on");
    }
    assert_eq!(running(&mark), 0);
    // The next start begins anew.
    sandbox.session.start().await.unwrap();
    assert_eq!(sandbox.out("echo again").await, "again\n");
}
