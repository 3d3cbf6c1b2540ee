//! How a local session's supervisor is started: the running program itself, under another name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use mooring_sandbox::{BoxFuture, HostWorkspace, SandboxError};
use mooring_supervisor::{DOOR, LOCK, Level, Limits, Linger, Setup, is_root, names_on_disk};
use mooring_supervisor_client::{End, Launch, Launched, Transport, gone};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::client::Stored;
use crate::{layers, store};

#[derive(Debug)]
pub(crate) struct LocalLaunch {
    pub(crate) id: String,
    pub(crate) stored: Stored,
    pub(crate) limits: Limits,
    /// The session's own directory, whose door leads to a supervisor that lives on.
    pub(crate) folder: PathBuf,
    pub(crate) linger: Option<Duration>,
    /// Where layers lie.
    pub(crate) state_dir: PathBuf,
}

impl LocalLaunch {
    fn launched(&self, transport: Transport, layers: Vec<PathBuf>) -> Launched {
        let linger = self
            .linger
            .map(|grace| Linger { folder: self.folder.clone(), grace_ms: grace.as_millis() as u64 });
        let setup = Setup {
            session: self.id.clone(),
            level: self.stored.isolation,
            workspace: self.stored.workspace.clone(),
            layers,
            private: self.stored.private,
            root: self.stored.root.clone(),
            users: self.stored.users.clone(),
            groups: self.stored.groups.clone(),
            environment: self.stored.environment.clone(),
            limits: self.limits,
            linger,
        };
        let level = match self.stored.isolation {
            Level::Namespaces => "namespaces",
            // Which the supervisor refuses: this host is no container.
            Level::Container => "container",
            Level::None => "none",
        };
        Launched { transport, setup, level: level.into(), mechanisms: BTreeMap::new() }
    }

    /// The stream to a supervisor that lives on. Through the directory's descriptor, since the address of a socket
    /// must be short, and a path may be long.
    async fn door(&self) -> std::io::Result<UnixStream> {
        let folder = std::fs::File::open(&self.folder)?;
        UnixStream::connect(format!("/proc/self/fd/{}/{DOOR}", folder.as_raw_fd())).await
    }
}

impl Launch for LocalLaunch {
    fn launch(&self) -> BoxFuture<'_, Result<Launched, SandboxError>> {
        Box::pin(async move {
            if self.linger.is_some() {
                store::make_folder(&self.folder)?;
            }
            // From here on nobody freezes what is about to be written to.
            let held = if self.stored.private { layers::hold(&self.folder)? } else { None };
            let layers = layers::paths(&self.state_dir, &self.folder)?;
            Ok(self.launched(start_supervisor(&self.id, held)?, layers))
        })
    }

    fn attach(&self) -> BoxFuture<'_, Result<Option<Launched>, SandboxError>> {
        Box::pin(async move {
            match self.door().await {
                Ok(stream) => {
                    let end = Lock(self.folder.join(LOCK));
                    // It was told what to set up when it was started.
                    Ok(Some(self.launched(transport(stream, Box::new(end)), Vec::new())))
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                    Ok(None)
                }
                Err(error) => Err(gone(&self.id, format!("cannot connect to its supervisor: {error}"))),
            }
        })
    }

    fn host_workspace(&self) -> Option<HostWorkspace> {
        let stored = &self.stored;
        if stored.many_users() && !is_root() {
            // They are others' here, too, and not to be read.
            return None;
        }
        let (users, groups) = if stored.isolation == Level::Namespaces && is_root() {
            let metadata = std::fs::metadata(&stored.workspace).ok()?;
            names_on_disk(&stored.users, &stored.groups, (metadata.uid(), metadata.gid()))
        } else {
            Default::default()
        };
        let mut layers = vec![stored.workspace.clone()];
        layers.extend(layers::paths(&self.state_dir, &self.folder).ok()?);
        Some(HostWorkspace { layers, users, groups })
    }

    fn closed_network(&self) -> bool {
        self.stored.isolation == Level::Namespaces
    }
}

/// Starts a supervisor that waits to be told what to do.
///
/// `held` goes with it.
pub(crate) fn start_supervisor(session: &str, held: Option<File>) -> Result<Transport, SandboxError> {
    let fail = |what: &str, error: std::io::Error| gone(session, format!("cannot {what}: {error}"));
    let (ours, theirs) = StdUnixStream::pair().map_err(|error| fail("make a socket", error))?;
    ours.set_nonblocking(true).map_err(|error| fail("make a socket", error))?;
    let mut command = Command::from(mooring_supervisor::command());
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| fail("start the supervisor", error))?;
    // With `command` goes our copy of the supervisor's end: from here on its death is an end of file.
    drop(command);
    let stream = UnixStream::from_std(ours).map_err(|error| fail("make a socket", error))?;
    Ok(transport(stream, Box::new(Monitor { child, _held: held })))
}

fn transport(stream: UnixStream, end: Box<dyn End>) -> Transport {
    let (reader, writer) = stream.into_split();
    Transport { reader: Box::new(reader), writer: Box::new(writer), end }
}

/// The lock of a supervisor that another process started. Held until nothing of it is left.
struct Lock(PathBuf);

impl End for Lock {
    fn wait(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while let Ok(lock) = std::fs::File::open(&self.0)
                && matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock))
            {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    }

    fn force(&mut self) -> BoxFuture<'_, ()> {
        // It is nobody's child here; that it did not end is told.
        Box::pin(std::future::ready(()))
    }

    fn last_words(&mut self) -> BoxFuture<'_, String> {
        Box::pin(std::future::ready(String::new()))
    }
}

/// The process that was started, outside of the sandbox.
struct Monitor {
    child: Child,
    /// What nobody may take meanwhile.
    _held: Option<File>,
}

impl End for Monitor {
    fn wait(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // An error means that it is gone already.
            let _ = self.child.wait().await;
        })
    }

    fn force(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Its death takes the first process inside with it, and that everything else.
            let _ = self.child.kill().await;
        })
    }

    fn last_words(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let mut said = String::new();
            if let Some(stderr) = self.child.stderr.take() {
                // It is as good as dead; what it said is a help, not a need.
                let mut stderr = stderr.take(4096);
                let read = stderr.read_to_string(&mut said);
                let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
            }
            said
        })
    }
}
