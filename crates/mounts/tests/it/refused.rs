//! What is refused before anything starts, by name and with the next step.

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, Plan, SandboxClient as _, refuse_literal_secrets};
use mooring_sandbox_local::{IsolationLevel, LocalOptions, LocalSandboxClient};
use serde_json::{Value, json};

use crate::support::{client, manifest, s3, s3_keys, strategy};

fn planned(entry: Value) -> String {
    let state = tempfile::tempdir().unwrap();
    let client = client(state.path());
    let manifest = Manifest::from_value(&json!({ "entries": { "m": entry } })).unwrap();
    Plan::new(&manifest, state.path(), &client.support(), "local").unwrap_err().to_string()
}

#[test]
fn what_nobody_can_serve() {
    let outside = json!({ "type": "docker_volume", "driver": "rclone" });
    let mut absolute = s3("https://s3.example");
    absolute["mount_path"] = json!("/data");
    let entries = [
        json!({ "type": "box_mount", "access_token": "t", "mount_strategy": outside }),
        json!({ "type": "s3_mount", "bucket": "b", "access_key_id": "i", "secret_access_key": "k", "mount_strategy": outside }),
        json!({ "type": "gcs_mount", "bucket": "b", "service_account_file": "/f", "mount_strategy": outside }),
        json!({ "type": "azure_blob_mount", "account": "a", "container": "c", "identity_client_id": "i", "mount_strategy": outside }),
        absolute,
    ];
    let told: Vec<String> = entries.into_iter().map(planned).collect();
    for (told, needed) in told.iter().zip([
        "entry 'm' (box_mount, docker_volume)",
        "'secret_access_key' is a secret in the manifest itself",
        "'service_account_file' names a file",
        "this machine's own is never used",
        "outside of the workspace",
    ]) {
        assert!(told.contains(needed), "{told}\nlacks: {needed}");
    }
}

#[test]
fn a_secret_in_a_manifest_is_refused_before_it_is_recorded() {
    let entry = json!({
        "type": "s3_mount", "bucket": "b", "access_key_id": "i", "secret_access_key": "hush-hush",
        "mount_strategy": { "type": "docker_volume", "driver": "rclone" },
    });
    let manifest = Manifest::from_value(&json!({ "entries": { "m": entry } })).unwrap();
    let told = refuse_literal_secrets(&manifest).unwrap_err().to_string();
    assert!(told.contains("x-mooring.mounts.m.credentials") && !told.contains("hush-hush"), "{told}");
}

async fn start(manifest: Manifest) -> String {
    let state = tempfile::tempdir().unwrap();
    let client = client(state.path());
    let request = CreateRequest { session_id: "refused".into(), manifest, workspace: None };
    let session = client.create(request).await.unwrap();
    session.start().await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_the_operators_own_network_unless_opened() {
    for url in ["http://169.254.169.254", "http://10.1.2.3:9000", "https://[::1]", "http://127.0.0.2"] {
        let told = start(manifest(s3(url), s3_keys())).await;
        assert!(told.contains("which is not public"), "{url}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_not_there() {
    let unknown = Manifest::from_value(&json!({
        "entries": { "m": s3("https://s3.example") },
        "x-mooring": { "secrets": { "nope": {} }, "mounts": { "m": { "credentials": { "access_key_id": "nope" } } } }
    }));
    let told = start(unknown.unwrap()).await;
    assert!(told.contains("names the secret 'nope', and it is not configured"), "{told}");
    let half = manifest(s3("https://s3.example"), json!({ "credentials": { "access_key_id": "id" } }));
    let told = start(half).await;
    assert!(told.contains("one of them is missing"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_that_have_no_place_for_it() {
    let state = tempfile::tempdir().unwrap();
    let none = LocalOptions { isolation: IsolationLevel::None, ..LocalOptions::new(state.path()) };
    let linger =
        LocalOptions { linger: Some(std::time::Duration::from_mins(1)), ..LocalOptions::new(state.path()) };
    for (options, reason) in [
        (none, "without isolation"),
        (linger, "would live on"),
        (LocalOptions::new(state.path()), "nobody serves storage"),
    ] {
        let client = LocalSandboxClient::new(options);
        let manifest = Manifest::from_value(&json!({
            "entries": { "m": { "type": "s3_mount", "bucket": "b", "mount_strategy": strategy() } }
        }));
        let request = CreateRequest { session_id: "x".into(), manifest: manifest.unwrap(), workspace: None };
        let told = client.create(request).await.unwrap_err().to_string();
        assert!(told.contains(reason), "{told}");
        assert!(!client.support().mounts);
    }
}
