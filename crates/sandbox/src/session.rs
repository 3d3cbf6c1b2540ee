//! A sandbox session: one isolated workspace and the commands in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Access, ArchiveReader, ArchiveWriter, BoxFuture, Egress, ExecRequest, ExecResult, FileStat, MountFailure,
    Ports, Process, SandboxError, SessionState, WriteOptions, collect,
};

/// What isolation a session really has, as found out when it started. Recorded with every session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// `namespaces`, `container`, `vm`, … or `none`.
    pub level: String,
    /// Each mechanism and its state: `network: none`, `seccomp: on`, `memory: cgroup v1, 2147483648`, ….
    pub mechanisms: BTreeMap<String, String>,
}

/// Where a workspace lies on this host, for whoever reads it faster there than through the sandbox.
///
/// It is only read: what runs in the sandbox may change it at any moment, and nothing that is found in it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostWorkspace {
    /// Its directories, the highest layer first; more than one where it is an overlay of several.
    pub layers: Vec<PathBuf>,
    /// Names of the manifest's users by their numbers on the disk. Whoever is not in it is the default user.
    pub users: BTreeMap<u32, String>,
    /// The same of groups.
    pub groups: BTreeMap<u32, String>,
    /// Where storage is mounted inside: no part of what is kept of the workspace.
    pub mounts: Vec<PathBuf>,
}

/// How much longer than its own deadline the harness waits for a command, before it calls the sandbox lost.
const TRANSPORT_GRACE: Duration = Duration::from_secs(15);

/// One sandbox. Every method is safe to call concurrently.
///
/// Paths are absolute in the sandbox or relative to the workspace root. File operations stay within the root and
/// refuse symbolic links that leave it.
pub trait SandboxSession: Send + Sync + std::fmt::Debug {
    /// The session's id.
    fn id(&self) -> &str;

    /// The workspace's root inside the sandbox: absolute, normalised.
    fn root(&self) -> &str;

    /// What another process needs to resume this session: plain data, without secrets.
    fn state(&self) -> SessionState;

    /// The isolation achieved. `None` before the first start.
    fn isolation(&self) -> Option<Isolation>;

    /// Where the workspace lies on this host, running or not. `None`: it does not, or this process cannot read it.
    fn host_workspace(&self) -> Option<HostWorkspace> {
        None
    }

    /// Starts the sandbox. On a running one, does nothing.
    fn start(&self) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Ends every process. The workspace stays, and `start` brings the session back.
    fn stop(&self) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Starts a command.
    fn spawn(&self, request: ExecRequest) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>>;

    /// A command by its number ([`Process::id`]), whoever started it. A client that comes back to a session that
    /// lived on reads on from the cursor that it had, and has lost nothing.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] where the session holds no such command, or not any more.
    fn process(&self, number: u64) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        let error = SandboxError::Unsupported {
            operation: format!("finding command {number} again"),
            backend: self.state().backend,
            reason: "its commands belong to the process that started them".into(),
        };
        Box::pin(std::future::ready(Err(error)))
    }

    /// Runs a command to its end. Two deadlines guard it: the sandbox's own, and this side's.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecResult, SandboxError>> {
        Box::pin(async move {
            let deadline = request.timeout.map(|timeout| timeout + TRANSPORT_GRACE);
            let process = self.spawn(request).await?;
            let result = collect(process.as_ref(), deadline).await;
            process.release().await.ok();
            result
        })
    }

    /// A file's content.
    ///
    /// # Errors
    /// [`SandboxError::File`] where it is larger than `max_bytes`; nothing is returned in part.
    fn read<'a>(&'a self, path: &'a str, max_bytes: u64) -> BoxFuture<'a, Result<Bytes, SandboxError>>;

    /// Writes a file as a whole.
    fn write<'a>(
        &'a self,
        path: &'a str,
        data: Bytes,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<(), SandboxError>>;

    /// Renames within the workspace.
    ///
    /// # Errors
    /// [`SandboxError::AlreadyExists`] where something is at `to`.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), SandboxError>>;

    /// A directory's entries, by name.
    fn list<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>>;

    /// Makes a directory, with `parents` its missing parents too and no error where it exists.
    fn mkdir<'a>(&'a self, path: &'a str, parents: bool) -> BoxFuture<'a, Result<(), SandboxError>>;

    /// Removes a file or an empty directory, with `recursive` a whole tree.
    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> BoxFuture<'a, Result<(), SandboxError>>;

    /// A path's metadata; a symbolic link's own.
    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileStat, SandboxError>>;

    /// The metadata of many paths, in their order. A backend that can look at many in one step does.
    fn stat_all<'a>(&'a self, paths: &'a [String]) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        Box::pin(async move {
            let mut files = Vec::with_capacity(paths.len());
            for path in paths {
                files.push(self.stat(path).await?);
            }
            Ok(files)
        })
    }

    /// Unpacks a tar stream below `path`, which must exist. Members keep their modes and times; owners are by
    /// name where the sandbox knows it, else the session's user. Absolute names, `..`, devices and what would
    /// pass through a link that leaves the workspace are refused before they are written.
    fn unpack<'a>(&'a self, path: &'a str, archive: ArchiveReader)
    -> BoxFuture<'a, Result<(), SandboxError>>;

    /// Writes the workspace as a tar stream, without the paths in `without` (relative to the root).
    fn persist<'a>(
        &'a self,
        archive: ArchiveWriter,
        without: &'a [String],
    ) -> BoxFuture<'a, Result<(), SandboxError>>;

    /// Replaces the workspace by a tar stream made with [`SandboxSession::persist`].
    fn restore(&self, archive: ArchiveReader) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Connections to servers inside. `None`: the backend has no way in.
    fn ports(&self) -> Option<&dyn Ports> {
        None
    }

    /// The way out, to be watched by the caller. `None`: the backend cannot offer one that is the only one.
    fn egress(&self) -> Option<&dyn Egress> {
        None
    }

    /// Takes leave of a sandbox that lives on: what this process does for it ends, and [`SandboxSession::accesses`] then
    /// tells the last of it. Nothing can be asked of this session any more.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// What went out, or was refused, and is over, since this was asked last. Whoever runs the session asks often, and
    /// records it.
    fn accesses(&self) -> Vec<Access> {
        Vec::new()
    }

    /// What its mounts could not do since this was asked last.
    fn mount_failures(&self) -> Vec<MountFailure> {
        Vec::new()
    }
}
