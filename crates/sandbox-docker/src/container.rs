//! From a session to a container with a supervisor in it.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
};
use bollard::query_parameters::{
    AttachContainerOptions, CreateContainerOptions, RemoveContainerOptions, WaitContainerOptions,
};
use futures::StreamExt as _;
use mooring_sandbox::{BoxFuture, SandboxError, Storage, StorageMount};
use mooring_supervisor::{DOOR_INSIDE, Level, Limits, MountPoint, Setup, parts};
use mooring_supervisor_client::{End, Launch, Launched, Transport, gone};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::client::{Stored, Workspace};
use crate::engine::{Engine, absent, refused};
use crate::mounts::{self, HostMount};
use crate::owner::{Known, Owner};

/// How long a container may take from its start until its supervisor speaks.
const START: Duration = Duration::from_mins(1);

/// How often a removal that the engine refuses is tried.
const REMOVALS: usize = 20;

/// What of a supervisor's last words is kept.
const LAST_WORDS: usize = 4096;

/// What the supervisor needs. Commands get none of it: it gives these up, or hands them to none.
const RIGHTS: [&str; 8] =
    ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID"];

/// What is writable beside the workspace, and gone with the container.
const TEMPORARY: [(&str, &str); 2] =
    [("/tmp", "rw,nosuid,nodev,exec,mode=1777,size=4g"), ("/run", "rw,nosuid,nodev,mode=1777,size=64m")];
const SHARED_MEMORY: i64 = 512 << 20;

/// Starts one session's containers.
#[derive(Debug)]
pub(crate) struct DockerLaunch {
    pub(crate) engine: Arc<Engine>,
    pub(crate) id: String,
    pub(crate) stored: Stored,
    /// The session's directory on this host, for the socket.
    pub(crate) folder: PathBuf,
    pub(crate) read_only: bool,
    /// Who serves what is mounted.
    pub(crate) storage: Option<Arc<dyn Storage>>,
}

/// The name of a session's container, and of its volume.
pub(crate) fn name(session: &str) -> String {
    format!("mooring-{session}")
}

impl Launch for DockerLaunch {
    fn launch(&self) -> BoxFuture<'_, Result<Launched, SandboxError>> {
        Box::pin(async move {
            let docker = self.engine.docker().await?;
            let mounted = self.mount().await?;
            let transport = self.start(docker, mounted).await?;
            let setup = Setup {
                session: self.id.clone(),
                level: Level::Container,
                workspace: self.stored.root.clone().into(),
                private: self.stored.workspace == Workspace::Volume,
                root: self.stored.root.clone(),
                users: self.stored.users.clone(),
                groups: self.stored.groups.clone(),
                environment: self.stored.environment.clone(),
                // The others are the engine's to enforce.
                limits: Limits {
                    wall_clock_ms: self.stored.limits.wall_clock_ms,
                    disk_bytes: self.stored.limits.disk_bytes,
                    ..Limits::default()
                },
                linger: None,
                layers: Vec::new(),
                grants: Vec::new(),
                // They are there already; it is told where, so that it stays out of them.
                mounts: self.stored.mounts.iter().map(mount_point).collect(),
            };
            Ok(Launched { transport, setup, level: "container".into(), mechanisms: self.mechanisms() })
        })
    }

    fn storage(&self) -> Option<&dyn Storage> {
        self.storage.as_deref()
    }

    fn closed_network(&self) -> bool {
        !self.stored.unrestricted
    }
}

fn mount_point(mount: &StorageMount) -> MountPoint {
    MountPoint { path: mount.path.clone(), read_only: mount.read_only }
}

impl DockerLaunch {
    /// What is mounted, on this host so far.
    async fn mount(&self) -> Result<Vec<HostMount>, SandboxError> {
        let mounts = self.stored.mounts.clone();
        match &self.storage {
            _ if mounts.is_empty() => Ok(Vec::new()),
            Some(storage) => {
                let (folder, id) = (self.folder.clone(), self.id.clone());
                mounts::mount_all(Arc::clone(storage), mounts, folder, id).await
            }
            None => Err(gone(&self.id, "nobody serves its mounts here")),
        }
    }

    async fn start(&self, docker: &Docker, mounted: Vec<HostMount>) -> Result<Transport, SandboxError> {
        let owner =
            Owner::this().map_err(|error| gone(&self.id, format!("cannot tell who starts it: {error}")))?;
        clear_name(docker, &self.id, &owner).await?;
        let door = Door::open(&self.folder).map_err(|error| {
            let path = self.folder.display();
            SandboxError::File { operation: "create", path: path.to_string(), reason: error.to_string() }
        })?;
        let config = self.config(&owner, &door.folder, &mounted)?;
        let named =
            CreateContainerOptions { name: Some(name(&self.id)), ..CreateContainerOptions::default() };
        let created = docker.create_container(Some(named), config).await;
        let container = created.map_err(|error| refused("container", error))?.id;
        match self.bring_up(docker, &container, &door, mounted).await {
            Ok(transport) => Ok(transport),
            Err(error) => {
                // One that has ended is being removed already.
                let _ = remove(docker, &container).await;
                Err(error)
            }
        }
    }

    async fn bring_up(
        &self,
        docker: &Docker,
        container: &str,
        door: &Door,
        mounted: Vec<HostMount>,
    ) -> Result<Transport, SandboxError> {
        let attach =
            AttachContainerOptions { stderr: true, stream: true, ..AttachContainerOptions::default() };
        let attached = docker.attach_container(container, Some(attach)).await;
        let mut said = attached.map_err(|error| refused("container", error))?.output;
        // Ends with the container.
        let mut words = tokio::spawn(async move {
            let mut words = Vec::new();
            while let Some(Ok(LogOutput::StdErr { message })) = said.next().await {
                let room = LAST_WORDS - words.len().min(LAST_WORDS);
                words.extend_from_slice(&message[..message.len().min(room)]);
            }
            String::from_utf8_lossy(&words).into_owned()
        });
        docker.start_container(container, None).await.map_err(|error| refused("container", error))?;
        let stream = tokio::select! {
            accepted = door.listener.accept() => {
                accepted.map_err(|error| gone(&self.id, format!("no connection from its container: {error}")))?.0
            }
            words = &mut words => {
                let words = words.unwrap_or_default();
                return Err(gone(&self.id, format!("its container ended at its start: {}", words.trim())));
            }
            () = tokio::time::sleep(START) => {
                return Err(SandboxError::Deadline { operation: "start".into(), seconds: START.as_secs() });
            }
        };
        let end = Container {
            docker: docker.clone(),
            id: container.to_owned(),
            words: Some(words),
            _mounted: mounted,
        };
        Ok(transport(stream, end))
    }

    fn config(
        &self,
        owner: &Owner,
        door: &Path,
        mounted: &[HostMount],
    ) -> Result<ContainerCreateBody, SandboxError> {
        let (parts, command) = parts().map_err(|error| gone(&self.id, error.to_string()))?;
        let read_only = |source: &Path, target: String| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.display().to_string()),
            target: Some(target),
            read_only: Some(true),
            ..Mount::default()
        };
        let door_inside = Path::new(DOOR_INSIDE).parent().unwrap_or(Path::new("/"));
        let mut mounts = vec![read_only(door, door_inside.display().to_string())];
        mounts.extend(parts.into_iter().map(|part| read_only(&part.source, part.target)));
        let root = Some(self.stored.root.clone());
        mounts.push(match &self.stored.workspace {
            Workspace::Volume => Mount {
                typ: Some(MountType::VOLUME),
                source: Some(name(&self.id)),
                target: root,
                volume_options: Some(MountVolumeOptions {
                    no_copy: Some(true),
                    ..MountVolumeOptions::default()
                }),
                ..Mount::default()
            },
            Workspace::Directory(path) => Mount {
                typ: Some(MountType::BIND),
                source: Some(path.display().to_string()),
                target: root,
                ..Mount::default()
            },
        });
        let root = self.stored.root.trim_end_matches('/');
        mounts.extend(mounted.iter().map(|one| Mount {
            read_only: Some(one.read_only),
            ..read_only(&one.source, format!("{root}/{}", one.path))
        }));
        let words = |list: &[&str]| Some(list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let memory = self.stored.limits.memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let network = if self.stored.unrestricted { "bridge" } else { "none" };
        let host_config = HostConfig {
            network_mode: Some(network.into()),
            cap_drop: words(&["ALL"]),
            cap_add: words(&RIGHTS),
            security_opt: words(&["no-new-privileges:true"]),
            readonly_rootfs: Some(self.read_only),
            memory,
            // No more with swap than without.
            memory_swap: memory,
            nano_cpus: self.stored.limits.cpus.map(|cpus| (cpus * 1e9).round() as i64),
            pids_limit: self.stored.limits.pids.map(|count| i64::try_from(count).unwrap_or(i64::MAX)),
            tmpfs: Some(TEMPORARY.map(|(path, options)| (path.to_owned(), options.to_owned())).into()),
            shm_size: Some(SHARED_MEMORY),
            mounts: Some(mounts),
            ipc_mode: Some("private".into()),
            auto_remove: Some(true),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            ..HostConfig::default()
        };
        Ok(ContainerCreateBody {
            image: Some(self.stored.image.clone()),
            entrypoint: Some(command),
            cmd: Some(Vec::new()),
            // Without `=` a variable of the image's is taken away: none is the supervisor's.
            env: Some(self.stored.image_variables.clone()),
            user: Some("0:0".into()),
            working_dir: Some("/".into()),
            hostname: Some("sandbox".into()),
            healthcheck: Some(HealthConfig { test: words(&["NONE"]), ..HealthConfig::default() }),
            labels: Some(owner.labels(&self.id)),
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        })
    }

    /// What the engine enforces.
    fn mechanisms(&self) -> BTreeMap<String, String> {
        let limit = |limit: Option<String>| limit.unwrap_or_else(|| "unlimited".into());
        let network =
            if self.stored.unrestricted { "the engine's bridge, unrestricted" } else { "none but loopback" };
        let system = if self.read_only { "the image's, read-only" } else { "the image's, a copy" };
        let told = [
            ("mount", system.to_owned()),
            ("network", network.to_owned()),
            ("pid", "own".to_owned()),
            ("ipc", "own".to_owned()),
            ("uts", "own".to_owned()),
            ("memory", limit(self.stored.limits.memory_bytes.map(|bytes| format!("the engine's, {bytes}")))),
            ("pids", limit(self.stored.limits.pids.map(|count| format!("the engine's, {count}")))),
            ("cpu", limit(self.stored.limits.cpus.map(|cpus| format!("the engine's, {cpus}")))),
        ];
        told.into_iter().map(|(name, state)| (name.to_owned(), state)).collect()
    }
}

/// Makes sure that no container has this session's name. One that serves somebody else is left alone.
async fn clear_name(docker: &Docker, session: &str, owner: &Owner) -> Result<(), SandboxError> {
    let found = match docker.inspect_container(&name(session), None).await {
        Err(error) if absent(&error) => return Ok(()),
        found => found.map_err(|error| refused("container", error))?,
    };
    let labels: HashMap<String, String> = found.config.and_then(|config| config.labels).unwrap_or_default();
    match owner.judge(&labels) {
        Known::Lives | Known::Elsewhere => Err(gone(
            session,
            format!("it runs in another process, in container {}; end that first", name(session)),
        )),
        // What is left of a crash, or is ending just now.
        Known::Myself | Known::Dead => remove(docker, &name(session)).await,
    }
}

/// Removes a container whatever it does, and waits until it is gone.
pub(crate) async fn remove(docker: &Docker, container: &str) -> Result<(), SandboxError> {
    let mut last = None;
    for _ in 0..REMOVALS {
        let force = RemoveContainerOptions { force: true, v: true, link: false };
        match docker.remove_container(container, Some(force)).await {
            Err(error) if absent(&error) => return Ok(()),
            // It is being removed already.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) | Ok(()) => {
                removed(docker, container).await;
                return Ok(());
            }
            // One that ends in this very moment can be neither killed nor removed; soon it can.
            Err(error @ bollard::errors::Error::DockerResponseServerError { .. }) => last = Some(error),
            Err(error) => return Err(refused("removal of a container", error)),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    last.map_or(Ok(()), |error| Err(refused("removal of a container", error)))
}

/// Waits until a container is gone.
async fn removed(docker: &Docker, container: &str) {
    let condition = WaitContainerOptions { condition: "removed".into() };
    // An error means that it is gone, or that its engine is, and then there is nothing to be waited for.
    let _ = docker.wait_container(container, Some(condition)).next().await;
}

fn transport(stream: UnixStream, end: Container) -> Transport {
    let (reader, writer) = stream.into_split();
    Transport { reader: Box::new(reader), writer: Box::new(writer), end: Box::new(end) }
}

/// A running container.
struct Container {
    docker: Docker,
    id: String,
    /// What its supervisor says on standard error.
    words: Option<JoinHandle<String>>,
    /// Unmounted once it is gone.
    _mounted: Vec<HostMount>,
}

impl End for Container {
    fn wait(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(removed(&self.docker, &self.id))
    }

    fn force(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // That it cannot be removed is what the reaper is for.
            let _ = remove(&self.docker, &self.id).await;
        })
    }

    fn last_words(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let Some(words) = self.words.take() else { return String::new() };
            tokio::time::timeout(Duration::from_secs(1), words)
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default()
        })
    }
}

/// Where a supervisor knocks: a socket that is there until the first connection.
struct Door {
    folder: PathBuf,
    listener: UnixListener,
}

impl Door {
    /// Makes the socket below a directory that nobody else on this host can enter.
    fn open(session: &Path) -> std::io::Result<Self> {
        let folder = session.join("door");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(session)?;
        fs_err::create_dir_all(&folder)?;
        // Whoever the container's root is on this host: it starts from this directory.
        fs_err::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        let socket = folder.join("socket");
        match fs_err::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // An address has room for 107 bytes, which a path may exceed.
        let opened = fs_err::File::open(&folder)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/socket", opened.as_raw_fd()))?;
        fs_err::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { folder, listener })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Nobody else may knock. A socket that stays is refused by all, and replaced at the next start.
        let _ = fs_err::remove_file(self.folder.join("socket"));
    }
}
