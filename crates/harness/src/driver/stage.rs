//! Starting the sandbox and staging the workspace.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mooring_capability::workspace_context;
use mooring_journal::event::{
    ContextAdded, Egress, Exposed, MountFailed, SandboxLost, SandboxReady, SandboxRequested,
};
use mooring_journal::{Durability, Event};
use mooring_manifest::Manifest;
use mooring_sandbox::{
    Access, CreateRequest, ExposedPort, MountFailure, Plan, SandboxClient, SandboxError, SandboxSession,
    SessionState, materialise,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Driver, elapsed_ms, json, seat};
use crate::HarnessError;

/// How long the workspace has to say what it says about itself.
const CONTEXT_DEADLINE: Duration = Duration::from_mins(1);

impl Driver<'_> {
    pub(super) async fn start_sandbox(&mut self) -> Result<(), HarnessError> {
        // The run's sandbox is that of the agent that it began with, whoever works in it now.
        let entry = self.state.started.agent["name"].as_str().unwrap_or_default();
        let Some(client) = seat(self.host, &self.run, entry)?.sandbox.clone() else {
            return Err(HarnessError::Missing { run: self.run.clone(), what: "a sandbox".into() });
        };
        let session_id = self.state.sandbox.session_id.clone();
        self.push(Event::SandboxRequested(SandboxRequested {
            session_id: session_id.clone(),
            backend: client.backend_id().into(),
            staged: self.state.sandbox.session.is_some(),
        }))?;
        self.flush(Durability::Power).await?;

        self.close_ports().await;
        let began = self.now();
        let starting = async {
            let (session, staged) = self.bring_up(client.as_ref(), &session_id).await?;
            let ports = self.expose(&session).await?;
            Ok::<_, SandboxError>((session, staged, ports))
        };
        let brought_up = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Ok(()),
            brought_up = starting => brought_up,
        };
        match brought_up {
            Ok((session, staged, ports)) => {
                let ready = SandboxReady {
                    session_id,
                    state: json(&session.state()),
                    isolation: session.isolation().as_ref().map(json).unwrap_or_default(),
                    staged,
                    ports: ports.iter().map(exposed).collect(),
                    duration_ms: elapsed_ms(began, self.now()),
                };
                self.session = Some(session);
                self.ports = ports;
                self.push(Event::SandboxReady(ready))
            }
            Err(error) => {
                self.push(Event::SandboxLost(SandboxLost { session_id, reason: error.to_string() }))
            }
        }
    }

    /// What the workspace says about itself joins the conversation, once.
    pub(super) async fn add_context(&mut self) -> Result<(), HarnessError> {
        let mut added = ContextAdded { provenance: "sandbox".into(), ..ContextAdded::default() };
        if let Some(session) = &self.session {
            let skills = self.state.agent.capabilities.iter().any(|name| name == "skills");
            let asking = workspace_context(session.as_ref(), skills);
            match tokio::time::timeout(CONTEXT_DEADLINE, asking).await {
                Ok(Ok(context)) => {
                    added.items = context.item.iter().map(json).collect();
                    added.sources = context.sources;
                    added.problems = context.problems;
                }
                Ok(Err(error)) if error.session_lost() => {
                    let session_id = session.id().to_owned();
                    self.session = None;
                    return self
                        .push(Event::SandboxLost(SandboxLost { session_id, reason: error.to_string() }));
                }
                Ok(Err(error)) => added.problems.push(error.to_string()),
                Err(_) => {
                    added.problems.push(format!("the workspace did not answer in {CONTEXT_DEADLINE:?}"));
                }
            }
        }
        self.push(Event::ContextAdded(added))
    }

    /// Opens the ports that the manifest exposes.
    async fn expose(&self, session: &Arc<dyn SandboxSession>) -> Result<Vec<ExposedPort>, SandboxError> {
        let manifest = self.manifest()?;
        let mut ports = Vec::with_capacity(manifest.extension.ports.len());
        for port in manifest.extension.ports {
            ports.push(ExposedPort::open(session, port, None).await?);
        }
        Ok(ports)
    }

    /// Closes them. Their addresses are free when this returns.
    pub(super) async fn close_ports(&mut self) {
        for port in std::mem::take(&mut self.ports) {
            port.close().await;
        }
    }

    fn manifest(&self) -> Result<Manifest, SandboxError> {
        Manifest::from_value(&self.state.started.manifest)
            .map_err(|error| SandboxError::Invalid { reason: error.to_string() })
    }

    /// The session, running and staged; and what was staged now.
    async fn bring_up(
        &self,
        client: &dyn SandboxClient,
        session_id: &str,
    ) -> Result<(Arc<dyn SandboxSession>, Option<Value>), SandboxError> {
        if let Some(state) = &self.state.sandbox.session {
            let state: SessionState =
                Deserialize::deserialize(state).map_err(|error| SandboxError::Gone {
                    session: session_id.into(),
                    reason: format!("its recorded state cannot be read: {error}"),
                })?;
            let session = client.resume(state).await?;
            session.start().await?;
            return Ok((session, None));
        }
        let started = &self.state.started;
        if let Some(parent) = &self.fork_of {
            return self.fork(client, session_id, parent.as_ref()).await.map(|session| (session, None));
        }
        let manifest = self.manifest()?;
        let base = started.manifest_base.clone().unwrap_or_default();
        let plan = plan(client, &manifest, Path::new(&base)).await?;
        let workspace = self.state.sandbox.workspace.as_ref().map(Into::into);
        let request = CreateRequest { session_id: session_id.into(), manifest: manifest.clone(), workspace };
        let session = client.create(request).await?;
        session.start().await?;
        let staged = match &self.host.snapshots {
            Some(store) => store.materialise(&plan, &manifest, session.as_ref(), self.now()).await?,
            None => materialise(&plan, session.as_ref()).await?,
        };
        Ok((session, Some(json(&staged))))
    }
}

/// How much of a workspace's copy may be on its way.
const COPY_BUFFER: usize = 1 << 20;

impl Driver<'_> {
    /// A session that begins with a copy of another's workspace.
    async fn fork(
        &self,
        client: &dyn SandboxClient,
        session_id: &str,
        parent: &dyn SandboxSession,
    ) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        let manifest = self.manifest()?;
        let request = CreateRequest { session_id: session_id.into(), manifest, workspace: None };
        let session = client.create(request).await?;
        session.start().await?;
        let (read, write) = tokio::io::duplex(COPY_BUFFER);
        tokio::try_join!(parent.persist(Box::pin(write), &[]), session.restore(Box::pin(read)))?;
        Ok(session)
    }
}

/// Plans a manifest, beside the async threads: every source file on the host is opened for it.
pub(super) async fn plan(
    client: &dyn SandboxClient,
    manifest: &Manifest,
    base: &Path,
) -> Result<Plan, SandboxError> {
    let (manifest, base) = (manifest.clone(), base.to_path_buf());
    let (support, backend) = (client.support(), client.backend_id());
    client.check(&manifest)?;
    let credentials = client.credentials(&manifest)?;
    let plan = move || Plan::with_credentials(&manifest, &base, &support, backend, &credentials);
    let planned = tokio::task::spawn_blocking(plan).await;
    planned.map_err(|error| SandboxError::Invalid { reason: format!("planning was interrupted: {error}") })?
}

fn exposed(port: &ExposedPort) -> Exposed {
    Exposed { port: port.inside(), address: port.address().to_string() }
}

/// What a mount could not do, as an event.
pub(super) fn mount_failed(session_id: &str, failure: MountFailure) -> Event {
    let MountFailure { mount, operation, path, reason } = failure;
    Event::MountFailed(MountFailed { session_id: session_id.into(), mount, operation, path, reason })
}

/// What went out of a sandbox, as an event.
pub(super) fn egress(session_id: &str, access: Access) -> Event {
    Event::Egress(Box::new(Egress {
        session_id: session_id.into(),
        protocol: access.protocol,
        host: access.host,
        port: access.port,
        method: access.method,
        path: access.path,
        decision: access.decision,
        code: access.code,
        reason: access.reason,
        secrets: access.secrets,
        count: access.count,
        bytes_up: access.bytes_up,
        bytes_down: access.bytes_down,
        duration_ms: access.duration_ms,
    }))
}
