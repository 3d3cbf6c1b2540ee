//! What makes sandbox sessions.

use std::path::PathBuf;
use std::sync::Arc;

use mooring_manifest::Manifest;
use serde::{Deserialize, Serialize};

use crate::{BoxFuture, Credentials, SandboxError, SandboxSession};

/// What a backend can enforce. Asked when a run is planned, before anything starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Support {
    /// Mount entries.
    pub mounts: bool,
    /// Users and groups of the manifest, and running commands as them.
    pub users: bool,
    /// Extra path grants.
    pub path_grants: bool,
    /// Terminals.
    pub tty: bool,
    /// Which limits of `resources` it keeps.
    pub resources: ResourceSupport,
    /// Which kinds of `network` it keeps.
    pub network: NetworkSupport,
    /// Stand-ins for secrets, and putting the values in their place outside of the sandbox.
    pub secrets: bool,
    /// Ports that can be reached from outside.
    pub ports: bool,
    /// Starting from an image that the manifest names or builds.
    pub image: bool,
    /// Commands; what is only a directory runs none.
    pub setup: bool,
}

/// Which limits a backend keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manifest's own names")]
pub struct ResourceSupport {
    pub cpu: bool,
    pub memory: bool,
    pub pids: bool,
    pub disk: bool,
    pub wall_clock: bool,
}

/// Which kinds of network a backend keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkSupport {
    /// Nothing can be reached.
    pub deny: bool,
    /// What is listed can be reached, and nothing else.
    pub allow: bool,
    /// Everything can be reached.
    pub unrestricted: bool,
}

impl ResourceSupport {
    /// All of them.
    pub const ALL: Self = Self { cpu: true, memory: true, pids: true, disk: true, wall_clock: true };
}

impl NetworkSupport {
    /// All of them.
    pub const ALL: Self = Self { deny: true, allow: true, unrestricted: true };
}

/// A session to make.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The session's id, chosen by the caller: a create that is repeated after a crash makes no second sandbox.
    pub session_id: String,
    /// The workspace. `create` looks at its root, environment, users, groups and additions; its entries are staged after the
    /// start, by materialisation.
    pub manifest: Manifest,
    /// A directory on the host to keep the workspace in and to leave there; for backends on this host. `None`: a
    /// private one.
    pub workspace: Option<PathBuf>,
}

/// What is needed to find a session again, in this process or another. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The backend's id.
    pub backend: String,
    /// The session's id.
    pub session_id: String,
    /// What only the backend understands.
    pub data: serde_json::Value,
}

/// A backend: makes, finds and deletes sessions.
pub trait SandboxClient: Send + Sync + std::fmt::Debug {
    /// The backend's id: `local`, `docker`, ….
    fn backend_id(&self) -> &'static str;

    /// What it can enforce on this host.
    fn support(&self) -> Support;

    /// Refuses what of a manifest cannot be had here beyond what [`Support`] tells, before anything starts.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`].
    fn check(&self, _manifest: &Manifest) -> Result<(), SandboxError> {
        Ok(())
    }

    /// What the repositories of a manifest are fetched with, as far as whoever runs this says it. It is used before there
    /// is a sandbox.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a secret that is no credential.
    fn credentials(&self, _manifest: &Manifest) -> Result<Credentials, SandboxError> {
        Ok(Credentials::new())
    }

    /// Reserves a session. Nothing runs before [`SandboxSession::start`].
    fn create(&self, request: CreateRequest) -> BoxFuture<'_, Result<Arc<dyn SandboxSession>, SandboxError>>;

    /// Finds a session again. Nothing runs before [`SandboxSession::start`].
    fn resume(&self, state: SessionState) -> BoxFuture<'_, Result<Arc<dyn SandboxSession>, SandboxError>>;

    /// Makes a session whose workspace begins as that of another one is now, sharing what neither changes. Changes of
    /// either are never seen by the other.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] where that needs a copy: a backend that cannot share, a session that runs. Whoever
    /// wants a fork all the same makes one through a snapshot.
    fn fork<'a>(
        &'a self,
        parent: &'a SessionState,
        session_id: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn SandboxSession>, SandboxError>> {
        let error = SandboxError::Unsupported {
            operation: format!("a fork of session {} as {session_id} without a copy", parent.session_id),
            backend: self.backend_id().into(),
            reason: "its workspaces share nothing".into(),
        };
        Box::pin(std::future::ready(Err(error)))
    }

    /// Ends a session and removes what it held, but for a workspace that the caller named. Deleting twice is no
    /// error.
    fn delete<'a>(&'a self, state: &'a SessionState) -> BoxFuture<'a, Result<(), SandboxError>>;
}
