//! Makes, finds and deletes local sessions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring_manifest::Manifest;
use mooring_manifest::extension::Resources;
use mooring_sandbox::{
    BoxFuture, CreateRequest, NetworkSupport, ResourceSupport, SandboxClient, SandboxError, SandboxSession,
    SessionState, Storage, StorageMount, Support,
};
use mooring_supervisor::{Grant, Hello, Level, Limits, Task, is_root, more_users, root_allowed};
use mooring_supervisor_client::{Sessions, SupervisedSession, ask, check_id, gone, tighter, translate};
use serde::{Deserialize, Serialize};

use crate::grants::{self, HostGrant};
use crate::launch::{LocalLaunch, start_supervisor};
use crate::{layers, store};

/// This backend's id.
const BACKEND: &str = "local";

/// How local sandboxes are made.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where private workspaces lie.
    pub state_dir: PathBuf,
    /// How far sandboxes are kept apart from the host.
    pub isolation: Level,
    /// Upper bounds for each sandbox.
    pub limits: Limits,
    /// Directories of this host that manifests may ask for.
    pub grants: Vec<HostGrant>,
    /// How long a sandbox lives on after its last client has gone, so that the next one, in whatever process, finds
    /// its commands running. Clients are whoever can enter the session's directory: the same user. `None`: it ends
    /// with the client that started it.
    pub linger: Option<Duration>,
    /// Who serves the storage that manifests mount. `None`: nobody, and such manifests are refused. Nor are they served
    /// in a sandbox without isolation, or in one that lives on when nobody is left who could.
    pub storage: Option<Arc<dyn Storage>>,
}

impl LocalOptions {
    /// Fully isolated, without limits, ending with their client.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            isolation: Level::Namespaces,
            limits: Limits::default(),
            grants: Vec::new(),
            linger: None,
            storage: None,
        }
    }
}

/// Local sandboxes.
#[derive(Debug)]
pub struct LocalSandboxClient {
    options: LocalOptions,
    sessions: Sessions,
}

/// What a session's state holds beside its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The workspace on the host.
    pub(crate) workspace: PathBuf,
    /// Whether it was made by `create`.
    pub(crate) private: bool,
    /// Where it appears inside.
    pub(crate) root: String,
    pub(crate) users: Vec<String>,
    pub(crate) groups: Vec<(String, Vec<String>)>,
    pub(crate) environment: BTreeMap<String, String>,
    /// What is mounted. Its secrets are asked for anew at every start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<StorageMount>,
    /// What the manifest limits.
    #[serde(default)]
    pub(crate) resources: Resources,
    /// What it sees of this host beside the workspace.
    #[serde(default)]
    pub(crate) grants: Vec<Grant>,
    /// A session never comes back with less isolation than it was made with.
    pub(crate) isolation: Level,
}

impl Stored {
    /// Whether files may belong to others than the default user.
    pub(crate) fn many_users(&self) -> bool {
        !self.users.is_empty() || !self.groups.is_empty()
    }
}

impl LocalSandboxClient {
    /// Local sandboxes as `options` say. Touches nothing yet.
    pub fn new(options: LocalOptions) -> Self {
        Self { options, sessions: Sessions::default() }
    }

    fn open(&self, id: &str, stored: Stored) -> Arc<SupervisedSession> {
        self.sessions.open(id, || {
            // Plain strings and maps: that always has a JSON form.
            let data = serde_json::to_value(&stored).unwrap_or_default();
            let state = SessionState { backend: BACKEND.into(), session_id: id.into(), data };
            let root = stored.root.clone();
            let launch = LocalLaunch {
                id: id.into(),
                folder: store::folder(&self.options.state_dir, id),
                limits: tighter(self.options.limits, &stored.resources),
                stored,
                linger: self.options.linger,
                state_dir: self.options.state_dir.clone(),
                storage: self.options.storage.clone(),
                devices: Mutex::default(),
            };
            SupervisedSession::new(state, root, Box::new(launch))
        })
    }

    /// Whether a sandbox can have users beside the default one; if not, why.
    fn users(&self) -> Result<(), String> {
        if self.options.isolation == Level::None {
            return Err(
                "without isolation commands run as the caller; leave users out of the manifest".into()
            );
        }
        if is_root() {
            return Ok(());
        }
        more_users().map_err(|why| {
            format!("an ordinary user's sandbox has one user unless that user has a subordinate range: {why}")
        })
    }

    /// The directories of this host that a manifest asks for.
    fn grants(&self, manifest: &Manifest) -> Result<Vec<Grant>, SandboxError> {
        let options = &self.options;
        grants::resolve(&manifest.extra_path_grants, &options.grants, &manifest.root, &options.state_dir)
    }

    /// Refuses a session that sees what the operator does not allow, or not any more.
    fn check_grants(&self, id: &str, stored: &Stored) -> Result<(), SandboxError> {
        for grant in &stored.grants {
            grants::check(grant, &self.options.grants, &self.options.state_dir).map_err(|reason| {
                SandboxError::Invalid { reason: format!("session {id} sees {}: {reason}", grant.path) }
            })?;
        }
        Ok(())
    }

    fn create_now(&self, request: CreateRequest) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        check_id(&request.session_id)?;
        let manifest = request.manifest;
        let isolation = self.options.isolation;
        root_allowed(&manifest.root).map_err(|reason| SandboxError::Invalid { reason })?;
        let with_users = !manifest.users.is_empty() || !manifest.groups.is_empty();
        if with_users && let Err(reason) = self.users() {
            let (operation, backend) = ("users and groups".into(), BACKEND.into());
            return Err(SandboxError::Unsupported { operation, backend, reason });
        }
        if with_users && !is_root() && request.workspace.is_some() {
            return Err(SandboxError::Unsupported {
                operation: "users and groups".into(),
                backend: BACKEND.into(),
                reason: "what they make in a directory of yours would belong to others, and you could not remove it; \
                         leave out the workspace, so that it is a private one"
                    .into(),
            });
        }
        let grants = self.grants(&manifest)?;
        let mounts = StorageMount::all(&manifest, BACKEND)?;
        self.can_mount(&mounts)?;
        let workspace = match &request.workspace {
            Some(path) => store::make_named(path, &self.options.state_dir)?,
            None => store::make_private(&self.options.state_dir, &request.session_id)?,
        };
        let stored = Stored {
            private: request.workspace.is_none(),
            root: if isolation == Level::None {
                workspace.display().to_string()
            } else {
                manifest.root.clone()
            },
            workspace,
            mounts,
            resources: manifest.extension.resources,
            grants,
            environment: manifest.resolved_environment(),
            users: manifest.users.into_iter().map(|user| user.name).collect(),
            groups: manifest
                .groups
                .into_iter()
                .map(|group| (group.name, group.users.into_iter().map(|user| user.name).collect()))
                .collect(),
            isolation,
        };
        Ok(self.open(&request.session_id, stored))
    }

    fn resume_now(&self, state: &SessionState) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        let stored = read_state(state)?;
        if stored.isolation != self.options.isolation {
            return Err(SandboxError::Invalid {
                reason: format!(
                    "session {} was made with isolation {:?}, and this is {:?}; use the same",
                    state.session_id, stored.isolation, self.options.isolation
                ),
            });
        }
        self.check_grants(&state.session_id, &stored)?;
        self.can_mount(&stored.mounts)?;
        if !stored.workspace.is_dir() {
            let reason = format!("its workspace {} is no longer there", stored.workspace.display());
            return Err(gone(&state.session_id, reason));
        }
        Ok(self.open(&state.session_id, stored))
    }

    fn can_mount(&self, mounts: &[StorageMount]) -> Result<(), SandboxError> {
        let Some(mount) = mounts.first().filter(|_| !self.support().mounts) else { return Ok(()) };
        let reason = match &self.options {
            options if options.isolation == Level::None => {
                "without isolation there is no place for it that only the sandbox sees; use isolation"
            }
            options if options.linger.is_some() => {
                "the sandbox would live on when nobody is left who serves it; use it in a run, or copy the data"
            }
            _ => "nobody serves storage here; give LocalOptions::storage",
        };
        let (operation, backend) = (format!("mount '{}'", mount.path), BACKEND.into());
        Err(SandboxError::Unsupported { operation, backend, reason: reason.into() })
    }

    async fn delete_now(&self, state: &SessionState) -> Result<(), SandboxError> {
        let stored = read_state(state)?;
        let id = &state.session_id;
        // Whoever runs it: one that lives on between clients is ended, too.
        self.open(id, stored.clone()).stop().await?;
        self.sessions.take(id);
        // A named workspace lies elsewhere, and stays.
        let folder = store::folder(&self.options.state_dir, id);
        if stored.many_users() && stored.private && !is_root() && folder.exists() {
            let task = Task::Discard { folder: folder.clone() };
            return match ask(id, start_supervisor(id, None, None)?, task).await? {
                Hello::Done => Ok(()),
                Hello::Failed(failure) => Err(translate("remove", failure)),
                other => Err(gone(id, format!("the supervisor said {other:?}"))),
            };
        }
        store::remove(&folder)?;
        layers::collect(&self.options.state_dir).map(drop)
    }

    async fn fork_now(
        &self,
        parent: &SessionState,
        id: &str,
    ) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        check_id(id)?;
        let stored = read_state(parent)?;
        let unsupported = |reason: String| SandboxError::Unsupported {
            operation: format!("a fork of session {} without a copy", parent.session_id),
            backend: BACKEND.into(),
            reason,
        };
        self.check_grants(&parent.session_id, &stored)?;
        if !stored.private {
            return Err(unsupported("its workspace is a directory that the caller named".into()));
        }
        if stored.isolation != Level::Namespaces || self.options.isolation != Level::Namespaces {
            return Err(unsupported("without isolation there are no layers".into()));
        }
        if !is_root() && stored.many_users() {
            return Err(unsupported("its files belong to several users".into()));
        }
        let state_dir = &self.options.state_dir;
        if store::folder(state_dir, id).exists() {
            return Err(SandboxError::AlreadyExists { path: id.into() });
        }
        // A program that another thread starts just now has the lock of a session that was stopped, up to its own exec.
        for _ in 0..100 {
            if layers::idle(&store::folder(state_dir, &parent.session_id))?.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.try_layers(id, &stored).await.map_err(|error| unsupported(error.to_string()))?;
        layers::fork(state_dir, &parent.session_id, id)?.map_err(unsupported)?;
        let workspace = store::make_private(state_dir, id)?;
        Ok(self.open(id, Stored { workspace, ..stored }))
    }

    /// Finds out, once on each kernel, whether a sandbox starts on layers: a session that is frozen must.
    async fn try_layers(&self, id: &str, stored: &Stored) -> Result<(), SandboxError> {
        let state_dir = &self.options.state_dir;
        let known = layers::known_to_work(state_dir);
        if known.exists() {
            return Ok(());
        }
        let (folder, made) = layers::trial(state_dir, id)?;
        let workspace = folder.join("workspace");
        let launch = LocalLaunch {
            id: format!("{}-trial", &id[..id.len().min(40)]),
            folder,
            stored: Stored {
                workspace,
                users: Vec::new(),
                groups: Vec::new(),
                mounts: Vec::new(),
                ..stored.clone()
            },
            limits: Limits::default(),
            linger: None,
            state_dir: state_dir.clone(),
            storage: None,
            devices: Mutex::default(),
        };
        let state = SessionState { backend: BACKEND.into(), session_id: launch.id.clone(), data: ().into() };
        let session = SupervisedSession::new(state, stored.root.clone(), Box::new(launch));
        let tried = match session.start().await {
            Ok(()) => session.stop().await,
            failed => failed,
        };
        for path in made {
            store::remove_tree(&path).map_err(|error| store::file("remove", &path, &error))?;
        }
        tried?;
        std::fs::write(&known, "").map_err(|error| store::file("write", &known, &error))
    }
}

impl SandboxClient for LocalSandboxClient {
    fn backend_id(&self) -> &'static str {
        BACKEND
    }

    fn support(&self) -> Support {
        let isolated = self.options.isolation == Level::Namespaces;
        Support {
            users: self.users().is_ok(),
            path_grants: isolated,
            tty: true,
            network: NetworkSupport { deny: isolated, ..NetworkSupport::default() },
            // Kept, or refused by name when the sandbox is started: not every host has the controllers.
            resources: ResourceSupport {
                cpu: true,
                memory: true,
                pids: true,
                disk: isolated,
                wall_clock: true,
            },
            // Without isolation a server in the sandbox listens at this machine's own address already.
            ports: isolated,
            setup: true,
            mounts: isolated && self.options.linger.is_none() && self.options.storage.is_some(),
            ..Support::default()
        }
    }

    fn check(&self, manifest: &Manifest) -> Result<(), SandboxError> {
        self.grants(manifest).map(drop)
    }

    fn create(&self, request: CreateRequest) -> BoxFuture<'_, Result<Arc<dyn SandboxSession>, SandboxError>> {
        Box::pin(async move { self.create_now(request) })
    }

    fn resume(&self, state: SessionState) -> BoxFuture<'_, Result<Arc<dyn SandboxSession>, SandboxError>> {
        Box::pin(async move { self.resume_now(&state) })
    }

    fn fork<'a>(
        &'a self,
        parent: &'a SessionState,
        session_id: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn SandboxSession>, SandboxError>> {
        Box::pin(self.fork_now(parent, session_id))
    }

    fn delete<'a>(&'a self, state: &'a SessionState) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(self.delete_now(state))
    }
}

fn read_state(state: &SessionState) -> Result<Stored, SandboxError> {
    check_id(&state.session_id)?;
    if state.backend != BACKEND {
        let reason =
            format!("session {} is of the {} sandbox, not of this one", state.session_id, state.backend);
        return Err(SandboxError::Invalid { reason });
    }
    Stored::deserialize(&state.data).map_err(|error| SandboxError::Invalid {
        reason: format!("the state of session {} cannot be read: {error}", state.session_id),
    })
}
