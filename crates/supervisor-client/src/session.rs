//! A session, whatever its supervisor runs in.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{
    ArchiveReader, ArchiveWriter, BoxFuture, ByteStream, CommandLine, Egress, EgressHandler, ExecRequest,
    FileStat, HostWorkspace, Isolation, MountFailure, Ports, Process, SandboxError, SandboxSession, Serving,
    SessionState, Stdin, Storage, WriteOptions,
};
use mooring_supervisor::wire::{Call, Input, Reply, Spawn};
use mooring_supervisor::{MAX_PAYLOAD, Ready, Setup};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::connection::{CALL, Connection, Transport};
use crate::errors::gone;
use crate::process::SupervisedProcess;
use crate::{channel, egress};

/// How long one step of an archive, or the removal of a tree, may take.
const LONG: Duration = Duration::from_mins(10);

/// Paths in one question, which is answered in one frame.
const STATS_AT_ONCE: usize = 256;

/// How long a session that another process starts or ends just now is waited for.
const TURN: Duration = Duration::from_secs(20);

/// How a backend starts the supervisor of one session.
pub trait Launch: Send + Sync + std::fmt::Debug {
    /// Starts it. What it should set up is told to it afterwards.
    fn launch(&self) -> BoxFuture<'_, Result<Launched, SandboxError>>;

    /// A stream to the supervisor that an earlier client left running, if there is one. It says hello unasked.
    fn attach(&self) -> BoxFuture<'_, Result<Option<Launched>, SandboxError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Where the workspace lies on this host, where this process can read it there.
    fn host_workspace(&self) -> Option<HostWorkspace> {
        None
    }

    /// Whether a sandbox has no other way out than [`Egress`].
    fn closed_network(&self) -> bool;

    /// Who serves what is mounted in it.
    fn storage(&self) -> Option<&dyn Storage> {
        None
    }

    /// Called when a supervisor that was launched is up. Serves what is mounted in it, until what it gives is dropped.
    fn serve_mounts(&self) -> BoxFuture<'_, Result<Vec<Box<dyn Serving>>, SandboxError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// A supervisor that runs.
#[derive(Debug)]
pub struct Launched {
    /// The stream to it.
    pub transport: Transport,
    /// What it should set up.
    pub setup: Setup,
    /// The level of isolation, for [`Isolation::level`].
    pub level: String,
    /// What the backend itself enforces, beside what the supervisor tells.
    pub mechanisms: BTreeMap<String, String>,
}

/// A supervisor that is connected, with the level and the mechanisms that its backend told.
type Reached = (Connection, Ready, String, BTreeMap<String, String>);

/// A session that is served by a supervisor.
#[derive(Debug)]
pub struct SupervisedSession {
    state: SessionState,
    root: String,
    launch: Box<dyn Launch>,
    /// Held while starting or stopping, so that these do not cross.
    changing: tokio::sync::Mutex<()>,
    running: Mutex<Option<Arc<Connection>>>,
    isolation: Mutex<Option<Isolation>>,
    egress: Mutex<Option<Arc<dyn EgressHandler>>>,
    /// Where it is served inside.
    egress_address: Mutex<Ipv4Addr>,
    /// What is mounted.
    mounts: Mutex<Vec<Box<dyn Serving>>>,
}

impl SupervisedSession {
    /// A session that is not started. `root` is the workspace's path inside.
    pub fn new(state: SessionState, root: String, launch: Box<dyn Launch>) -> Self {
        Self {
            state,
            root,
            launch,
            changing: tokio::sync::Mutex::new(()),
            running: Mutex::new(None),
            isolation: Mutex::new(None),
            egress: Mutex::new(None),
            egress_address: Mutex::new(Ipv4Addr::LOCALHOST),
            mounts: Mutex::default(),
        }
    }

    fn connection(&self) -> Result<Arc<Connection>, SandboxError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.clone().ok_or_else(|| gone(&self.state.session_id, "it is not started"))
    }

    async fn call(&self, operation: &'static str, call: Call) -> Result<(Reply, Bytes), SandboxError> {
        self.connection()?.caller.call(operation, call, Bytes::new(), CALL).await
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
        let (connection, ready, level, mut mechanisms) = self.reach().await?;
        let mounts = self.launch.serve_mounts().await?;
        *self.mounts.lock().unwrap_or_else(PoisonError::into_inner) = mounts;
        let handler = self.egress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(handler) = handler {
            self.serve_egress(&connection, handler).await?;
        }
        mechanisms.extend(ready.mechanisms);
        let isolation = Isolation { level, mechanisms };
        *self.isolation.lock().unwrap_or_else(PoisonError::into_inner) = Some(isolation);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(connection));
        Ok(())
    }

    async fn serve_egress(
        &self,
        connection: &Connection,
        handler: Arc<dyn EgressHandler>,
    ) -> Result<(), SandboxError> {
        let address = egress::serve(&connection.caller, handler).await?;
        *self.egress_address.lock().unwrap_or_else(PoisonError::into_inner) = address;
        Ok(())
    }

    /// The supervisor that runs already, or else a new one.
    async fn reach(&self) -> Result<Reached, SandboxError> {
        let give_up = tokio::time::Instant::now() + TURN;
        loop {
            if let Some(reached) = self.attach_now().await? {
                return Ok(reached);
            }
            let Launched { transport, setup, level, mechanisms } = self.launch.launch().await?;
            if let Some((connection, ready)) = Connection::start(transport, setup).await? {
                return Ok((connection, ready, level, mechanisms));
            }
            // Somebody else starts it just now, or its end is not over yet.
            if tokio::time::Instant::now() > give_up {
                return Err(gone(&self.state.session_id, "another process holds it and does not answer"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn attach_now(&self) -> Result<Option<Reached>, SandboxError> {
        let Some(Launched { transport, setup, level, mechanisms }) = self.launch.attach().await? else {
            return Ok(None);
        };
        let Some((connection, ready)) = Connection::attach(&self.state.session_id, transport).await? else {
            return Ok(None);
        };
        if ready.limits != setup.limits {
            let reason = "it runs already, with other limits; use the same, or stop it first".into();
            return Err(SandboxError::Invalid { reason });
        }
        Ok(Some((connection, ready, level, mechanisms)))
    }

    async fn stop_now(&self) -> Result<(), SandboxError> {
        let _changing = self.changing.lock().await;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Who waits for one of them could not be killed.
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        match running {
            Some(connection) => connection.stop().await,
            None => match self.attach_now().await? {
                Some((connection, ..)) => connection.stop().await,
                None => Ok(()),
            },
        }
    }

    async fn find(&self, number: u64) -> Result<Arc<dyn Process>, SandboxError> {
        let connection = self.connection()?;
        match connection.caller.call("find", Call::Find { process: number }, Bytes::new(), CALL).await? {
            (Reply::Started { process: number }, _) => Ok(Arc::new(SupervisedProcess { number, connection })),
            (other, _) => Err(SandboxError::Invalid { reason: format!("unexpected answer {other:?}") }),
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
            paced: request.paced,
        });
        match connection.caller.call("spawn", call, payload, CALL).await? {
            (Reply::Started { process: number }, _) => Ok(Arc::new(SupervisedProcess { number, connection })),
            (other, _) => Err(SandboxError::Invalid { reason: format!("unexpected answer {other:?}") }),
        }
    }

    async fn start_job(&self, connection: &Connection, call: Call) -> Result<u64, SandboxError> {
        match connection.caller.call("archive", call, Bytes::new(), CALL).await? {
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
                    let _ = connection.caller.call("archive", Call::Abort { job }, Bytes::new(), LONG).await;
                    return Err(SandboxError::Archive {
                        member: "-".into(),
                        reason: format!("cannot read: {error}"),
                    });
                }
            };
            let bytes = Bytes::copy_from_slice(&buffer[..count]);
            connection.caller.call("unpack", Call::Feed { job }, bytes, LONG).await?;
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
                let (_, bytes) =
                    connection.caller.call("persist", Call::Pull { job }, Bytes::new(), LONG).await?;
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
            let _ = connection.caller.call("archive", Call::Abort { job }, Bytes::new(), LONG).await;
        }
        result
    }
}

impl SandboxSession for SupervisedSession {
    fn id(&self) -> &str {
        &self.state.session_id
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn state(&self) -> SessionState {
        self.state.clone()
    }

    fn isolation(&self) -> Option<Isolation> {
        self.isolation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn host_workspace(&self) -> Option<HostWorkspace> {
        self.launch.host_workspace()
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

    fn process(&self, number: u64) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        Box::pin(self.find(number))
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
            self.connection()?.caller.call("write", call, data, CALL).await.map(drop)
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
        Box::pin(
            async move { self.connection()?.caller.call("remove", call, Bytes::new(), LONG).await.map(drop) },
        )
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileStat, SandboxError>> {
        Box::pin(async move {
            let files = self.files("stat", Call::Stat { paths: vec![path.into()] }).await?;
            files.into_iter().next().ok_or_else(|| SandboxError::NotFound { path: path.into() })
        })
    }

    fn stat_all<'a>(&'a self, paths: &'a [String]) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        Box::pin(async move {
            let mut files = Vec::with_capacity(paths.len());
            for paths in paths.chunks(STATS_AT_ONCE) {
                files.extend(self.files("stat", Call::Stat { paths: paths.to_vec() }).await?);
            }
            if files.len() == paths.len() {
                return Ok(files);
            }
            let reason = format!("it told of {} paths where {} were asked for", files.len(), paths.len());
            Err(SandboxError::Invalid { reason })
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

    fn ports(&self) -> Option<&dyn Ports> {
        Some(self)
    }

    fn mount_failures(&self) -> Vec<MountFailure> {
        self.launch.storage().map(|storage| storage.failures(&self.state.session_id)).unwrap_or_default()
    }

    fn egress(&self) -> Option<&dyn Egress> {
        self.launch.closed_network().then_some(self)
    }
}

impl Ports for SupervisedSession {
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<ByteStream, SandboxError>> {
        Box::pin(async move { channel::connect(&self.connection()?.caller, port).await })
    }
}

impl Egress for SupervisedSession {
    fn serve(&self, handler: Arc<dyn EgressHandler>) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async move {
            // So that a start under way either sees the handler or is over.
            let _changing = self.changing.lock().await;
            if let Ok(connection) = self.connection() {
                self.serve_egress(&connection, Arc::clone(&handler)).await?;
            }
            *self.egress.lock().unwrap_or_else(PoisonError::into_inner) = Some(handler);
            Ok(())
        })
    }

    fn address(&self) -> Ipv4Addr {
        *self.egress_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
