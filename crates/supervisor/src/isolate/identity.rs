//! Who is who: the user namespace's map, and how a workspace's files look through it.
//!
//! A caller with no rights maps one number: 1000 inside is the caller outside, and the workspace's files are the
//! caller's own. Root outside must never be reachable from inside, so for root all of 0 to 65535 is mapped to a
//! range that nobody has, and the workspace is seen through an idmapped mount: on disk its files belong to the
//! directory's owner, inside to user 1000.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::{refused, subordinate};
use crate::accounts::{AGENT_ID, Accounts, FIRST_USER};
use crate::sys;
use crate::wire::Failure;

/// Where a root caller's sandboxes have their users: a range that neither distributions nor container engines
/// give out.
const BASE: u32 = 1_879_048_192;
const COUNT: u32 = 65_536;

pub(crate) const NOSUID_NODEV: u64 = 0x2 | 0x4;

/// Whether the caller may map a range of users: root, and not merely root of a user namespace that has too few, as
/// in a rootless container.
pub fn is_root() -> bool {
    let covers = |map: std::io::Result<String>| map.is_ok_and(|map| map.lines().any(covers_range));
    rustix::process::geteuid().is_root()
        && covers(fs::read_to_string("/proc/self/uid_map"))
        && covers(fs::read_to_string("/proc/self/gid_map"))
}

/// Whether a line of a map, `inside outside count`, has all of the range.
fn covers_range(line: &str) -> bool {
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next())
    else {
        return false;
    };
    inside <= u64::from(BASE) && inside + count >= u64::from(BASE) + u64::from(COUNT)
}

/// Writes the map of a child that is in a new user namespace. `many`: of more users than one.
pub(crate) fn write_map(child: Pid, many: bool) -> Result<(), Failure> {
    if is_root() {
        let map = format!("0 {BASE} {COUNT}\n");
        return write_maps(child, &map, &map);
    }
    if many {
        return subordinate::write_map(child);
    }
    let fail = |error| refused("user namespace", error);
    let child = child.as_raw_nonzero();
    // The kernel's condition for mapping a group without rights.
    fs::write(format!("/proc/{child}/setgroups"), "deny").map_err(fail)?;
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    fs::write(format!("/proc/{child}/uid_map"), format!("{AGENT_ID} {user} 1\n")).map_err(fail)?;
    fs::write(format!("/proc/{child}/gid_map"), format!("{AGENT_ID} {group} 1\n")).map_err(fail)
}

fn write_maps(child: Pid, users: &str, groups: &str) -> Result<(), Failure> {
    let child = child.as_raw_nonzero();
    fs::write(format!("/proc/{child}/uid_map"), users)
        .and_then(|()| fs::write(format!("/proc/{child}/gid_map"), groups))
        .map_err(|error| refused("user namespace", error))
}

/// Becomes the root of a user namespace that was mapped for a root caller. Anybody else is somebody there already.
pub(crate) fn become_inside() -> rustix::io::Result<()> {
    // Root outside and not mapped yet, this shows as no number that exists here.
    if rustix::process::geteuid().as_raw() == AGENT_ID {
        return Ok(());
    }
    let (user, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)
}

/// The layers of a workspace, the highest first, as [`mapped_workspace`] for each. For root. Of the highest it is the
/// directory around it, where the kernel works too.
pub(crate) fn mapped_layers(workspace: &Path, lower: &[PathBuf]) -> Result<Vec<OwnedFd>, Failure> {
    let metadata = fs::metadata(workspace).map_err(|error| refused("workspace", error))?;
    let namespace = namespace_for(metadata.uid(), metadata.gid())?;
    let map = |path: &Path| {
        let tree = clone_tree(path)?;
        sys::mount_setattr(as_fd(&tree), c"", true, NOSUID_NODEV, Some(as_fd(&namespace)))
            .map_err(|error| refused("idmapped mount", error))?;
        Ok(tree)
    };
    around(workspace).into_iter().chain(lower.iter().map(PathBuf::as_path)).map(map).collect()
}

/// The same for an ordinary user.
pub(crate) fn plain_layers(workspace: &Path, lower: &[PathBuf]) -> Result<Vec<OwnedFd>, Failure> {
    around(workspace).into_iter().chain(lower.iter().map(PathBuf::as_path)).map(plain_workspace).collect()
}

fn around(workspace: &Path) -> Option<&Path> {
    workspace.parent()
}

/// The workspace as a mount that is attached nowhere yet, its files shown as the default user's. For root.
pub(crate) fn mapped_workspace(path: &Path, private: bool) -> Result<(OwnedFd, &'static str), Failure> {
    let metadata = fs::metadata(path).map_err(|error| refused("workspace", error))?;
    let tree = clone_tree(path)?;
    let namespace = namespace_for(metadata.uid(), metadata.gid())?;
    match sys::mount_setattr(as_fd(&tree), c"", true, NOSUID_NODEV, Some(as_fd(&namespace))) {
        Ok(()) => Ok((tree, "idmapped mount")),
        Err(error) if private => {
            // Nobody else's files: their owner may change instead.
            give_away(path).map_err(|_| refused("idmapped mount", error))?;
            sys::mount_setattr(as_fd(&tree), c"", true, NOSUID_NODEV, None)
                .map_err(|error| refused("workspace mount", error))?;
            Ok((tree, "owned by the sandbox's users"))
        }
        Err(error) => Err(refused("idmapped mount", error)),
    }
}

/// The workspace as a mount that is attached nowhere yet.
pub(crate) fn plain_workspace(path: &Path) -> Result<OwnedFd, Failure> {
    let tree = clone_tree(path)?;
    sys::mount_setattr(as_fd(&tree), c"", true, NOSUID_NODEV, None)
        .map_err(|error| refused("workspace mount", error))?;
    Ok(tree)
}

fn clone_tree(path: &Path) -> Result<OwnedFd, Failure> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).map_err(|errno| refused("workspace mount", errno))
}

fn as_fd<T: std::os::fd::AsFd>(fd: &T) -> std::os::fd::BorrowedFd<'_> {
    fd.as_fd()
}

/// A user namespace whose map turns the owner on disk into the default user, and leaves the manifest's users be.
fn namespace_for(user: u32, group: u32) -> Result<File, Failure> {
    let fail = |error: std::io::Error| refused("user namespace", error);
    // A namespace is had by having somebody in it.
    let Some(child) = sys::clone_process(libc::CLONE_NEWUSER).map_err(fail)? else {
        loop {
            std::thread::park();
        }
    };
    let opened = write_maps(child, &workspace_map(user), &workspace_map(group))
        .and_then(|()| File::open(format!("/proc/{}/ns/user", child.as_raw_nonzero())).map_err(fail));
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
    opened
}

/// Lines of `on disk, outside, count`.
fn workspace_map(owner: u32) -> String {
    let mut map = format!("{owner} {} 1\n", BASE + AGENT_ID);
    let last = COUNT - 1;
    let mut range = |from: u32, to: u32| {
        if from <= to {
            // Writing to a string does not fail.
            let _ = writeln!(map, "{from} {} {}", BASE + from, to - from + 1);
        }
    };
    if (FIRST_USER..=last).contains(&owner) {
        range(FIRST_USER, owner - 1);
        range(owner + 1, last);
    } else {
        range(FIRST_USER, last);
    }
    map
}

/// Who owns the files of a workspace of `owner`, by their numbers on the disk: names of users and of groups. Whoever is
/// missing is the default user.
pub fn names_on_disk(
    users: &[String],
    groups: &[(String, Vec<String>)],
    owner: (u32, u32),
) -> (BTreeMap<u32, String>, BTreeMap<u32, String>) {
    // A sandbox with other names than these does not start.
    let Ok(accounts) = Accounts::new("/", "/bin/sh", users, groups) else { return Default::default() };
    // As an idmapped mount shows them, and as they lie where there is none.
    let both = |names: BTreeMap<u32, String>, owner: u32| {
        let far = names.clone().into_iter().map(|(id, name)| (BASE + id, name));
        names.into_iter().filter(|(id, _)| *id != owner).chain(far).collect()
    };
    let (users, groups) = accounts.by_number();
    (both(users, owner.0), both(groups, owner.1))
}

/// Makes a private workspace the default user's on disk.
fn give_away(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give_away(&entry.path())?;
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(BASE + AGENT_ID), Some(BASE + AGENT_ID))?;
        }
    }
    std::os::unix::fs::lchown(path, Some(BASE + AGENT_ID), Some(BASE + AGENT_ID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_becomes_the_default_user_and_no_number_is_mapped_twice() {
        assert_eq!(workspace_map(0), "0 1879049192 1\n2000 1879050192 63536\n");
        assert_eq!(workspace_map(2001), "2001 1879049192 1\n2000 1879050192 1\n2002 1879050194 63534\n");
        assert_eq!(workspace_map(65_535), "65535 1879049192 1\n2000 1879050192 63535\n");
    }
}
