//! How a local session's supervisor is started: the running program itself, under another name.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Duration;

use mooring_sandbox::{BoxFuture, SandboxError};
use mooring_supervisor::{Level, Limits, Setup};
use mooring_supervisor_client::{End, Launch, Launched, Transport, gone};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::client::{BACKEND, Stored};

#[derive(Debug)]
pub(crate) struct LocalLaunch {
    pub(crate) id: String,
    pub(crate) stored: Stored,
    pub(crate) limits: Limits,
}

impl Launch for LocalLaunch {
    fn launch(&self) -> BoxFuture<'_, Result<Launched, SandboxError>> {
        Box::pin(async move {
            let setup = Setup {
                session: self.id.clone(),
                level: self.stored.isolation,
                workspace: self.stored.workspace.clone(),
                private: self.stored.private,
                root: self.stored.root.clone(),
                users: self.stored.users.clone(),
                groups: self.stored.groups.clone(),
                environment: self.stored.environment.clone(),
                limits: self.limits,
            };
            let level = match self.stored.isolation {
                Level::Namespaces => "namespaces",
                Level::Container => return Err(not_local()),
                Level::None => "none",
            };
            let transport = start_supervisor(&self.id)?;
            Ok(Launched { transport, setup, level: level.into(), mechanisms: BTreeMap::new() })
        })
    }

    fn closed_network(&self) -> bool {
        self.stored.isolation == Level::Namespaces
    }
}

/// Containers are another backend's.
fn not_local() -> SandboxError {
    SandboxError::Unsupported {
        operation: "isolation by a container engine".into(),
        backend: BACKEND.into(),
        reason: "the docker sandbox does that".into(),
    }
}

/// Starts a supervisor that waits to be told what to do.
pub(crate) fn start_supervisor(session: &str) -> Result<Transport, SandboxError> {
    let fail = |what: &str, error: std::io::Error| gone(session, format!("cannot {what}: {error}"));
    let (ours, theirs) = StdUnixStream::pair().map_err(|error| fail("make a socket", error))?;
    ours.set_nonblocking(true).map_err(|error| fail("make a socket", error))?;
    let mut command = Command::from(mooring_supervisor::command());
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| fail("start the supervisor", error))?;
    // With `command` goes our copy of the supervisor's end: from here on its death is an end of file.
    drop(command);
    let stream = UnixStream::from_std(ours).map_err(|error| fail("make a socket", error))?;
    let (reader, writer) = stream.into_split();
    Ok(Transport { reader: Box::new(reader), writer: Box::new(writer), end: Box::new(Monitor(child)) })
}

/// The process that was started, outside of the sandbox.
struct Monitor(Child);

impl End for Monitor {
    fn wait(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // An error means that it is gone already.
            let _ = self.0.wait().await;
        })
    }

    fn force(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Its death takes the first process inside with it, and that everything else.
            let _ = self.0.kill().await;
        })
    }

    fn last_words(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let mut said = String::new();
            if let Some(stderr) = self.0.stderr.take() {
                // It is as good as dead; what it said is a help, not a need.
                let mut stderr = stderr.take(4096);
                let read = stderr.read_to_string(&mut said);
                let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
            }
            said
        })
    }
}
