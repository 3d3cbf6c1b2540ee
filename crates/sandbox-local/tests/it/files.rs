//! File operations: what they do, and that they stay in the workspace.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mooring_sandbox::{SandboxError, WriteOptions};

use crate::setup::Sandbox;

fn kind_of(error: &SandboxError) -> &'static str {
    match error {
        SandboxError::NotFound { .. } => "not found",
        SandboxError::AlreadyExists { .. } => "exists",
        SandboxError::PathEscape { .. } => "escape",
        SandboxError::File { .. } => "file",
        SandboxError::Invalid { .. } => "invalid",
        _ => "other",
    }
}

/// The workspace as the host has it.
fn on_host(sandbox: &Sandbox) -> PathBuf {
    sandbox.state.path().join("sandboxes").join(sandbox.session.id()).join("workspace")
}

#[tokio::test]
async fn a_race_with_links_leads_nowhere_else() {
    let sandbox = Sandbox::new().await;
    sandbox.out("mkdir real; echo mine > real/file; echo secret > /tmp/file").await;
    // `name` leads to the workspace's own directory, to /tmp, nowhere, and so on, as fast as can be.
    let workspace = on_host(&sandbox);
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let (away, here, name) = (workspace.join("away"), workspace.join("here"), workspace.join("name"));
            symlink("/tmp", &away).unwrap();
            symlink("real", &here).unwrap();
            while !stop.load(Ordering::Relaxed) {
                for target in [&away, &here] {
                    std::fs::rename(target, &name).unwrap();
                    std::thread::yield_now();
                    std::fs::rename(&name, target).unwrap();
                }
            }
        }
    });
    let (mut inside, mut refused) = (0, 0);
    for _ in 0..20_000 {
        match sandbox.session.read("name/file", 100).await {
            Ok(data) => {
                assert_ne!(data, "secret\n");
                inside += 1;
            }
            Err(error) => refused += usize::from(kind_of(&error) == "escape"),
        }
        let _ = sandbox.session.write("name/file", "mine".into(), WriteOptions::default()).await;
        let _ = sandbox.session.write("name/new", "x".into(), WriteOptions::default()).await;
        let _ = sandbox.session.remove("name/new", false).await;
        if inside > 20 && refused > 20 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
    assert!(inside > 0 && refused > 0, "no race took place: {inside} inside, {refused} refused");
    assert_eq!(sandbox.out("ls /tmp; cat /tmp/file").await, "file\nsecret\n");
}

#[tokio::test]
async fn on_the_host_files_belong_to_the_workspaces_owner() {
    let sandbox = Sandbox::new().await;
    sandbox.out("echo x > by-command; mkdir -p d/e").await;
    sandbox.session.write("by-call", "x".into(), WriteOptions::default()).await.unwrap();
    let owner = rustix::process::geteuid().as_raw();
    for name in ["by-command", "by-call", "d/e"] {
        let metadata = std::fs::metadata(on_host(&sandbox).join(name)).unwrap();
        assert_eq!(metadata.uid(), owner, "{name}");
    }
}

#[tokio::test]
async fn a_directory_too_large_to_be_told_is_one_calls_trouble() {
    let sandbox = Sandbox::new().await;
    sandbox
        .out("mkdir d; cd d; python3 -c 'for i in range(16000): open(\"x\" * 240 + str(i), \"w\").close()'")
        .await;
    let error = sandbox.session.list("d").await.unwrap_err();
    assert!(error.to_string().contains("the answer is too long"), "{error}");
    assert_eq!(sandbox.out("ls d | wc -l").await, "16000\n");
}
