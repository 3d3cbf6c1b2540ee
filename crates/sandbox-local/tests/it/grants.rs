//! Directories of the host that a manifest asks for and the operator allows.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, Outcome, SandboxClient as _, SandboxError};
use mooring_sandbox_local::{HostGrant, LocalOptions, LocalSandboxClient};
use serde_json::json;
use tempfile::TempDir;

use crate::setup::{Sandbox, unique};

fn manifest(grants: &serde_json::Value) -> Manifest {
    Manifest::from_value(&json!({ "extra_path_grants": grants })).unwrap()
}

/// `tools` to be read, `data` to be written.
fn host() -> (TempDir, Vec<HostGrant>) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tools/bin", "data", "secret"] {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let tool = dir.path().join("tools/bin/tool");
    std::fs::write(&tool, "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(dir.path().join("secret/key"), "key").unwrap();
    let grant = |name: &str, writable| HostGrant { path: dir.path().join(name), writable };
    let grants = vec![grant("tools", false), grant("data", true)];
    (dir, grants)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn what_is_allowed_is_seen_and_written_as_allowed() {
    let (dir, allowed) = host();
    let asked = manifest(&json!([
        { "path": "/opt/tools", "read_only": true, "host_path": text(&dir.path().join("tools/bin")) },
        { "path": "/opt/data", "host_path": text(&dir.path().join("data")) },
        { "path": "/tmp/seen", "read_only": true, "host_path": text(&dir.path().join("data")) },
    ]));
    let sandbox = Sandbox::with(|options| options.grants = allowed, asked, None).await;
    assert_eq!(sandbox.out("/opt/tools/tool; ls /opt").await, "ran\ndata\ntools\n");
    for refused in
        ["echo x > /opt/tools/new", "rm /opt/tools/tool", "echo x > /tmp/seen/new", "chmod 777 /opt/tools"]
    {
        assert_ne!(sandbox.sh(refused).await.outcome, Outcome::Exited { code: 0 }, "{refused}");
    }
    assert_eq!(sandbox.out("echo mine > /opt/data/file; cat /tmp/seen/file").await, "mine\n");
    let written = std::fs::metadata(dir.path().join("data/file")).unwrap();
    let owner = std::fs::metadata(dir.path().join("data")).unwrap();
    assert_eq!(written.uid(), owner.uid(), "on this side it is the directory's owner's");
    // A program cannot get its owner's rights there, nor be a device.
    sandbox.sh("cp /usr/bin/id /opt/data/id; chmod 4755 /opt/data/id; mknod /opt/data/null c 1 3").await;
    assert!(std::fs::metadata(dir.path().join("data/id")).is_ok_and(|file| file.mode() & 0o6000 == 0));
    assert!(!dir.path().join("data/null").exists());
    let mounts = sandbox.out("grep /opt/data /proc/self/mounts").await;
    assert!(mounts.contains("nosuid") && mounts.contains("nodev"), "{mounts}");
    let told = sandbox.session.isolation().unwrap().mechanisms;
    assert_eq!(
        told["grant /opt/data"],
        format!("writable, {}", text(&dir.path().canonicalize().unwrap().join("data")))
    );
    assert!(told["grant /opt/tools"].starts_with("read-only, "));
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_by_name() {
    let (dir, allowed) = host();
    let state = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("data/link")).unwrap();
    let client = |grants: &[HostGrant]| {
        LocalSandboxClient::new(LocalOptions { grants: grants.to_vec(), ..LocalOptions::new(state.path()) })
    };
    let open = client(&[&allowed[..], &[HostGrant { path: "/".into(), writable: true }]].concat());
    let strict = client(&allowed);
    let host = |name: &str| text(&dir.path().join(name));
    for (client, grant, why) in [
        (&strict, json!({ "path": "/opt/x", "host_path": host("secret") }), "is not among the directories"),
        (
            &strict,
            json!({ "path": "/opt/x", "host_path": host("data/link") }),
            "is not among the directories",
        ),
        (&strict, json!({ "path": "/opt/x", "host_path": host("tools") }), "may be read and not written"),
        (&strict, json!({ "path": "/opt/x", "host_path": host("nothing") }), "No such file"),
        (
            &strict,
            json!({ "path": "/opt/x", "read_only": true, "host_path": host("tools/bin/tool") }),
            "no directory",
        ),
        (&open, json!({ "path": "/opt/x", "host_path": text(state.path()) }), "holds the state of sandboxes"),
        (&open, json!({ "path": "/usr/share", "read_only": true }), "the system's place"),
        (&open, json!({ "path": "/workspace/x", "host_path": host("data") }), "it lies in /workspace"),
    ] {
        let asked = manifest(&json!([grant]));
        let error = client.check(&asked).unwrap_err();
        assert!(
            matches!(&error, SandboxError::Unsupported { reason, .. } if reason.contains(why)),
            "{error}"
        );
        let request = CreateRequest { session_id: unique("s"), manifest: asked, workspace: None };
        assert_eq!(client.create(request).await.unwrap_err().to_string(), error.to_string());
    }
    // A session that was allowed once is asked again.
    let asked = manifest(&json!([{ "path": "/opt/x", "host_path": host("data") }]));
    let request = CreateRequest { session_id: unique("s"), manifest: asked, workspace: None };
    let session = strict.create(request).await.unwrap().state();
    let error = client(&allowed[..1]).resume(session).await.unwrap_err();
    assert!(error.to_string().contains("is not among the directories"), "{error}");
}

#[tokio::test]
async fn a_place_that_was_swapped_for_a_link_is_not_followed() {
    let (dir, allowed) = host();
    let state = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data/sub")).unwrap();
    let options = LocalOptions { grants: allowed, ..LocalOptions::new(state.path()) };
    let client = LocalSandboxClient::new(options);
    let path = text(&dir.path().join("data/sub"));
    let manifest = manifest(&json!([{ "path": "/opt/x", "host_path": path }]));
    let request = CreateRequest { session_id: unique("s"), manifest, workspace: None };
    let session = client.create(request).await.unwrap();
    std::fs::remove_dir(dir.path().join("data/sub")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("data/sub")).unwrap();
    let error = session.start().await.unwrap_err();
    assert!(error.to_string().contains("it cannot be shown at /opt/x"), "{error}");
}
