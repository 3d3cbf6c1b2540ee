//! A local session.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{
    ArchiveReader, ArchiveWriter, BoxFuture, CommandLine, ExecRequest, FileStat, HostWorkspace, Isolation,
    Process, SandboxError, SandboxSession, SessionState, Stdin, WriteOptions,
};
use mooring_supervisor::wire::{Call, Input, Reply, Spawn};
use mooring_supervisor::{Level, Limits, MAX_PAYLOAD, Setup, is_root, names_on_disk};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::Stored;
use crate::connection::{CALL, Connection};
use crate::errors::{BACKEND, gone};
use crate::process::LocalProcess;

/// How long one step of an archive, or the removal of a tree, may take.
const LONG: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(crate) struct LocalSession {
    id: String,
    stored: Stored,
    limits: Limits,
    /// Held while starting or stopping, so that these do not cross.
    changing: tokio::sync::Mutex<()>,
    running: Mutex<Option<Arc<Connection>>>,
    isolation: Mutex<Option<Isolation>>,
}

impl LocalSession {
    pub(crate) fn new(id: String, stored: Stored, limits: Limits) -> Self {
        Self {
            id,
            stored,
            limits,
            changing: tokio::sync::Mutex::new(()),
            running: Mutex::new(None),
            isolation: Mutex::new(None),
        }
    }

    fn connection(&self) -> Result<Arc<Connection>, SandboxError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.clone().ok_or_else(|| gone(&self.id, "it is not started"))
    }

    async fn call(&self, operation: &'static str, call: Call) -> Result<(Reply, Bytes), SandboxError> {
        self.connection()?.call(operation, call, &[], CALL).await
    }

    async fn files(&self, operation: &'static str, call: Call) -> Result<Vec<FileStat>, SandboxError> {
        match self.call(operation, call).await? {
            (Reply::Files { files }, _) => Ok(files),
            (other, _) => Err(SandboxError::Invalid { reason: format!("unexpected answer {other:?}") }),
        }
    }

    async fn start_now(&self) -> Result<(), SandboxError> {
        let _changing = self.changing.lock().await;
        if self.connection().is_ok_and(|connection| connection.alive()) {
            return Ok(());
        }
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
        let (connection, ready) = Connection::start(setup).await?;
        let level = match self.stored.isolation {
            Level::Namespaces => "namespaces",
            Level::None => "none",
        };
        let isolation = Isolation { level: level.into(), mechanisms: ready.mechanisms };
        *self.isolation.lock().unwrap_or_else(PoisonError::into_inner) = Some(isolation);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(connection));
        Ok(())
    }

    async fn stop_now(&self) -> Result<(), SandboxError> {
        let _changing = self.changing.lock().await;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        match running {
            Some(connection) => connection.stop().await,
            None => Ok(()),
        }
    }

    async fn spawn_now(&self, request: ExecRequest) -> Result<Arc<dyn Process>, SandboxError> {
        let connection = self.connection()?;
        if let CommandLine::Argv(argv) = &request.command
            && argv.is_empty()
        {
            return Err(SandboxError::Invalid { reason: "a command needs a program".into() });
        }
        let (stdin, payload) = match request.stdin {
            Stdin::Null => (Input::Null, Bytes::new()),
            Stdin::Bytes(bytes) => (Input::Bytes, bytes),
            Stdin::Open => (Input::Open, Bytes::new()),
        };
        let call = Call::Spawn(Spawn {
            command: request.command,
            cwd: request.cwd,
            env: request.env,
            user: request.user,
            stdin,
            tty: request.tty,
            // Rounded up: a deadline is not earlier than asked for.
            timeout_ms: request.timeout.map(|limit| limit.as_micros().div_ceil(1000) as u64),
            output_limit: request.output_limit as u64,
        });
        match connection.call("spawn", call, &payload, CALL).await? {
            (Reply::Started { process: number }, _) => Ok(Arc::new(LocalProcess { number, connection })),
            (other, _) => Err(SandboxError::Invalid { reason: format!("unexpected answer {other:?}") }),
        }
    }

    async fn start_job(&self, connection: &Connection, call: Call) -> Result<u64, SandboxError> {
        match connection.call("archive", call, &[], CALL).await? {
            (Reply::Job { job }, _) => Ok(job),
            (other, _) => Err(SandboxError::Invalid { reason: format!("unexpected answer {other:?}") }),
        }
    }

    async fn feed(&self, call: Call, mut archive: ArchiveReader) -> Result<(), SandboxError> {
        let connection = self.connection()?;
        let job = self.start_job(&connection, call).await?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match archive.read(&mut buffer).await {
                Ok(count) => count,
                Err(error) => {
                    let _ = connection.call("archive", Call::Abort { job }, &[], LONG).await;
                    return Err(SandboxError::Archive {
                        member: "-".into(),
                        reason: format!("cannot read: {error}"),
                    });
                }
            };
            connection.call("unpack", Call::Feed { job }, &buffer[..count], LONG).await?;
            if count == 0 {
                return Ok(());
            }
        }
    }

    async fn persist_now(&self, mut archive: ArchiveWriter, without: &[String]) -> Result<(), SandboxError> {
        let connection = self.connection()?;
        let job = self.start_job(&connection, Call::Persist { without: without.to_vec() }).await?;
        let written = async {
            loop {
                let (_, bytes) = connection.call("persist", Call::Pull { job }, &[], LONG).await?;
                let written =
                    if bytes.is_empty() { archive.shutdown().await } else { archive.write_all(&bytes).await };
                written.map_err(|error| SandboxError::Archive {
                    member: "-".into(),
                    reason: format!("cannot write: {error}"),
                })?;
                if bytes.is_empty() {
                    return Ok(());
                }
            }
        };
        let result = written.await;
        if result.is_err() {
            let _ = connection.call("archive", Call::Abort { job }, &[], LONG).await;
        }
        result
    }
}

impl SandboxSession for LocalSession {
    fn id(&self) -> &str {
        &self.id
    }

    fn root(&self) -> &str {
        &self.stored.root
    }

    fn state(&self) -> SessionState {
        // Plain strings and maps: that always has a JSON form.
        let data = serde_json::to_value(&self.stored).unwrap_or_default();
        SessionState { backend: BACKEND.into(), session_id: self.id.clone(), data }
    }

    fn isolation(&self) -> Option<Isolation> {
        self.isolation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn host_workspace(&self) -> Option<HostWorkspace> {
        let stored = &self.stored;
        let (users, groups) = if stored.isolation == Level::Namespaces && is_root() {
            let metadata = std::fs::metadata(&stored.workspace).ok()?;
            names_on_disk(&stored.users, &stored.groups, (metadata.uid(), metadata.gid()))
        } else {
            Default::default()
        };
        Some(HostWorkspace { layers: vec![stored.workspace.clone()], users, groups })
    }

    fn start(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.start_now())
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.stop_now())
    }

    fn spawn(&self, request: ExecRequest) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        Box::pin(self.spawn_now(request))
    }

    fn read<'a>(&'a self, path: &'a str, max_bytes: u64) -> BoxFuture<'a, Result<Bytes, SandboxError>> {
        Box::pin(async move {
            let call = Call::Read { path: path.into(), max_bytes };
            self.call("read", call).await.map(|(_, data)| data)
        })
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: Bytes,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async move {
            if data.len() > MAX_PAYLOAD {
                let reason = format!("{} bytes are more than the {MAX_PAYLOAD} of one write", data.len());
                return Err(SandboxError::File { operation: "write", path: path.into(), reason });
            }
            let call = Call::Write { path: path.into(), options };
            self.connection()?.call("write", call, &data, CALL).await.map(drop)
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), SandboxError>> {
        let call = Call::Rename { from: from.into(), to: to.into() };
        Box::pin(async move { self.call("rename", call).await.map(drop) })
    }

    fn list<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        Box::pin(self.files("list", Call::List { path: path.into() }))
    }

    fn mkdir<'a>(&'a self, path: &'a str, parents: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        let call = Call::Mkdir { path: path.into(), parents };
        Box::pin(async move { self.call("mkdir", call).await.map(drop) })
    }

    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        let call = Call::Remove { path: path.into(), recursive };
        Box::pin(async move { self.connection()?.call("remove", call, &[], LONG).await.map(drop) })
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileStat, SandboxError>> {
        Box::pin(async move {
            let files = self.files("stat", Call::Stat { path: path.into() }).await?;
            files.into_iter().next().ok_or_else(|| SandboxError::NotFound { path: path.into() })
        })
    }

    fn unpack<'a>(
        &'a self,
        path: &'a str,
        archive: ArchiveReader,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(self.feed(Call::Unpack { path: path.into() }, archive))
    }

    fn persist<'a>(
        &'a self,
        archive: ArchiveWriter,
        without: &'a [String],
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(self.persist_now(archive, without))
    }

    fn restore(&self, archive: ArchiveReader) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.feed(Call::Restore, archive))
    }
}
