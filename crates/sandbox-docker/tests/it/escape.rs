//! Attempts to get out. That they bite is shown where protections can be switched off: those of a container are not, so
//! that the local sandbox shows it; the guard of the way out is.

use std::sync::Arc;

use mooring_sandbox::{BoxFuture, SandboxClient as _};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient, Limits};
use mooring_sandbox_escape::{MEMORY, PROCESSES, Started, Target};
use mooring_testkit::PYTHON;
use tempfile::TempDir;

use crate::engine::{docker, request};

struct InContainers {
    state: TempDir,
}

impl InContainers {
    fn new() -> Option<Self> {
        docker().map(|_| Self { state: tempfile::tempdir().unwrap() })
    }
}

impl Target for InContainers {
    fn guarded(&self) -> BoxFuture<'_, Started> {
        Box::pin(async {
            let limits =
                Limits { memory_bytes: Some(MEMORY), pids: Some(PROCESSES), cpus: None, ..Limits::default() };
            let options = DockerOptions::new(docker().unwrap(), self.state.path());
            let options = DockerOptions { image: Some(PYTHON.into()), limits, ..options };
            let client = Arc::new(DockerSandboxClient::new(options));
            let session = client.create(request()).await.unwrap();
            session.start().await.unwrap();
            Started { session, client, workspace: None, limits_processes: true, limits_memory: true }
        })
    }

    fn open(&self) -> BoxFuture<'_, Started> {
        unreachable!("no attempt through the way out needs it")
    }
}

#[test]
fn attempts_through_the_way_out_bite() {
    let Some(target) = InContainers::new() else { return };
    for attempt in mooring_sandbox_escape::ATTEMPTS.iter().filter(|attempt| attempt.is_through_the_way_out())
    {
        mooring_sandbox_escape::bites(attempt.name, &target);
    }
}

mooring_sandbox_escape::holds!(match InContainers::new() {
    Some(target) => target,
    None => return,
});
