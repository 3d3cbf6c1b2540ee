//! What a manifest asks for beyond its entries.

use std::path::Path;

use mooring_manifest::Manifest;
use mooring_sandbox::{Plan, SandboxClient as _, SandboxError, materialise};
use mooring_sandbox_local::Limits;
use serde_json::{Value, json};

use crate::setup::{Sandbox, is_root};

fn asking(additions: &Value) -> Manifest {
    let manifest =
        json!({ "entries": { "in/a": { "type": "file", "content": "a" } }, "x-mooring": additions });
    Manifest::from_value(&manifest).unwrap()
}

async fn staged(sandbox: &Sandbox, manifest: &Manifest) -> Result<(), SandboxError> {
    let plan = Plan::new(manifest, Path::new("."), &sandbox.client.support(), "local")?;
    materialise(&plan, sandbox.session.as_ref()).await.map(drop)
}

#[tokio::test]
async fn setup_runs_once_everything_is_there_in_its_order() {
    let manifest =
        asking(&json!({ "setup": ["cat in/a > b", { "run": "cat ../b > c; pwd >> c", "cwd": "in" }] }));
    let sandbox = Sandbox::with(|_| {}, manifest.clone(), None).await;
    staged(&sandbox, &manifest).await.unwrap();
    assert_eq!(sandbox.out("cat in/c").await, "a/workspace/in\n");
}

#[tokio::test]
async fn setup_that_fails_says_how_and_stops_there() {
    for (command, message) in [
        (json!("echo half; echo no such thing >&2; exit 3"), "it ended with 3, and said: no such thing"),
        (
            json!({ "run": "echo waiting; sleep 1000", "timeout": "1s" }),
            "it took longer than 1s, and said: waiting",
        ),
        (json!("kill -9 $$"), "signal 9 ended it, and said: nothing"),
    ] {
        let manifest = asking(&json!({ "setup": [command, "touch later"] }));
        let sandbox = Sandbox::with(|_| {}, manifest.clone(), None).await;
        let failed = staged(&sandbox, &manifest).await.unwrap_err().to_string();
        assert!(failed.starts_with("setup command '") && failed.ends_with(message), "{failed}");
        assert_eq!(sandbox.out("ls").await, "in\n");
    }
}

#[tokio::test]
async fn of_two_limits_the_tighter_holds() {
    let pids = |own, asked| async move {
        let manifest = asking(&json!({ "resources": { "pids": asked } }));
        let sandbox = Sandbox::with(|options| options.limits.pids = own, manifest, None).await;
        let told = sandbox.session.isolation().unwrap().mechanisms["pids"].clone();
        told.rsplit(", ").next().unwrap().to_owned()
    };
    assert_eq!(pids(None, 30).await, "30");
    assert_eq!(pids(Some(40), 30).await, "30");
    assert_eq!(pids(Some(20), 30).await, "20");
    if is_root() {
        let manifest = asking(&json!({ "resources": { "memory": "100MiB", "cpu": 0.5 } }));
        let own = Limits { memory_bytes: Some(1 << 30), pids: None, cpus: None, ..Limits::default() };
        let sandbox = Sandbox::with(|options| options.limits = own, manifest, None).await;
        let told = sandbox.session.isolation().unwrap().mechanisms;
        assert!(told["memory"].ends_with(", 104857600"), "{told:?}");
        assert!(told["cpu"].starts_with("cgroup v"), "{told:?}");
    }
}

#[tokio::test]
async fn a_network_that_cannot_be_had_is_refused_and_none_is_kept() {
    let sandbox = Sandbox::new().await;
    staged(&sandbox, &asking(&json!({ "network": "deny" }))).await.unwrap();
    for asked in [json!("unrestricted"), json!({ "allow": ["example.com"] })] {
        let refused = staged(&sandbox, &asking(&json!({ "network": asked }))).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Unsupported { .. }), "{refused}");
    }
    let unisolated = Sandbox::with(
        |options| options.isolation = mooring_sandbox_local::IsolationLevel::None,
        Manifest::default(),
        None,
    )
    .await;
    let refused = staged(&unisolated, &asking(&json!({ "network": "deny" }))).await.unwrap_err();
    assert!(refused.to_string().starts_with("not supported: network deny on the local sandbox"), "{refused}");
}
