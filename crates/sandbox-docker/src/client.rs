//! Makes, finds and deletes sessions in containers.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::Docker;
use bollard::models::VolumeCreateRequest;
use mooring_manifest::Manifest;
use mooring_manifest::extension::{Image, Network};
use mooring_sandbox::{
    BoxFuture, CreateRequest, NetworkSupport, ResourceSupport, SandboxClient, SandboxError, SandboxSession,
    SessionState, Storage, StorageMount, Support,
};
use mooring_supervisor::{Limits, root_allowed};
use mooring_supervisor_client::{Sessions, SupervisedSession, check_id, gone, tighter};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::build::build;
use crate::container::{DockerLaunch, name, remove};
use crate::engine::{Engine, absent, refused};
use crate::image;
use crate::mounts;
use crate::prune::{Pruned, labels, prune, remove_volume};
use crate::reap::{Reaped, reap};

/// This backend's id.
pub(crate) const BACKEND: &str = "docker";

/// How sandboxes in containers are made.
#[derive(Debug, Clone, PartialEq)]
pub struct DockerOptions {
    /// The engine's socket on this machine.
    pub socket: PathBuf,
    /// Where sockets to the containers lie.
    pub state_dir: PathBuf,
    /// The image where the manifest names none, as the engine knows it. One that it does not have is fetched from its
    /// registry.
    pub image: Option<String>,
    /// What the directory of an image that the manifest has built is relative to, and below. `None`: such manifests
    /// are refused.
    pub base: Option<PathBuf>,
    /// Upper bounds for each sandbox. Of these and the manifest's the tighter holds.
    pub limits: Limits,
    /// Nothing can be written but the workspace, `/tmp`, `/run` and `/dev/shm`.
    pub read_only: bool,
}

impl DockerOptions {
    /// No image, no limits, a writable copy of the image.
    pub fn new(socket: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            state_dir: state_dir.into(),
            image: None,
            base: None,
            limits: Limits::default(),
            read_only: false,
        }
    }
}

/// Sandboxes in containers of a Docker engine on this machine.
#[derive(Debug)]
pub struct DockerSandboxClient {
    options: DockerOptions,
    engine: Arc<Engine>,
    sessions: Sessions,
    /// What crashes left behind was looked for.
    reaped: OnceCell<()>,
    storage: Option<Arc<dyn Storage>>,
}

/// What a session's state holds beside its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) workspace: Workspace,
    /// Where it appears inside.
    pub(crate) root: String,
    pub(crate) users: Vec<String>,
    pub(crate) groups: Vec<(String, Vec<String>)>,
    pub(crate) environment: BTreeMap<String, String>,
    /// The image by its content, and the names of the variables that it sets.
    pub(crate) image: String,
    pub(crate) image_variables: Vec<String>,
    /// Whether it has the engine's bridge, which the manifest must ask for. Else it has no network.
    pub(crate) unrestricted: bool,
    pub(crate) limits: Limits,
    /// What is mounted. Its secrets are asked for anew at every start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<StorageMount>,
}

/// Where a workspace lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Workspace {
    /// In a volume of the engine's, named as the container.
    Volume,
    /// In a directory of the caller's.
    Directory(PathBuf),
}

impl DockerSandboxClient {
    /// Sandboxes as `options` say. Touches nothing yet.
    pub fn new(options: DockerOptions) -> Self {
        let engine = Arc::new(Engine::new(options.socket.clone()));
        Self { options, engine, sessions: Sessions::default(), reaped: OnceCell::new(), storage: None }
    }

    /// The same for manifests that mount storage, which this serves.
    pub fn with_storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Whether storage can be mounted for a container: this process must be root.
    fn mounts(&self) -> bool {
        self.storage.is_some() && rustix::process::geteuid().is_root()
    }

    /// The engine's version, where it answers: `Docker 27.3.1, API 1.47`.
    ///
    /// # Errors
    /// [`SandboxError::Isolation`] with the reason and what to do.
    pub async fn version(&self) -> Result<String, SandboxError> {
        let docker = self.engine.docker().await?;
        let version = docker.version().await.map_err(|error| refused("the Docker engine", error))?;
        let word = |word: Option<String>| word.unwrap_or_else(|| "unknown".into());
        Ok(format!("Docker {}, API {}", word(version.version), word(version.api_version)))
    }

    /// Removes containers of sessions whose process has died. Happens by itself when the first session is made.
    pub async fn reap(&self) -> Result<Vec<Reaped>, SandboxError> {
        for session in fs_err::read_dir(self.options.state_dir.join("docker")).into_iter().flatten().flatten()
        {
            mounts::unmount_dead(&session.path());
        }
        reap(self.engine.docker().await?, false).await
    }

    /// Removes what [`DockerSandboxClient::reap`] does, and the workspaces that sessions of this client's state directory
    /// left on the engine, where `unused` says so, given a session's id and when its workspace was made (milliseconds
    /// since the Unix epoch). What a container serves stays. With `look_only` nothing is removed.
    ///
    /// # Errors
    /// [`SandboxError::Isolation`] where the engine does not answer; [`SandboxError::File`].
    pub async fn prune(
        &self,
        look_only: bool,
        unused: &(dyn Fn(&str, i64) -> bool + Sync),
    ) -> Result<Pruned, SandboxError> {
        prune(self.engine.docker().await?, &self.options.state_dir, look_only, unused).await
    }

    fn open(&self, id: &str, stored: Stored) -> Arc<dyn SandboxSession> {
        self.sessions.open(id, || {
            // Plain strings and maps: that always has a JSON form.
            let data = serde_json::to_value(&stored).unwrap_or_default();
            let state = SessionState { backend: BACKEND.into(), session_id: id.into(), data };
            let root = stored.root.clone();
            let launch = DockerLaunch {
                engine: Arc::clone(&self.engine),
                id: id.into(),
                stored,
                folder: self.folder(id),
                read_only: self.options.read_only,
                storage: self.storage.clone(),
            };
            SupervisedSession::new(state, root, Box::new(launch))
        })
    }

    /// The image to start from: the manifest's, else the operator's.
    async fn image(&self, docker: &Docker, manifest: &Manifest) -> Result<String, SandboxError> {
        let unnamed = |reason: &str| SandboxError::Invalid { reason: reason.into() };
        match (&manifest.extension.image, &self.options.image) {
            (Some(Image::Name(name)), _) | (None, Some(name)) => Ok(name.clone()),
            (Some(Image::Build(wanted)), _) => {
                let base = self.options.base.as_deref();
                let base =
                    base.ok_or_else(|| unnamed("an image cannot be built here: there is no base directory"))?;
                build(docker, wanted, base, manifest.extension.network.as_ref()).await
            }
            (None, None) => Err(unnamed(
                "the docker sandbox needs an image: name one with `image` below `x-mooring` in the manifest, or below \
                 `[sandbox]` in the agent file",
            )),
        }
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.options.state_dir.join("docker").join(id)
    }

    async fn create_now(&self, request: CreateRequest) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        let id = request.session_id;
        check_id(&id)?;
        let manifest = request.manifest;
        root_allowed(&manifest.root).map_err(|reason| SandboxError::Invalid { reason })?;
        let mounts = StorageMount::all(&manifest, BACKEND)?;
        if !mounts.is_empty() && !self.mounts() {
            return Err(SandboxError::Unsupported {
                operation: "mounts".into(),
                backend: BACKEND.into(),
                reason: mounts::ROOT_ALONE.into(),
            });
        }
        if let Some(storage) = &self.storage {
            mounts.iter().try_for_each(|mount| storage.check(mount))?;
        }
        let workspace = match &request.workspace {
            Some(path) => Workspace::Directory(callers_directory(path)?),
            None => Workspace::Volume,
        };
        let docker = self.engine.docker().await?;
        self.reaped.get_or_try_init(|| async { reap(docker, false).await.map(drop) }).await?;
        let image = image::find(docker, &self.image(docker, &manifest).await?).await?;
        if workspace == Workspace::Volume {
            make_volume(docker, &id, &self.options.state_dir).await?;
        }
        let image_variables = image.environment.keys().cloned().collect();
        let mut environment = image.environment;
        environment.extend(manifest.resolved_environment());
        let stored = Stored {
            workspace,
            mounts,
            root: manifest.root,
            environment,
            users: manifest.users.into_iter().map(|user| user.name).collect(),
            groups: manifest
                .groups
                .into_iter()
                .map(|group| (group.name, group.users.into_iter().map(|user| user.name).collect()))
                .collect(),
            image: image.id,
            image_variables,
            unrestricted: manifest.extension.network == Some(Network::Unrestricted),
            limits: tighter(self.options.limits, &manifest.extension.resources),
        };
        Ok(self.open(&id, stored))
    }

    async fn resume_now(&self, state: SessionState) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        let stored = read_state(&state)?;
        let id = &state.session_id;
        match &stored.workspace {
            Workspace::Directory(path) if !path.is_dir() => {
                return Err(gone(id, format!("its workspace {} is no longer there", path.display())));
            }
            Workspace::Directory(_) => {}
            Workspace::Volume => match self.engine.docker().await?.inspect_volume(&name(id)).await {
                Err(error) if absent(&error) => {
                    return Err(gone(id, format!("its workspace, volume {}, is no longer there", name(id))));
                }
                found => drop(found.map_err(|error| refused("volume", error))?),
            },
        }
        Ok(self.open(id, stored))
    }

    async fn delete_now(&self, state: &SessionState) -> Result<(), SandboxError> {
        let stored = read_state(state)?;
        let id = &state.session_id;
        if let Some(session) = self.sessions.take(id) {
            session.stop().await?;
        }
        let docker = self.engine.docker().await?;
        remove(docker, &name(id)).await?;
        if stored.workspace == Workspace::Volume {
            remove_volume(docker, id).await?;
        }
        let folder = self.folder(id);
        mounts::unmount_dead(&folder);
        match fs_err::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(file("remove", &folder, &error))
            }
            _ => Ok(()),
        }
    }
}

impl SandboxClient for DockerSandboxClient {
    fn backend_id(&self) -> &'static str {
        BACKEND
    }

    fn support(&self) -> Support {
        Support {
            users: true,
            mounts: self.mounts(),
            tty: true,
            resources: ResourceSupport::ALL,
            network: NetworkSupport { deny: true, allow: false, unrestricted: true },
            ports: true,
            image: true,
            setup: true,
            ..Support::default()
        }
    }

    fn create(&self, request: CreateRequest) -> BoxFuture<'_, Result<Arc<dyn SandboxSession>, SandboxError>> {
        Box::pin(self.create_now(request))
    }

    fn resume(&self, state: SessionState) -> BoxFuture<'_, Result<Arc<dyn SandboxSession>, SandboxError>> {
        Box::pin(self.resume_now(state))
    }

    fn delete<'a>(&'a self, state: &'a SessionState) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(self.delete_now(state))
    }
}

async fn make_volume(docker: &Docker, id: &str, state_dir: &Path) -> Result<(), SandboxError> {
    let volume = VolumeCreateRequest {
        name: Some(name(id)),
        labels: Some(labels(id, state_dir)),
        ..VolumeCreateRequest::default()
    };
    // One that is there already is this session's, made before a crash.
    docker.create_volume(volume).await.map(drop).map_err(|error| refused("volume", error))
}

/// Makes sure that a caller's directory is there, and can be a container's workspace.
fn callers_directory(path: &Path) -> Result<PathBuf, SandboxError> {
    let make = || {
        fs_err::create_dir_all(path)?;
        let found = fs_err::canonicalize(path)?;
        let owner = fs_err::metadata(&found)?.uid();
        Ok((found, owner))
    };
    let (found, owner) = make().map_err(|error| file("create", path, &error))?;
    if found == Path::new("/") {
        return Err(SandboxError::Invalid { reason: "the whole host cannot be a workspace".into() });
    }
    if owner == 0 {
        return Err(SandboxError::Invalid {
            reason: format!(
                "{} belongs to root, and nobody in a container's sandbox is root; give the directory to an ordinary \
                 user (`chown`), or leave it out",
                found.display()
            ),
        });
    }
    Ok(found)
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

pub(crate) fn file(operation: &'static str, path: &Path, error: &std::io::Error) -> SandboxError {
    SandboxError::File { operation, path: path.display().to_string(), reason: error.to_string() }
}
