//! Who may open what, and where the credentials are.

use mooring_manifest::extension::SecretUse;
use mooring_sandbox::{SandboxClient as _, SandboxError};
use serde_json::json;

use crate::storage::{AZURE_KEY, ID, Place, SECRET, Server, manifest, operator, run, say};

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_is_in_the_sandbox_nor_in_what_is_kept() {
    for kind in ["s3", "azure"] {
        let server = Server::start(kind);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "a\n").unwrap();
        server.client("bucket", folder.path(), &[]);
        let place = Place::new();
        let session = place.sandbox(server.manifest("bucket")).await.unwrap();
        assert_eq!(say(session.as_ref(), "cat data/a").await, "a\n");
        let (_, seen) = run(
            session.as_ref(),
            "cat /proc/mounts /proc/*/environ /proc/*/cmdline /proc/*/mountinfo 2>/dev/null | tr '\\0' '\\n'; env; \
             grep -rIs . /etc /tmp /run 2>/dev/null | head -c 500000",
        )
        .await;
        assert!(seen.contains("fuse"), "{seen}");
        let state = format!("{:?} {}", session, serde_json::to_string(&session.state()).unwrap());
        for secret in [SECRET, ID, AZURE_KEY] {
            assert!(!seen.contains(secret) && !state.contains(secret), "{kind}");
        }
        // Nor can anybody reach the storage but through the mount.
        let (_, text) = run(
            session.as_ref(),
            &format!(
                "python3 -c \"import urllib.request as u; u.urlopen('{}', timeout=5)\"",
                server.endpoint
            ),
        )
        .await;
        assert!(text.contains("refused") || text.contains("unreachable"), "{text}");
        session.stop().await.unwrap();
        // Found again by its state, it is mounted again.
        let again = place.client(operator()).resume(session.state()).await.unwrap();
        again.start().await.unwrap();
        assert_eq!(say(again.as_ref(), "cat data/a").await, "a\n");
        again.stop().await.unwrap();
    }
}

async fn refusal(place: &Place, manifest: mooring_manifest::Manifest) -> String {
    match place.sandbox(manifest).await {
        Ok(_) => panic!("it was mounted"),
        Err(error @ (SandboxError::Invalid { .. } | SandboxError::Unsupported { .. })) => error.to_string(),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_is_told_before_anything_starts() {
    let server = Server::start("azure");
    let folder = tempfile::tempdir().unwrap();
    server.client("bucket", folder.path(), &[]);
    let place = Place::new();
    let (entry, _) = server.entry("bucket");
    let with =
        |options: serde_json::Value| manifest(&json!({"data": entry.clone()}), &json!({"data": options}));

    let text = refusal(&place, with(json!({"credentials": {"account_key": "wrong"}}))).await;
    assert!(text.contains("entry 'data' (azure_blob_mount) cannot be mounted"), "{text}");
    assert!(text.contains("refused") && !text.contains("d3Jvbmc="), "{text}");

    let text = refusal(&place, server.manifest("none")).await;
    assert!(text.contains("there is no such bucket"), "{text}");

    let mut unknown = server.manifest("bucket");
    unknown.extension.mounts["data"].credentials.insert("account_key".into(), "lost".into());
    unknown.extension.secrets.insert("lost".into(), SecretUse::default());
    let text = refusal(&place, unknown).await;
    assert!(text.contains("the secret 'lost', which is not configured"), "{text}");

    let mut literal = entry.clone();
    literal["account_key"] = AZURE_KEY.into();
    let whole = json!({"version": 1, "root": "/workspace", "entries": {"data": literal}});
    let mut literal = mooring_manifest::Manifest::from_value(&whole).unwrap();
    literal.acknowledge_exposure("data").unwrap();
    let text = refusal(&place, literal).await;
    assert!(text.contains("its credentials stand in the manifest") && !text.contains(AZURE_KEY), "{text}");

    let mut writable = entry.clone();
    writable["read_only"] = false.into();
    let text = refusal(&place, manifest(&json!({"data": writable}), &json!({}))).await;
    assert!(text.contains("mounts are only read"), "{text}");

    let mut outside = entry.clone();
    outside["mount_path"] = "/etc/data".into();
    let outside = manifest(&json!({"data": outside}), &json!({}));
    let session = place.sandbox(outside).await;
    assert!(session.is_err(), "a mount covers nothing of the system");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_leads_nobody_into_the_operators_network() {
    let place = Place::new();
    for endpoint in [
        "http://127.0.0.2:1",
        "http://169.254.169.254",
        "http://[::1]:1",
        "http://localhost:1",
        "http://10.0.0.1",
    ] {
        let entry = json!({
            "type": "s3_mount", "bucket": "b", "endpoint_url": endpoint,
            "mount_strategy": {"type": "in_container", "pattern": {"type": "rclone"}},
        });
        let text = refusal(&place, manifest(&json!({"data": entry}), &json!({}))).await;
        assert!(text.contains("is not public; name the host under network.private"), "{endpoint}: {text}");
    }
}
