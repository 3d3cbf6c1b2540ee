//! Storage that somebody outside serves: FUSE mounts in the workspace, whose devices go out to the harness.
//!
//! The kernel wants the device opened in the user namespace that mounts, so it is opened here and handed out. Nothing
//! of it is on the host, and when nobody serves it any more, whoever looks is told so.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::refused;
use crate::accounts::AGENT_ID;
use crate::config::MountPoint;
use crate::wire::Failure;

/// Where the kernel's device is.
const DEVICE: &str = "/dev/fuse";

/// Opens a device for each mount, while the host's are still to be seen and this process is still who it was.
pub(crate) fn open(mounts: &[MountPoint]) -> Result<Vec<OwnedFd>, Failure> {
    mounts.iter().map(|_| device().map_err(|errno| refused("fuse", errno))).collect()
}

/// A device of the kernel's that nothing is mounted with yet.
pub(crate) fn device() -> Result<OwnedFd, Errno> {
    openat(CWD, DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Mounts them below the root and sends the devices out, in their order. As the default user, whose the places are.
pub(crate) fn enter(
    root: &str,
    mounts: &[MountPoint],
    devices: Vec<OwnedFd>,
    outlet: &impl AsFd,
) -> Result<(), Failure> {
    for (point, device) in mounts.iter().zip(devices) {
        let step = |errno: Errno| match refused("fuse mount", errno) {
            Failure::Isolation { primitive, reason, hint } => {
                Failure::Isolation { primitive, reason: format!("{}: {reason}", point.path), hint }
            }
            other => other,
        };
        let place = place(root, &point.path).map_err(step)?;
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
        if point.read_only {
            flags |= MountFlags::RDONLY;
        }
        let options = format!(
            "fd={},rootmode=40000,user_id={AGENT_ID},group_id={AGENT_ID},allow_other,default_permissions",
            device.as_raw_fd()
        );
        let options = CString::new(options).map_err(|_| step(Errno::INVAL))?;
        let target = format!("/proc/self/fd/{}", place.as_raw_fd());
        mount("storage", target.as_str(), "fuse", flags, options.as_c_str()).map_err(step)?;
        let fds = [device.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        message.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(outlet, &[std::io::IoSlice::new(b"!")], &mut message, SendFlags::NOSIGNAL).map_err(step)?;
    }
    Ok(())
}

/// The directory to mount at, made where it is not there. Links are followed nowhere: the workspace may be one that
/// was used before.
fn place(root: &str, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = openat(CWD, root, flags, Mode::empty())?;
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for part in path.split('/') {
        match mkdirat(&here, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        here = openat2(&here, part, flags, Mode::empty(), strict)?;
    }
    Ok(here)
}
