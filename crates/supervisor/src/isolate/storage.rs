//! File systems that are served from outside: mounted here, in the sandbox's own namespaces, where nobody outside sees
//! them and they go with the sandbox. Their devices are handed to whoever serves them.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::refused;
use crate::accounts::AGENT_ID;
use crate::config::Mounted;
use crate::wire::Failure;

/// The mechanism, as errors name it.
pub(crate) const FUSE: &str = "FUSE mount";

/// Opens a device for each mount. By whom counts: the kernel lets a device be mounted only in the user namespace that it
/// was opened in. And when: before this process becomes a user of the sandbox, who may not open it everywhere.
pub(crate) fn devices(count: usize) -> Result<Vec<OwnedFd>, Failure> {
    let open = || open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    (0..count).map(|_| open().map_err(|errno| refused(FUSE, errno))).collect()
}

/// Mounts each at its place in the workspace, which is made where it is missing.
pub(crate) fn mount(
    workspace: BorrowedFd<'_>,
    mounts: &[Mounted],
    devices: &[OwnedFd],
) -> Result<(), Failure> {
    for (mounted, device) in mounts.iter().zip(devices) {
        let place = place(workspace, &mounted.path).map_err(|errno| {
            let reason = format!("cannot mount at {}: {}", mounted.path, io::Error::from(errno));
            Failure::Invalid { reason }
        })?;
        mount_one(&place, mounted.read_only, device).map_err(|errno| refused(FUSE, errno))?;
    }
    Ok(())
}

/// A directory below the workspace. Links on the way are refused, wherever they lead: what made them is not to be trusted.
fn place(workspace: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    // What is made belongs to whom the workspace does.
    nix::unistd::setfsgid(nix::unistd::Gid::from_raw(AGENT_ID));
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(AGENT_ID));
    let mut directory = None;
    let found = path.split('/').try_for_each(|name| {
        let parent = directory.as_ref().map_or(workspace, AsFd::as_fd);
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = Some(openat(parent, name, flags, Mode::empty())?);
        Ok(())
    });
    nix::unistd::setfsuid(nix::unistd::geteuid());
    nix::unistd::setfsgid(nix::unistd::getegid());
    found?;
    directory.ok_or(Errno::INVAL)
}

fn mount_one(place: &OwnedFd, read_only: bool, device: &OwnedFd) -> Result<(), Errno> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "storage")?;
    fsconfig_set_string(&context, "fd", device.as_raw_fd().to_string())?;
    fsconfig_set_string(&context, "rootmode", "40000")?;
    fsconfig_set_string(&context, "user_id", AGENT_ID.to_string())?;
    fsconfig_set_string(&context, "group_id", AGENT_ID.to_string())?;
    fsconfig_set_flag(&context, "allow_other")?;
    fsconfig_set_flag(&context, "default_permissions")?;
    if read_only {
        // Beside the mount's own flag: so that this is the first thing that anybody who writes is told.
        fsconfig_set_flag(&context, "ro")?;
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", place, "", empty)
}

/// Hands the devices to whoever serves them, in their order.
pub(crate) fn hand_out(to: &OwnedFd, devices: Vec<OwnedFd>) -> Result<(), Failure> {
    for device in devices {
        let devices = [device.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        message.push(SendAncillaryMessage::ScmRights(&devices));
        sendmsg(to, &[IoSlice::new(b"!")], &mut message, SendFlags::NOSIGNAL)
            .map_err(|errno| refused(FUSE, errno))?;
    }
    Ok(())
}
