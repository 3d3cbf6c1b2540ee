//! Directories of the host that a sandbox sees beside its workspace, because the operator lets it.
//!
//! They are mounts like the workspace: nothing in them is a device or changes who a program is, and their owner's files
//! are shown as the default user's. What is not to be written is mounted read-only.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, move_mount};

use super::identity::{NOSUID_NODEV, mapped_workspace, plain_workspace};
use super::mounts::READ_ONLY;
use super::refused;
use crate::config::Grant;
use crate::sys;
use crate::wire::Failure;

/// Mounts that are attached nowhere yet, one for each grant. `mapped`: for root.
pub(crate) fn trees(grants: &[Grant], mapped: bool) -> Result<Vec<OwnedFd>, Failure> {
    grants.iter().map(|grant| tree(grant, mapped)).collect()
}

fn tree(grant: &Grant, mapped: bool) -> Result<OwnedFd, Failure> {
    let fail = |error: std::io::Error| Failure::File {
        path: grant.source.display().to_string(),
        reason: format!("it cannot be shown at {}: {error}", grant.path),
    };
    // Whoever may write above it must not lead us elsewhere since it was allowed.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = openat2(CWD, &grant.source, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .map_err(|errno| fail(errno.into()))?;
    let by_number = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let tree = if mapped { mapped_workspace(&by_number, false)?.0 } else { plain_workspace(&by_number)? };
    if !grant.writable {
        sys::mount_setattr(tree.as_fd(), c"", true, READ_ONLY | NOSUID_NODEV, None).map_err(fail)?;
    }
    Ok(tree)
}

/// Makes the places for them in the directory of the new root.
pub(crate) fn prepare(grants: &[Grant]) -> std::io::Result<()> {
    grants.iter().try_for_each(|grant| std::fs::create_dir_all(place(grant)))
}

/// Puts them there.
pub(crate) fn attach(grants: &[Grant], trees: &[OwnedFd]) -> Result<(), Failure> {
    for (grant, tree) in grants.iter().zip(trees) {
        move_mount(tree, "", CWD, place(grant), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| refused("bind mount", errno))?;
    }
    Ok(())
}

fn place(grant: &Grant) -> &Path {
    Path::new(grant.path.trim_start_matches('/'))
}
