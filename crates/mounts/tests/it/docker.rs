//! The same in a container, on a real engine.

use std::path::Path;

use mooring_sandbox::{CreateRequest, SandboxClient as _};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient};
use mooring_testkit::{IMAGE, docker};
use serde_json::json;

use crate::support::{Bench, SECRET, Server, manifest, s3, s3_keys, storage};

/// What is mounted on this host below a directory.
fn mounted(folder: &Path) -> usize {
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap();
    all.lines().filter(|line| line.contains(folder.to_str().unwrap())).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_mounts_in_a_container_and_leaves_nothing() {
    let Some(socket) = docker() else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = Server::s3();
    server.python("put('in/a', b'a\\n'); put('large', b'x' * (3 << 20))");
    let mut entry = s3(&server.url);
    entry["read_only"] = json!(false);
    let state = tempfile::tempdir().unwrap();
    let options = DockerOptions { image: Some(IMAGE.into()), ..DockerOptions::new(socket, state.path()) };
    let client = DockerSandboxClient::new(options).with_storage(storage());
    assert!(client.support().mounts);
    let session_id = format!("mounts-{}", std::process::id());
    let request = CreateRequest { session_id, manifest: manifest(entry, s3_keys()), workspace: None };
    let session = client.create(request).await.unwrap();
    session.start().await.unwrap();
    let bench = Bench { session, failures: std::sync::Mutex::default(), state };
    assert_eq!(bench.said("cat m/in/a; wc -c < m/large; stat -c %U m/in/a").await, "a\n3145728\nagent\n");
    assert_eq!(bench.said("echo 2 > m/b && cat m/b").await, "2\n");
    assert!(server.python("print(get('b'))").contains('2'));
    assert!(!bench.said("env; cat /proc/mounts").await.contains(SECRET));
    // The supervisor stays out of it there, too.
    let refused = bench.session.read("m/b", 100).await.unwrap_err();
    assert!(refused.to_string().contains("in the mount m"), "{refused}");
    assert_eq!(mounted(bench.state.path()), 1);
    bench.session.stop().await.unwrap();
    assert_eq!(mounted(bench.state.path()), 0, "what was mounted on the host goes with the container");
    client.delete(&bench.kept()).await.unwrap();
}
