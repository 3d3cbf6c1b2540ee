//! Storage in a container: mounted on this host, below the session's directory, and shown in the container. A container has
//! no right to mount, and must not have it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mooring_sandbox::{SandboxError, Serving, Storage, StorageMount};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Why only root can have them.
pub(crate) const ROOT_ALONE: &str = "storage is mounted on this machine for a container, which takes root; run as root, or use the local sandbox";

/// One that is served. It is unmounted when this is dropped.
#[derive(Debug)]
pub(crate) struct HostMount {
    /// Where, on this host.
    pub(crate) source: PathBuf,
    /// Where in the workspace.
    pub(crate) path: String,
    pub(crate) read_only: bool,
    /// Whoever waits for it is told that it is over.
    serving: Option<Box<dyn Serving>>,
}

impl Drop for HostMount {
    fn drop(&mut self) {
        drop(self.serving.take());
        // One that stays is found by the next start, or by the reaper.
        let _ = unmount(&self.source, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.source);
    }
}

/// Mounts all of a session's.
pub(crate) async fn mount_all(
    storage: Arc<dyn Storage>,
    mounts: Vec<StorageMount>,
    session: PathBuf,
    id: String,
) -> Result<Vec<HostMount>, SandboxError> {
    unmount_dead(&session);
    let work = move || {
        let mount = |(number, mount): (usize, StorageMount)| {
            let source = session.join("mounts").join(number.to_string());
            mount_one(storage.as_ref(), &mount, source, &id)
        };
        mounts.into_iter().enumerate().map(mount).collect()
    };
    // The kernel and the server greet each other, which may block.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SandboxError::Invalid { reason: format!("storage cannot be mounted: {error}") })?
}

fn mount_one(
    storage: &dyn Storage,
    wanted: &StorageMount,
    source: PathBuf,
    id: &str,
) -> Result<HostMount, SandboxError> {
    let device = mount_device(&source, wanted.read_only).map_err(|error| SandboxError::Isolation {
        primitive: "fuse mount".into(),
        reason: format!("{}: {error}", source.display()),
        hint: "mounts need the device /dev/fuse: load the kernel's module (`modprobe fuse`), or leave the mounts out"
            .into(),
    })?;
    // From here on it is unmounted whatever happens.
    let mut mounted =
        HostMount { source, path: wanted.path.clone(), read_only: wanted.read_only, serving: None };
    mounted.serving = Some(storage.serve(id, wanted, device)?);
    Ok(mounted)
}

/// A device that is mounted on a directory.
pub(crate) fn mount_device(place: &Path, read_only: bool) -> io::Result<OwnedFd> {
    fs::create_dir_all(place)?;
    let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    let number = device.as_raw_fd();
    let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions");
    let options = std::ffi::CString::new(options)?;
    mount("storage", place, "fuse", flags, options.as_c_str())?;
    Ok(device)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_mounted_is_found() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let session = tempfile::tempdir().unwrap();
        let place = session.path().join("mounts/0");
        let mounted = || fs::read_to_string("/proc/self/mounts").unwrap().contains(place.to_str().unwrap());
        // As when whoever served it was killed.
        drop(mount_device(&place, true).unwrap());
        assert!(mounted());
        unmount_dead(session.path());
        assert!(!mounted());
    }
}
