//! How a local session's supervisor is started: the running program itself, under another name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mooring_sandbox::{BoxFuture, HostWorkspace, SandboxError, Serving, Storage};
use mooring_supervisor::{DOOR, LOCK, Level, Limits, Linger, MountPoint, Setup, is_root, names_on_disk};
use mooring_supervisor_client::{End, Launch, Launched, Transport, gone};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
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
    /// Who serves what is mounted.
    pub(crate) storage: Option<Arc<dyn Storage>>,
    /// Where the devices of the supervisor that was started come out.
    pub(crate) devices: Mutex<Option<StdUnixStream>>,
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
            grants: self.stored.grants.clone(),
            limits: self.limits,
            linger,
            mounts: self
                .stored
                .mounts
                .iter()
                .map(|mount| MountPoint { path: mount.path.clone(), read_only: mount.read_only })
                .collect(),
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
            if let Some(storage) = &self.storage {
                for mount in &self.stored.mounts {
                    storage.check(mount)?;
                }
            }
            let (outlet, devices) = if self.stored.mounts.is_empty() {
                (None, None)
            } else {
                let pair = StdUnixStream::pair();
                let (ours, theirs) =
                    pair.map_err(|error| gone(&self.id, format!("cannot make a socket: {error}")))?;
                (Some(theirs), Some(ours))
            };
            *self.devices.lock().unwrap_or_else(PoisonError::into_inner) = devices;
            Ok(self.launched(start_supervisor(&self.id, held, outlet)?, layers))
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
        let mounts = stored.mounts.iter().map(|mount| PathBuf::from(&mount.path)).collect();
        Some(HostWorkspace { layers, users, groups, mounts })
    }

    fn closed_network(&self) -> bool {
        self.stored.isolation == Level::Namespaces
    }

    fn storage(&self) -> Option<&dyn Storage> {
        self.storage.as_deref()
    }

    fn serve_mounts(&self) -> BoxFuture<'_, Result<Vec<Box<dyn Serving>>, SandboxError>> {
        Box::pin(async move {
            let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (Some(devices), Some(storage)) = (devices, &self.storage) else { return Ok(Vec::new()) };
            let (id, mounts, storage) = (self.id.clone(), self.stored.mounts.clone(), Arc::clone(storage));
            let serve = move || -> Result<Vec<Box<dyn Serving>>, SandboxError> {
                let receive = || {
                    receive(&devices).map_err(|error| gone(&id, format!("its mounts are missing: {error}")))
                };
                mounts.iter().map(|mount| storage.serve(&id, mount, receive()?)).collect()
            };
            // The kernel and the server greet each other, which may block.
            let served = tokio::task::spawn_blocking(serve).await;
            served.map_err(|error| gone(&self.id, format!("its mounts cannot be served: {error}")))?
        })
    }
}

/// Starts a supervisor that waits to be told what to do.
///
/// `held` goes with it; devices of mounts come out at the other end of `outlet`.
pub(crate) fn start_supervisor(
    session: &str,
    held: Option<File>,
    outlet: Option<StdUnixStream>,
) -> Result<Transport, SandboxError> {
    let fail = |what: &str, error: std::io::Error| gone(session, format!("cannot {what}: {error}"));
    let (ours, theirs) = StdUnixStream::pair().map_err(|error| fail("make a socket", error))?;
    ours.set_nonblocking(true).map_err(|error| fail("make a socket", error))?;
    let outlet = outlet.map_or_else(Stdio::null, |outlet| Stdio::from(OwnedFd::from(outlet)));
    let mut command = Command::from(mooring_supervisor::command());
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(outlet).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| fail("start the supervisor", error))?;
    // With `command` goes our copy of the supervisor's end: from here on its death is an end of file.
    drop(command);
    let stream = UnixStream::from_std(ours).map_err(|error| fail("make a socket", error))?;
    Ok(transport(stream, Box::new(Monitor { child, _held: held })))
}

/// The next device that a supervisor sent. It has sent them all before it said that it is up.
fn receive(devices: &StdUnixStream) -> std::io::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(devices, &mut [std::io::IoSliceMut::new(&mut byte)], &mut message, flags)?;
    let mut fds = message.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.next().and_then(|mut fds| fds.next()).ok_or_else(|| ErrorKind::UnexpectedEof.into())
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
