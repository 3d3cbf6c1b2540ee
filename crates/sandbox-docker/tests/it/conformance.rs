//! The suite that every backend passes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bollard::Docker;
use mooring_sandbox::{BoxFuture, SandboxClient, SandboxSession};
use mooring_sandbox_conformance::{Backend, Faults, Limits as Limited, SmallDisk};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient, Limits};
use tempfile::TempDir;

use crate::engine::{IMAGE, connect, docker};

#[derive(Debug)]
struct InContainers {
    state: TempDir,
    socket: PathBuf,
    disk: Mutex<Option<SmallDisk>>,
}

/// `None`: there is no engine, and that was said.
fn in_containers() -> Option<InContainers> {
    Some(InContainers { state: tempfile::tempdir().unwrap(), socket: docker()?, disk: Mutex::default() })
}

impl InContainers {
    fn options(&self) -> DockerOptions {
        let options = DockerOptions::new(&self.socket, self.state.path());
        DockerOptions { image: Some(IMAGE.into()), ..options }
    }

    async fn docker(&self) -> Docker {
        connect(&self.socket).await
    }
}

impl Backend for InContainers {
    fn client(&self) -> Arc<dyn SandboxClient> {
        Arc::new(DockerSandboxClient::new(self.options()))
    }

    fn limited(&self, limits: Limited) -> Result<Arc<dyn SandboxClient>, String> {
        let limits = match limits {
            Limited::Memory(bytes) => Limits { memory_bytes: Some(bytes), ..Limits::default() },
            Limited::Processes(count) => Limits { pids: Some(count), ..Limits::default() },
        };
        Ok(Arc::new(DockerSandboxClient::new(DockerOptions { limits, ..self.options() })))
    }

    fn small_disk(&self, bytes: u64) -> Result<PathBuf, String> {
        let disk = SmallDisk::mount(bytes, 1000)?;
        let path = disk.path().to_owned();
        *self.disk.lock().unwrap() = Some(disk);
        Ok(path)
    }

    fn faults(&self) -> &dyn Faults {
        self
    }
}

fn name(session: &dyn SandboxSession) -> String {
    format!("mooring-{}", session.id())
}

impl Faults for InContainers {
    fn freeze<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.docker().await.pause_container(&name(session)).await.unwrap() })
    }

    fn thaw<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.docker().await.unpause_container(&name(session)).await.unwrap() })
    }

    fn kill<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.docker().await.kill_container(&name(session), None).await.unwrap() })
    }
}

mooring_sandbox_conformance::suite!(match in_containers() {
    Some(backend) => backend,
    None => return,
});
