//! Storage in a container: mounted on this host, below the session's directory, and shown in the container. A container has
//! no right to mount, and must not have it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mooring_manifest::Manifest;
use mooring_sandbox::{SandboxError, Storage, StorageHost, mounts};
use mooring_supervisor::{AGENT_ID, mount_device};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

/// Why only root can have them.
pub(crate) const ROOT_ALONE: &str = "storage is mounted on this machine for a container, which takes root; run as root, or use the local sandbox";

/// One that is served. It is unmounted when this is dropped.
#[derive(Debug)]
pub(crate) struct HostMount {
    /// Where, on this host.
    pub(crate) source: PathBuf,
    /// Where in the workspace.
    pub(crate) path: String,
}

impl Drop for HostMount {
    fn drop(&mut self) {
        // One that stays is found by the next start, or by the reaper.
        let _ = unmount(&self.source, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.source);
    }
}

/// The manifest of what a session's state keeps of the mounts.
pub(crate) fn read(kept: &Value) -> Result<Manifest, SandboxError> {
    Manifest::from_value(kept).map_err(|error| SandboxError::Invalid {
        reason: format!("the mounts of the session cannot be read: {error}"),
    })
}

/// Where they are, below the workspace's root.
pub(crate) fn paths(kept: Option<&Value>) -> Vec<String> {
    let manifest = kept.and_then(|kept| read(kept).ok());
    let placed = manifest.as_ref().and_then(|manifest| mounts(manifest).ok()).unwrap_or_default();
    placed.into_iter().map(|placed| placed.path.to_string()).collect()
}

/// Opens and mounts all of a session's.
pub(crate) async fn mount(
    host: &dyn StorageHost,
    kept: &Value,
    session: &Path,
    owner: u32,
) -> Result<Vec<HostMount>, SandboxError> {
    let manifest = read(kept)?;
    let storage = host.open(&manifest).await?;
    let folder = session.join("mounts");
    unmount_dead(session);
    let mut mounted = Vec::new();
    for (number, storage) in storage.into_iter().enumerate() {
        let source = folder.join(number.to_string());
        mounted.push(mount_one(storage, source.clone(), owner).map_err(|error| SandboxError::Isolation {
            primitive: "FUSE mount".into(),
            reason: format!("{}: {error}", source.display()),
            hint: "mounts need /dev/fuse and Linux 5.2 or newer; or leave the mounts out".into(),
        })?);
    }
    Ok(mounted)
}

fn mount_one(storage: Box<dyn Storage>, source: PathBuf, owner: u32) -> io::Result<HostMount> {
    fs::create_dir_all(&source)?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place: OwnedFd = open(&source, directory, Mode::empty())?;
    let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    mount_device(&place, storage.read_only(), &device, 0)?;
    let mounted = HostMount { source, path: storage.path().to_owned() };
    storage.serve(device, owner, owner);
    Ok(mounted)
}

/// Whom files in a workspace belong to: the default user, or whoever owns the caller's directory.
pub(crate) fn owner(workspace: Option<&Path>) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    workspace.and_then(|path| fs::metadata(path).ok()).map_or(AGENT_ID, |metadata| metadata.uid())
}

/// Unmounts what a crash left below a session's directory: its server is gone, and it answers nothing.
pub(crate) fn unmount_dead(session: &Path) {
    let Ok(entries) = fs::read_dir(session.join("mounts")) else { return };
    for entry in entries.flatten() {
        if rustix::fs::stat(entry.path()).err() == Some(Errno::NOTCONN) {
            let _ = unmount(entry.path(), UnmountFlags::DETACH);
        }
    }
}
