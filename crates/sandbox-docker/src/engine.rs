//! The engine: found, spoken to in a version that it knows, and its errors in words.

use std::path::{Path, PathBuf};

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use mooring_sandbox::SandboxError;
use tokio::sync::OnceCell;

/// How long one answer of the engine may take, in seconds. Building and pulling answer bit by bit.
const ANSWER: u64 = 60;

/// A connection to the engine, made when it is first needed.
#[derive(Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
    docker: OnceCell<Docker>,
}

impl Engine {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, docker: OnceCell::new() }
    }

    pub(crate) async fn docker(&self) -> Result<&Docker, SandboxError> {
        self.docker.get_or_try_init(|| connect(&self.socket)).await
    }
}

async fn connect(socket: &Path) -> Result<Docker, SandboxError> {
    let path = socket.to_str().unwrap_or_default();
    let connected = match Docker::connect_with_unix(path, ANSWER, API_DEFAULT_VERSION) {
        // The engine's own version where that is older.
        Ok(docker) => docker.negotiate_version().await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| SandboxError::Isolation {
        primitive: "the Docker engine".into(),
        reason: format!("{}: {}", socket.display(), reason(error)),
        hint: "start it (`systemctl start docker`), let this user use its socket (group `docker`), or name another \
               with DOCKER_HOST=unix:///…; `moor doctor` shows whether it answers"
            .into(),
    })
}

/// What the engine refused to do, and why.
pub(crate) fn refused(what: &str, error: Error) -> SandboxError {
    SandboxError::Isolation {
        primitive: what.into(),
        reason: reason(error),
        hint: "see the engine's log (`journalctl -u docker`)".into(),
    }
}

pub(crate) fn reason(error: Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message,
        Error::DockerStreamError { error } => error,
        Error::SocketNotFoundError(_) => "there is no such socket".into(),
        other => {
            // The outermost says little: "client error (Connect)".
            let mut text = other.to_string();
            let mut source = std::error::Error::source(&other);
            while let Some(inner) = source {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                source = inner.source();
            }
            text
        }
    }
}

/// Whether the engine said that there is no such thing.
pub(crate) fn absent(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}
