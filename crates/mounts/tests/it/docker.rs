//! The same in a container, on a real engine.

use std::path::Path;
use std::sync::Arc;

use mooring_mounts::ObjectStorage;
use mooring_sandbox::{CreateRequest, Plan, SandboxClient as _, materialise};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient};
use mooring_testkit::{IMAGE, docker};

use crate::storage::{SECRET, Server, operator, run, say};

/// What is mounted on this host below a directory.
fn mounted(folder: &Path) -> usize {
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap();
    all.lines().filter(|line| line.contains(folder.to_str().unwrap())).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reads_what_is_mounted_and_leaves_nothing() {
    let Some(socket) = docker() else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start("s3");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    std::fs::write(folder.path().join("in/a"), "a\n").unwrap();
    std::fs::write(folder.path().join("large"), vec![b'x'; 3 << 20]).unwrap();
    server.client("bucket", folder.path(), &[]);
    let state = tempfile::tempdir().unwrap();
    let options = DockerOptions { image: Some(IMAGE.into()), ..DockerOptions::new(socket, state.path()) };
    let client = DockerSandboxClient::new(options).with_storage(Arc::new(ObjectStorage::new(operator())));
    let manifest = server.manifest("bucket");
    let plan = Plan::new(&manifest, Path::new("/"), &client.support(), client.backend_id()).unwrap();
    let id = format!("mounts-{}", std::process::id());
    let request = CreateRequest { session_id: id, manifest, workspace: None };
    let session = client.create(request).await.unwrap();
    session.start().await.unwrap();
    materialise(&plan, session.as_ref()).await.unwrap();
    assert_eq!(say(session.as_ref(), "cat data/in/a; wc -c < data/large").await, "a\n3145728\n");
    assert_eq!(say(session.as_ref(), "stat -c %U data/in/a").await, "agent\n");
    let (_, text) = run(session.as_ref(), "touch data/x; env; cat /proc/mounts").await;
    assert!(text.contains("Read-only file system") && !text.contains(SECRET), "{text}");
    assert_eq!(mounted(state.path()), 1);
    session.stop().await.unwrap();
    assert_eq!(mounted(state.path()), 0, "what was mounted on the host goes with the container");
    client.delete(&session.state()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_mounted_is_found() {
    let Some(socket) = docker() else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let left = state.path().join("docker/gone/mounts/0");
    std::fs::create_dir_all(&left).unwrap();
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let place = rustix::fs::open(&left, flags, rustix::fs::Mode::empty()).unwrap();
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap().into();
    mooring_supervisor::mount_device(&place, true, &device, 0).unwrap();
    // As when whoever served it was killed.
    drop((device, place));
    assert_eq!(mounted(state.path()), 1);
    let client = DockerSandboxClient::new(DockerOptions::new(socket, state.path()));
    client.reap().await.unwrap();
    assert_eq!(mounted(state.path()), 0);
}
