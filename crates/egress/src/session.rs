//! A session with a way out: its commands are told where the proxy is, and whom to trust; the rest is the backend's.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{
    Access, ArchiveReader, ArchiveWriter, BoxFuture, ByteStream, EGRESS_PORT, EgressHandler, ExecRequest,
    FileStat, HostWorkspace, Isolation, MountFailure, Outcome, Ports, Process, SandboxError, SandboxSession,
    SessionState, Stdin, WriteOptions,
};

use crate::egress::{Config, Egress};
use crate::environment::{ca_bundle, environment};
use crate::identity::Identity;
use crate::log::AccessLog;
use crate::manifest::{Asked, Operator};
use crate::policy::{Policy, PolicyError};

/// The file of trusted certificates in the sandbox. Whoever changes it there harms himself alone.
const BUNDLE: &str = "/tmp/moor-certificates.pem";
/// How long placing it may take.
const PLACING: Duration = Duration::from_secs(30);
/// How long connections of a sandbox that has ended may take to end.
const QUIET: Duration = Duration::from_secs(2);
/// How long the last connections of a command that has ended may take to end by themselves, before they are cut.
const SETTLE: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct EgressSession {
    inner: Arc<dyn SandboxSession>,
    state: SessionState,
    egress: Egress,
    log: Arc<AccessLog>,
    /// For each command: the variables that hold phantoms.
    phantoms: Vec<(String, String)>,
    /// Whether commands meet certificates of the session's authority.
    intercepts: bool,
    /// Held while starting, so that a start that returns has placed what commands need.
    started: tokio::sync::Mutex<bool>,
}

impl EgressSession {
    pub(crate) fn new(
        inner: Arc<dyn SandboxSession>,
        state: SessionState,
        policy: Policy,
        asked: &Asked,
        operator: &Operator,
        kept: Option<&Path>,
    ) -> Result<Self, SandboxError> {
        let invalid = |error: PolicyError| SandboxError::Invalid { reason: error.to_string() };
        let identity = match kept {
            Some(path) => Identity::kept(path, &policy.secrets)?,
            None => Identity::new(&policy.secrets).map_err(invalid)?,
        };
        let intercepts = policy.intercepts();
        let log = Arc::new(AccessLog::default());
        let observer = Arc::clone(&log);
        let config = Config {
            policy,
            limits: operator.limits.clone(),
            observer: Arc::new(move |record| observer.add(record)),
            resolver: Arc::clone(&operator.resolver),
            extra_roots: operator.extra_roots.clone(),
        };
        let egress = Egress::known_by(config, &identity).map_err(invalid)?;
        let phantom = |(variable, secret): (&str, &str)| {
            Some((variable.to_owned(), identity.phantoms.get(secret)?.clone()))
        };
        let phantoms = asked.variables().filter_map(phantom).collect();
        Ok(Self { inner, state, egress, log, phantoms, intercepts, started: tokio::sync::Mutex::new(false) })
    }

    /// What a command needs to know.
    fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let address = self.way_out().map_or(Ipv4Addr::LOCALHOST, mooring_sandbox::Egress::address);
        let proxy = format!("http://{address}:{EGRESS_PORT}");
        let variables = environment(&proxy, self.intercepts.then_some(BUNDLE));
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value));
        variables.chain(self.phantoms.iter().cloned())
    }

    /// The backend's way out.
    pub(crate) fn way_out(&self) -> Option<&dyn mooring_sandbox::Egress> {
        self.inner.egress()
    }

    /// What serves it.
    pub(crate) fn handler(&self) -> Arc<dyn EgressHandler> {
        Arc::new(self.egress.clone())
    }

    async fn start_now(&self) -> Result<(), SandboxError> {
        let mut started = self.started.lock().await;
        self.inner.start().await?;
        if self.intercepts && !*started {
            self.place().await?;
        }
        *started = true;
        Ok(())
    }

    /// Puts the file of trusted certificates where the variables say.
    async fn place(&self) -> Result<(), SandboxError> {
        let authority = self.egress.authority_pem().to_owned();
        let bundle = tokio::task::spawn_blocking(move || ca_bundle(&authority)).await;
        let bundle = bundle.map_err(|error| SandboxError::Invalid { reason: error.to_string() })?;
        // In one step: another client's commands may read it at this moment.
        let script = format!("umask 022; cat >{BUNDLE}.$$ && exec mv -f {BUNDLE}.$$ {BUNDLE}");
        let mut request = ExecRequest::argv(["/bin/sh", "-c", &script]);
        request.stdin = Stdin::Bytes(Bytes::from(bundle));
        let result = self.inner.exec(request.timeout(PLACING)).await?;
        if result.outcome == (Outcome::Exited { code: 0 }) {
            return Ok(());
        }
        let reason = format!("the sandbox could not write it: {}", result.stderr.text().trim());
        Err(SandboxError::File { operation: "write", path: BUNDLE.into(), reason })
    }

    async fn stop_now(&self) -> Result<(), SandboxError> {
        let mut started = self.started.lock().await;
        *started = false;
        self.inner.stop().await?;
        // Its connections end with it, and then their records are made.
        self.egress.quiet(QUIET).await;
        Ok(())
    }

    async fn leave_now(&self) {
        self.inner.leave().await;
        self.egress.quiet(SETTLE).await;
        self.egress.leave();
        self.egress.quiet(QUIET).await;
    }
}

impl EgressHandler for Egress {
    fn connection(&self, stream: ByteStream) -> BoxFuture<'_, ()> {
        Box::pin(self.serve(stream))
    }
}

impl SandboxSession for EgressSession {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn root(&self) -> &str {
        self.inner.root()
    }

    fn state(&self) -> SessionState {
        self.state.clone()
    }

    fn isolation(&self) -> Option<Isolation> {
        let mut isolation = self.inner.isolation()?;
        isolation.mechanisms.insert("egress".into(), self.egress.describe());
        Some(isolation)
    }

    fn host_workspace(&self) -> Option<HostWorkspace> {
        self.inner.host_workspace()
    }

    fn start(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.start_now())
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.stop_now())
    }

    fn spawn(&self, mut request: ExecRequest) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        for (name, value) in self.variables() {
            request.env.entry(name).or_insert(value);
        }
        self.inner.spawn(request)
    }

    fn process(&self, number: u64) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        self.inner.process(number)
    }

    fn read<'a>(&'a self, path: &'a str, max_bytes: u64) -> BoxFuture<'a, Result<Bytes, SandboxError>> {
        self.inner.read(path, max_bytes)
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: Bytes,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.inner.write(path, data, options)
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.inner.rename(from, to)
    }

    fn list<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        self.inner.list(path)
    }

    fn mkdir<'a>(&'a self, path: &'a str, parents: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.inner.mkdir(path, parents)
    }

    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.inner.remove(path, recursive)
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileStat, SandboxError>> {
        self.inner.stat(path)
    }

    fn stat_all<'a>(&'a self, paths: &'a [String]) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        self.inner.stat_all(paths)
    }

    fn unpack<'a>(
        &'a self,
        path: &'a str,
        archive: ArchiveReader,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.inner.unpack(path, archive)
    }

    fn persist<'a>(
        &'a self,
        archive: ArchiveWriter,
        without: &'a [String],
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.inner.persist(archive, without)
    }

    fn restore(&self, archive: ArchiveReader) -> BoxFuture<'_, Result<(), SandboxError>> {
        self.inner.restore(archive)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        self.inner.ports()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.leave_now())
    }

    fn mount_failures(&self) -> Vec<MountFailure> {
        self.inner.mount_failures()
    }

    fn accesses(&self) -> Vec<Access> {
        self.log.take()
    }
}
