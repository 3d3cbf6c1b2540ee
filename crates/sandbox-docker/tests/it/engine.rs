//! A client on the engine of the tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, ExecResult, Outcome, SandboxClient as _, SandboxSession};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient};
pub(crate) use mooring_testkit::{DOCKER, IMAGE, docker};
use tempfile::TempDir;

pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) async fn connect(socket: &Path) -> Docker {
    let docker = Docker::connect_with_unix(socket.to_str().unwrap(), 60, API_DEFAULT_VERSION).unwrap();
    docker.negotiate_version().await.unwrap()
}

/// A client with a state directory of its own.
pub(crate) struct Bench {
    pub(crate) client: DockerSandboxClient,
    pub(crate) docker: Docker,
    pub(crate) state: TempDir,
}

impl Bench {
    /// `None`: there is no engine, and that is said.
    pub(crate) async fn new(change: impl FnOnce(&mut DockerOptions)) -> Option<Self> {
        let socket = docker()?;
        let docker = connect(&socket).await;
        let state = tempfile::tempdir().unwrap();
        let mut options = DockerOptions::new(&socket, state.path());
        options.image = Some(IMAGE.into());
        change(&mut options);
        Some(Self { client: DockerSandboxClient::new(options), docker, state })
    }

    /// A session, started.
    pub(crate) async fn start(&self, request: CreateRequest) -> Arc<dyn SandboxSession> {
        let session = self.client.create(request).await.unwrap();
        session.start().await.unwrap();
        session
    }

    /// How many containers there are of this session.
    pub(crate) async fn containers(&self, session: &str) -> usize {
        let filters = [("label".to_owned(), vec![format!("dev.mooring.session={session}")])].into();
        let options = bollard::query_parameters::ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..Default::default()
        };
        self.docker.list_containers(Some(options)).await.unwrap().len()
    }
}

pub(crate) fn request() -> CreateRequest {
    use std::hash::{BuildHasher as _, RandomState};
    let number = RandomState::new().hash_one(std::process::id());
    CreateRequest { session_id: format!("t{number:016x}"), manifest: Manifest::default(), workspace: None }
}

pub(crate) async fn sh(session: &dyn SandboxSession, line: &str) -> ExecResult {
    session.exec(ExecRequest::shell(line).timeout(SOON)).await.unwrap()
}

/// A line's output, which must succeed and say nothing on standard error.
pub(crate) async fn out(session: &dyn SandboxSession, line: &str) -> String {
    let result = sh(session, line).await;
    assert_eq!((result.outcome, result.stderr.text().as_str()), (Outcome::Exited { code: 0 }, ""), "{line}");
    result.stdout.text()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
