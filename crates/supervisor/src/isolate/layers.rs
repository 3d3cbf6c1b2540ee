//! A workspace of several layers: an overlay, of which only the highest is written to.
//!
//! So two sandboxes begin with the same files and share them, until one of them changes something: that goes into its
//! own layer. The kernel mounts overlays for whoever is root in a user namespace. What it makes in the layers must
//! belong to somebody whom their maps know, and that is the default user, not the root of the namespace.

use std::fs;
use std::os::fd::OwnedFd;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{CWD, StatVfsMountFlags, fstatvfs};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

use super::refused;
use crate::accounts::AGENT_ID;
use crate::wire::Failure;

/// Where the layers are while the overlay is made, in the directory of the new root. Short: the kernel takes no more
/// than 255 bytes for all of them.
const PLACE: &str = "l";

/// Puts layers together, the directory around the highest first. Gives a mount that is attached nowhere yet. Needs an
/// empty directory of its own to work in.
pub(crate) fn overlay(layers: &[OwnedFd]) -> Result<OwnedFd, Failure> {
    let file = |error: std::io::Error| refused("overlay mount", error);
    let step = |errno: rustix::io::Errno| refused("overlay mount", errno);
    let places: Vec<String> = (0..layers.len()).map(|number| format!("{PLACE}/{number}")).collect();
    for (layer, place) in layers.iter().zip(&places) {
        fs::create_dir_all(place).map_err(file)?;
        move_mount(layer, "", CWD, place.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(step)?;
    }
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step)?;
    let (highest, lower) =
        places.split_first().ok_or_else(|| file(std::io::Error::other("there is no layer")))?;
    for (key, value) in [
        ("source", "workspace".to_owned()),
        ("lowerdir", lower.join(":")),
        ("upperdir", format!("{highest}/workspace")),
        ("workdir", format!("{highest}/work")),
    ] {
        fsconfig_set_string(&overlay, key, value.as_str()).map_err(step)?;
    }
    // Its marks are attributes that this user may set.
    fsconfig_set_flag(&overlay, "userxattr").map_err(step)?;
    as_agent(|| fsconfig_create(&overlay)).map_err(step)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mounted = fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step)?;
    // Where the kernel cannot work beside the highest layer, it mounts all the same.
    if fstatvfs(&mounted).map_err(step)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(file(std::io::Error::other("the kernel can only mount it read-only")));
    }
    for place in &places {
        // The overlay has its own hold on them.
        unmount(place.as_str(), UnmountFlags::DETACH).map_err(step)?;
        fs::remove_dir(place).map_err(file)?;
    }
    fs::remove_dir(PLACE).map_err(file)?;
    Ok(mounted)
}

/// Does something as the default user where files are concerned, with every right in this namespace all the same.
fn as_agent<T>(work: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let group = setfsgid(Gid::from_raw(AGENT_ID));
    let user = setfsuid(Uid::from_raw(AGENT_ID));
    let sets = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })?;
    let done = work();
    setfsuid(user);
    setfsgid(group);
    done
}
