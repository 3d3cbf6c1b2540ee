//! The suite that every backend passes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bollard::Docker;
use mooring_sandbox::{BoxFuture, SandboxClient, SandboxSession};
use mooring_sandbox_conformance::{Backend, Faults, Limits as Limited};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient, Limits};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use crate::engine::{IMAGE, connect, docker, is_root};

#[derive(Debug)]
struct InContainers {
    state: TempDir,
    socket: PathBuf,
    disk: Mutex<Option<TempDir>>,
}

/// `None`: there is no engine, and that was said.
fn in_containers() -> Option<InContainers> {
    Some(InContainers { state: tempfile::tempdir().unwrap(), socket: docker()?, disk: Mutex::default() })
}

impl Drop for InContainers {
    fn drop(&mut self) {
        if let Some(disk) = self.disk.get_mut().unwrap() {
            rustix::mount::unmount(disk.path(), UnmountFlags::DETACH).unwrap();
        }
    }
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
        if !is_root() {
            return Err("an ordinary user cannot mount a small disk".into());
        }
        let folder = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes},uid=1000,gid=1000,mode=755")).unwrap();
        rustix::mount::mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), options.as_c_str())
            .unwrap();
        let path = folder.path().to_owned();
        *self.disk.lock().unwrap() = Some(folder);
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
