//! Sessions: made, found again, ended, removed.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, SandboxClient as _, SandboxError, WriteOptions};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient, probe};

use crate::setup::{Sandbox, is_root, running, supervisors_above, unique, until};

fn request(id: &str) -> CreateRequest {
    CreateRequest { session_id: id.into(), manifest: Manifest::default(), workspace: None }
}

#[tokio::test]
async fn deleting_removes_a_private_workspace_whatever_is_in_it() {
    let sandbox = Sandbox::new().await;
    sandbox.out("mkdir -p a/b; touch a/b/c; chmod 000 a/b; chmod 500 a; ln -s /usr u").await;
    let state = sandbox.session.state();
    sandbox.client.delete(&state).await.unwrap();
    assert_eq!(std::fs::read_dir(sandbox.state.path().join("sandboxes")).unwrap().count(), 0);
    assert!(Path::new("/usr/bin").exists());
    sandbox.client.delete(&state).await.unwrap();
    let gone = sandbox.session.exec(ExecRequest::argv(["true"])).await.unwrap_err();
    assert!(gone.session_lost(), "{gone}");
}

#[tokio::test]
async fn a_named_workspace_is_the_callers_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "mine").unwrap();
    let sandbox = Sandbox::with(|_| {}, Manifest::default(), Some(folder.path().to_owned())).await;
    assert_eq!(sandbox.out("cat mine; echo new > new").await, "mine");
    sandbox.session.write("by-call", "x".into(), WriteOptions::default()).await.unwrap();
    sandbox.client.delete(&sandbox.session.state()).await.unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("new")).unwrap(), "new\n");
    let owner = rustix::process::geteuid().as_raw();
    for name in ["new", "by-call"] {
        assert_eq!(std::fs::metadata(folder.path().join(name)).unwrap().uid(), owner);
    }
}

#[tokio::test]
async fn as_root_a_workspace_keeps_its_owner() {
    if !is_root() {
        return;
    }
    // Somebody else's directory: what the sandbox makes there is theirs, not root's.
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(2345), Some(2346)).unwrap();
    let sandbox = Sandbox::with(|_| {}, Manifest::default(), Some(folder.path().to_owned())).await;
    assert_eq!(sandbox.out("echo new > new; stat -c '%u %g' . new").await, "1000 1000\n1000 1000\n");
    let metadata = std::fs::metadata(folder.path().join("new")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (2345, 2346));
}

/// Run by the test below in a process of its own, so that it can be killed.
#[tokio::test]
async fn helper_harness() {
    let Ok(order) = std::env::var("MOORING_TEST_HARNESS") else { return };
    let (state, mark) = order.split_once('|').unwrap();
    let client = LocalSandboxClient::new(LocalOptions::new(state));
    let session = client.create(request("survivor")).await.unwrap();
    session.start().await.unwrap();
    session.write("file", "kept".into(), WriteOptions::default()).await.unwrap();
    let line = format!(
        "(setsid bash -c 'trap \"\" TERM HUP; exec -a {mark} sleep 1000' &); exec -a {mark} sleep 1000"
    );
    let _process = session.spawn(ExecRequest::shell(line)).await.unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn killing_the_harness_ends_everything_and_loses_nothing() {
    let state = tempfile::tempdir().unwrap();
    let mark = unique("mark");
    let mut harness = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::helper_harness"])
        .env("MOORING_TEST_HARNESS", format!("{}|{mark}", state.path().display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the sandbox runs", || running(&mark) >= 2).await;
    harness.kill().unwrap();
    harness.wait().unwrap();
    until("all of it is gone", || running(&mark) == 0).await;
    let client = LocalSandboxClient::new(LocalOptions::new(state.path()));
    let session = client.create(request("survivor")).await.unwrap();
    session.start().await.unwrap();
    assert_eq!(session.read("file", 10).await.unwrap(), "kept");
}

#[tokio::test]
async fn killing_the_monitor_ends_everything_too() {
    let sandbox = Sandbox::new().await;
    let mark = unique("mark");
    let line = format!("(setsid bash -c 'exec -a {mark} sleep 1000' &); exec -a {mark} sleep 1000");
    let _process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    until("it runs", || running(&mark) == 2).await;
    let monitor = rustix::process::Pid::from_raw(*supervisors_above(&mark).last().unwrap()).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    until("all of it is gone", || running(&mark) == 0).await;
    let lost = sandbox.session.exec(ExecRequest::argv(["true"])).await.unwrap_err();
    assert!(lost.session_lost(), "{lost}");
    sandbox.session.start().await.unwrap();
    assert_eq!(sandbox.out("echo again").await, "again\n");
}

#[tokio::test]
async fn the_whole_host_is_no_workspace() {
    let state = tempfile::tempdir().unwrap();
    let client = LocalSandboxClient::new(LocalOptions::new(state.path()));
    let whole_host = CreateRequest { workspace: Some("/".into()), ..request("x") };
    assert!(matches!(client.create(whole_host).await, Err(SandboxError::Invalid { .. })));
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn a_start_that_fails_says_what_is_missing() {
    if !is_root() {
        return;
    }
    // A user namespace that allows no further ones.
    let state = tempfile::tempdir().unwrap();
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" --exact lifecycle::helper_refused --nocapture")
        .arg(std::env::current_exe().unwrap())
        .env("MOORING_TEST_REFUSED", state.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{told}{}", String::from_utf8_lossy(&run.stderr));
    assert!(told.contains("refused: user namespace"), "{told}{}", String::from_utf8_lossy(&run.stderr));
}

#[tokio::test]
async fn helper_refused() {
    let Ok(state) = std::env::var("MOORING_TEST_REFUSED") else { return };
    let client = LocalSandboxClient::new(LocalOptions::new(state));
    let session = client.create(request("x")).await.unwrap();
    match session.start().await {
        Err(SandboxError::Isolation { primitive, reason, hint }) => {
            println!("refused: {primitive}: {reason}. {hint}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_busy_start_keeps_the_callers_terminal_signals_away() {
    // The supervisor is in a session of its own: a Ctrl-C at the harness's terminal does not reach it.
    let sandbox = Sandbox::new().await;
    // As `/proc` numbers it: in a pid namespace that began after our session, our own is 0 for everybody in it.
    let session = |stat: String| {
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(3).unwrap_or_default().to_owned()
    };
    let own = session(std::fs::read_to_string("/proc/self/stat").unwrap());
    let monitors: Vec<String> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let command = std::fs::read(path.join("cmdline")).ok()?;
            // One that belongs to another test may be gone by now.
            command
                .starts_with(b"moor-supervisor")
                .then(|| std::fs::read_to_string(path.join("stat")).ok())?
        })
        .map(session)
        .collect();
    assert!(!monitors.is_empty());
    assert!(!monitors.contains(&own), "{monitors:?}");
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

#[tokio::test]
async fn the_probe_finds_what_a_sandbox_needs() {
    let state = tempfile::tempdir().unwrap();
    let checks = probe(&LocalOptions::new(state.path().join("not/there/yet"))).await.unwrap();
    for name in [
        "user namespace",
        "mount namespace",
        "pid namespace",
        "proc mount",
        "network namespace",
        "seccomp",
        "openat2",
        "devpts",
        "ipc, uts and cgroup namespaces",
        "idmapped mount",
    ] {
        let check =
            checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name}: {checks:?}"));
        assert!(check.ok && check.hint.is_empty(), "{check:?}");
    }
    for check in &checks {
        assert!(!check.detail.is_empty() && (check.ok || !check.hint.is_empty()), "{check:?}");
    }
    let memory = checks.iter().find(|check| check.name == "cgroup memory").unwrap();
    assert_eq!(memory.ok, is_root(), "{memory:?}");
}
