//! Sessions: made, found again, ended, removed.

use std::sync::Arc;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, SandboxError, SessionState, WriteOptions};

use crate::bench::{Bench, SOON, mark, request, unique};

fn gone<T: std::fmt::Debug>(result: Result<T, SandboxError>) {
    let error = result.unwrap_err();
    assert!(error.session_lost(), "{error}");
}

pub(crate) async fn a_session_is_not_running_before_its_start_nor_after_its_stop(bench: &Bench) {
    let session = bench.create(&bench.client, request(&unique("s"))).await.unwrap();
    gone(session.read("x", 1).await);
    assert_eq!(session.isolation(), None);
    session.stop().await.unwrap();
    session.start().await.unwrap();
    session.start().await.unwrap();
    assert!(session.isolation().is_some());
    session.write("x", "kept".into(), WriteOptions::default()).await.unwrap();
    session.stop().await.unwrap();
    session.stop().await.unwrap();
    gone(session.exec(ExecRequest::argv(["true"])).await);
    gone(session.stat("x").await);
    session.start().await.unwrap();
    assert_eq!(session.read("x", 10).await.unwrap(), "kept");
}

pub(crate) async fn creating_twice_makes_one(bench: &Bench) {
    let id = unique("s");
    let first = bench.create(&bench.client, request(&id)).await.unwrap();
    first.start().await.unwrap();
    first.write("x", "1".into(), WriteOptions::default()).await.unwrap();
    let second = bench.client.create(request(&id)).await.unwrap();
    assert_eq!(second.read("x", 10).await.unwrap(), "1", "the running one is found");
    // Another process, after a crash:
    drop((first, second));
    let third = bench.backend.client().create(request(&id)).await.unwrap();
    third.start().await.unwrap();
    assert_eq!(third.read("x", 10).await.unwrap(), "1");
}

pub(crate) async fn starting_from_many_sides_starts_one(bench: &Bench) {
    let session = bench.create(&bench.client, request(&unique("s"))).await.unwrap();
    let starts = (0..8).map(|_| session.start());
    for started in futures::future::join_all(starts).await {
        started.unwrap();
    }
    session.write("x", "1".into(), WriteOptions::default()).await.unwrap();
    assert_eq!(session.read("x", 10).await.unwrap(), "1");
}

pub(crate) async fn dropping_the_last_handle_ends_the_sandbox(bench: &Bench) {
    let id = unique("s");
    let session = bench.create(&bench.client, request(&id)).await.unwrap();
    session.start().await.unwrap();
    // It says that it lives for as long as it does.
    let line = format!("trap '' TERM HUP; while :; do echo beat >> beats; sleep 0.02; done # {}", mark());
    let process = session.spawn(ExecRequest::shell(line)).await.unwrap();
    let mut beats = 0;
    while beats < 15 {
        beats = session.read("beats", 1 << 20).await.map_or(0, |beats| beats.len());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop((session, process));
    let session = bench.client.create(request(&id)).await.unwrap();
    session.start().await.unwrap();
    let give_up = tokio::time::Instant::now() + SOON;
    loop {
        let before = session.read("beats", 1 << 20).await.unwrap().len();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        if session.read("beats", 1 << 20).await.unwrap().len() == before {
            break;
        }
        assert!(tokio::time::Instant::now() < give_up, "it goes on");
    }
}

pub(crate) async fn a_state_leads_back_to_the_workspace(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("echo kept > file").await;
    let state = sandbox.session.state();
    let text = serde_json::to_string(&state).unwrap();
    let state: SessionState = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (state.backend.as_str(), state.session_id.as_str()),
        (bench.client.backend_id(), sandbox.session.id())
    );
    sandbox.session.stop().await.unwrap();
    let other = bench.backend.client();
    let session = other.resume(state.clone()).await.unwrap();
    session.start().await.unwrap();
    assert_eq!(session.read("file", 10).await.unwrap(), "kept\n");
    assert_eq!(session.state(), state);
    assert_eq!(session.root(), sandbox.session.root());
    other.delete(&state).await.unwrap();
    gone(other.resume(state).await);
}

pub(crate) async fn deleting_removes_whatever_is_there_and_twice_is_no_error(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("mkdir -p a/b; touch a/b/c; chmod 000 a/b; chmod 500 a; ln -s /usr u").await;
    let state = sandbox.session.state();
    bench.client.delete(&state).await.unwrap();
    bench.client.delete(&state).await.unwrap();
    bench.backend.client().delete(&state).await.unwrap();
    gone(sandbox.session.exec(ExecRequest::argv(["true"])).await);
    // The same id is a new sandbox.
    let again = bench.start(&bench.client, request(&state.session_id)).await;
    assert_eq!(again.out("ls -A").await, "");
}

pub(crate) async fn two_sandboxes_do_not_meet(bench: &Bench) {
    let (one, two) = (bench.sandbox().await, bench.sandbox().await);
    let mark = mark();
    one.out("echo secret > /tmp/x; echo secret > x").await;
    assert_eq!(two.out("ls -A /tmp .").await.matches('x').count(), 0);
    let _process = one.session.spawn(ExecRequest::argv(["sleep", &mark])).await.unwrap();
    one.until_running(&mark, 1).await;
    assert_eq!(two.running(&mark).await, 0);
}

pub(crate) async fn twenty_at_once(bench: &Bench) {
    let sandboxes = futures::future::join_all((0..20).map(|_| bench.sandbox())).await;
    let lines = sandboxes.iter().map(|sandbox| async { sandbox.out("echo $$ > pid; cat pid | wc -l").await });
    for said in futures::future::join_all(lines).await {
        assert_eq!(said.trim(), "1");
    }
}

pub(crate) async fn requests_that_make_no_sense_are_refused(bench: &Bench) {
    for id in ["", "../x", "a/b", "a b", &"x".repeat(65)] {
        let refused = bench.create(&bench.client, request(id)).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Invalid { .. }), "{id:?}: {refused}");
    }
    for root in
        ["/", "", "relative", "/usr/x", "/proc", "/etc/x", "/tmp", "/a/../b", "/a//b", "/dev/shm/x", "/var"]
    {
        let manifest = Manifest { root: root.into(), ..Manifest::default() };
        let request = CreateRequest { manifest, ..request(&unique("s")) };
        let refused = bench.create(&bench.client, request).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Invalid { .. }), "{root:?}: {refused}");
    }
    let foreign = SessionState {
        backend: "no-such-backend".into(),
        session_id: "x".into(),
        data: serde_json::Value::Null,
    };
    assert!(matches!(bench.client.resume(foreign).await, Err(SandboxError::Invalid { .. })));
    let unreadable = SessionState {
        backend: bench.client.backend_id().into(),
        session_id: "x".into(),
        data: serde_json::json!({"nonsense": 1}),
    };
    assert!(matches!(bench.client.resume(unreadable).await, Err(SandboxError::Invalid { .. })));
}

pub(crate) async fn the_workspace_can_be_anywhere_sensible(bench: &Bench) {
    for root in ["/home/agent/project", "/tmp/deep/er", "/run/w", "/srv", "/root"] {
        let manifest = Manifest { root: root.into(), ..Manifest::default() };
        let sandbox = bench.with_manifest(manifest).await;
        assert_eq!(sandbox.session.root(), root);
        assert_eq!(sandbox.out("pwd; echo $HOME; echo x > f; cat f").await, format!("{root}\n{root}\nx\n"));
        assert_eq!(sandbox.session.read(&format!("{root}/f"), 10).await.unwrap(), "x\n");
    }
}

pub(crate) async fn the_isolation_achieved_is_told(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let isolation = sandbox.session.isolation().unwrap();
    assert!(!isolation.level.is_empty() && !isolation.mechanisms.is_empty(), "{isolation:?}");
    let again = Arc::clone(&sandbox.session);
    again.stop().await.unwrap();
    again.start().await.unwrap();
    assert_eq!(again.isolation().unwrap(), isolation, "a restart weakens nothing");
}
