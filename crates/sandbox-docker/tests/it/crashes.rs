//! What is left on the engine when the harness dies: nothing that runs, and the workspace.

use std::process::{Command, Stdio};
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptions;
use mooring_sandbox::{ExecRequest, SandboxClient as _, WriteOptions};

use crate::engine::{Bench, IMAGE, SOON, out, request};

const ORDER: &str = "MOORING_TEST_HARNESS";

/// Run by the test below in a process of its own, so that it can be killed.
#[tokio::test]
async fn helper_harness() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let (id, ready) = order.split_once('|').unwrap();
    let bench = Bench::new(|_| {}).await.unwrap();
    let session = bench.start(mooring_sandbox::CreateRequest { session_id: id.into(), ..request() }).await;
    session.write("file", "kept".into(), WriteOptions::default()).await.unwrap();
    let line = "(setsid sh -c 'trap \"\" TERM HUP; sleep 1000' &); sleep 1000";
    let _process = session.spawn(ExecRequest::shell(line)).await.unwrap();
    std::fs::write(ready, "").unwrap();
    std::future::pending::<()>().await;
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let give_up = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(tokio::time::Instant::now() < give_up, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn killing_the_harness_ends_and_removes_the_container_and_keeps_the_workspace() {
    let Some(bench) = Bench::new(|_| {}).await else { return };
    let id = request().session_id;
    let ready = bench.state.path().join("ready");
    let mut harness = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::helper_harness"])
        .env(ORDER, format!("{id}|{}", ready.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the sandbox runs", async || ready.exists()).await;
    assert_eq!(bench.containers(&id).await, 1);
    harness.kill().unwrap();
    harness.wait().unwrap();
    until("its container is gone", async || bench.containers(&id).await == 0).await;
    let session = bench.start(mooring_sandbox::CreateRequest { session_id: id, ..request() }).await;
    assert_eq!(out(session.as_ref(), "cat file").await, "kept");
    bench.client.delete(&session.state()).await.unwrap();
}

#[tokio::test]
async fn a_container_that_nobody_is_left_for_is_reaped_and_no_other() {
    let Some(bench) = Bench::new(|_| {}).await else { return };
    let live = bench.start(request()).await;
    // As a harness leaves it that was killed between making and starting it.
    let id = request().session_id;
    let container = bench.docker.inspect_container(&format!("mooring-{}", live.id()), None).await.unwrap();
    let mut labels = container.config.unwrap().labels.unwrap();
    labels.insert("dev.mooring.session".into(), id.clone());
    labels.insert("dev.mooring.owner".into(), "4194999:1".into());
    let named = CreateContainerOptions { name: Some(format!("mooring-{id}")), ..Default::default() };
    let body = ContainerCreateBody {
        image: Some(IMAGE.into()),
        cmd: Some(vec!["sleep".into(), "1000".into()]),
        labels: Some(labels),
        ..Default::default()
    };
    bench.docker.create_container(Some(named), body).await.unwrap();
    let reaped = bench.client.reap().await.unwrap();
    assert!(
        reaped.iter().any(|one| one.session == id && one.container == format!("mooring-{id}")),
        "{reaped:?}"
    );
    assert!(!reaped.iter().any(|one| one.session == live.id()), "{reaped:?}");
    assert_eq!((bench.containers(&id).await, bench.containers(live.id()).await), (0, 1));
    assert_eq!(out(live.as_ref(), "echo fine").await, "fine\n");
    bench.client.delete(&live.state()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_after_a_delete() {
    let Some(bench) = Bench::new(|_| {}).await else { return };
    let session = bench.start(request()).await;
    let id = session.id().to_owned();
    bench.client.delete(&session.state()).await.unwrap();
    assert_eq!(bench.containers(&id).await, 0);
    assert!(bench.docker.inspect_volume(&format!("mooring-{id}")).await.is_err());
    assert_eq!(std::fs::read_dir(bench.state.path().join("docker")).unwrap().count(), 0);
}

#[tokio::test]
async fn one_session_does_not_run_in_two_processes() {
    let Some(bench) = Bench::new(|_| {}).await else { return };
    let session = bench.start(request()).await;
    let state = session.state();
    // As another process would see it: its owner lives, and is not this one.
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap();
    let start = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().to_owned();
    session.stop().await.unwrap();
    let container = bench.start(request()).await;
    let inspected =
        bench.docker.inspect_container(&format!("mooring-{}", container.id()), None).await.unwrap();
    let mut labels = inspected.config.unwrap().labels.unwrap();
    labels.insert("dev.mooring.session".into(), state.session_id.clone());
    labels.insert("dev.mooring.owner".into(), format!("{parent}:{start}"));
    let name = format!("mooring-{}", state.session_id);
    let named = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
    let (image, cmd) = (Some(IMAGE.into()), Some(vec!["true".into()]));
    let body = ContainerCreateBody { image, cmd, labels: Some(labels), ..Default::default() };
    bench.docker.create_container(Some(named), body).await.unwrap();
    let refused = session.start().await.unwrap_err();
    assert!(refused.to_string().contains("it runs in another process"), "{refused}");
    for state in [state, container.state()] {
        bench.client.delete(&state).await.unwrap();
    }
}
