//! Sandboxes on machines that are containers themselves: as far as the kernel lets it, and refused in words where not.

use std::process::Command;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, SandboxClient as _, SandboxError};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};

use crate::setup::{SOON, is_root};

/// Run by the tests below in containers of their own.
#[tokio::test]
async fn helper_nested() {
    if std::env::var("MOORING_TEST_NESTED").is_err() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let client = LocalSandboxClient::new(LocalOptions::new(state.path()));
    let request = CreateRequest { session_id: "n".into(), manifest: Manifest::default(), workspace: None };
    let session = client.create(request).await.unwrap();
    match session.start().await {
        Ok(()) => {
            let line = "echo says $(id -un) in $PWD with $(ls /proc | grep -c '^[0-9]') processes";
            let result = session.exec(ExecRequest::shell(line).timeout(SOON)).await.unwrap();
            println!("{}{}", result.stdout.text(), result.stderr.text());
            println!("level {}", session.isolation().unwrap().level);
        }
        Err(SandboxError::Isolation { primitive, reason, hint }) => {
            println!("refused: {primitive}: {reason}: {hint}");
        }
        Err(other) => panic!("{other}"),
    }
}

/// What a sandbox does in a container that `unshare` makes with these arguments, after this was done in it.
fn nested(arguments: &[&str], first: &str) -> String {
    let script = format!("set -e\n{first}\nexec \"$0\" --exact nested::helper_nested --nocapture");
    let run = Command::new("unshare")
        .args(arguments)
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("MOORING_TEST_NESTED", "1")
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{told}");
    told
}

const CONTAINER: [&str; 6] = ["--mount", "--pid", "--fork", "--net", "--ipc", "--mount-proc"];

#[test]
fn in_a_rootful_container() {
    if !is_root() {
        return;
    }
    let told = nested(&CONTAINER, "");
    assert!(told.contains("says agent in /workspace with") && told.contains("level namespaces"), "{told}");
}

#[test]
fn in_a_rootless_container_whose_root_has_no_other_number() {
    let told = nested(&[&["--user", "--map-root-user"], &CONTAINER[..]].concat(), "");
    assert!(told.contains("says agent in /workspace with") && told.contains("level namespaces"), "{told}");
}

#[test]
fn in_a_container_whose_proc_is_masked_it_is_refused_by_name() {
    // As container engines do by default.
    let outer = [&["--user", "--map-root-user"], &CONTAINER[..]].concat();
    let told = nested(&outer, "mount --bind /dev/null /proc/uptime");
    assert!(told.contains("refused: proc mount:") && told.contains("unmasked /proc"), "{told}");
}

#[test]
fn where_seccomp_or_a_setting_forbids_user_namespaces_it_is_refused_by_name() {
    let outer = [&["--user", "--map-root-user"], &CONTAINER[..]].concat();
    let told = nested(&outer, "echo 0 > /proc/sys/user/max_user_namespaces");
    assert!(told.contains("refused: user namespace:"), "{told}");
}
