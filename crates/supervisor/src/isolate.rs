//! Isolation: a process puts itself, and all that will come from it, into a world of its own.
//!
//! Each part is one mechanism with one file. A part that the kernel refuses is an error that names it and says
//! what to do; nothing here falls back to less. Required are the namespaces (user, mount, pid, network, ipc, uts,
//! cgroup), seccomp, no new privileges, no capabilities, and each limit that was asked for. Recorded but not required
//! is Landlock alone: a second wall, which not every kernel has.

pub(crate) mod cgroup;
pub(crate) mod grants;
pub(crate) mod identity;
pub(crate) mod landlock;
pub(crate) mod layers;
pub(crate) mod mounts;
pub(crate) mod seccomp;
pub(crate) mod storage;
pub(crate) mod subordinate;

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::wire::Failure;

pub use identity::{is_root, names_on_disk};
pub use mounts::root_allowed;
pub use subordinate::more_users;

/// Hints that fit a primitive, for whoever sees the error.
pub(crate) fn hint(primitive: &str) -> &'static str {
    match primitive {
        "user namespace" => {
            "allow unprivileged user namespaces (sysctl user.max_user_namespaces > 0, \
             kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor \
             profile with `userns,`); in a container, run it with --security-opt seccomp=unconfined; \
             `moor doctor` shows which. Or ask for `--isolation none` by name if you trust the commands"
        }
        "subordinate users" => {
            "have a range given (`usermod --add-subuids`, `--add-subgids`), or leave users out of the manifest"
        }
        "idmapped mount" => {
            "keep the workspace on a file system that supports idmapped mounts (ext4, xfs, btrfs, tmpfs; \
             Linux 5.12 or newer), leave out --workspace, or run as an ordinary user"
        }
        "overlay mount" => {
            "the kernel does not let this user stack directories (overlayfs with userxattr, Linux 5.11 or newer; for \
             root 5.19): restore a snapshot into a new sandbox instead of starting a fork"
        }
        "fuse" => {
            "mounts need the device /dev/fuse: load the kernel's module (`modprobe fuse`), and let this user read and \
             write the device (`chmod 666 /dev/fuse`, as most distributions have it; in a container --device /dev/fuse)"
        }
        "fuse mount" => {
            "the place must be a directory that no link leads to, and the kernel must let user namespaces mount FUSE \
             (Linux 4.18 or newer)"
        }
        "proc mount" => {
            "the host's /proc is partly hidden, as in most containers; run the container with an unmasked /proc \
             (--security-opt systempaths=unconfined)"
        }
        _ => "run `moor doctor` to see what this machine can isolate",
    }
}

/// A mechanism that the kernel refused.
pub(crate) fn refused(primitive: &str, error: impl Into<std::io::Error>) -> Failure {
    let reason = error.into().to_string();
    Failure::Isolation { primitive: primitive.into(), reason, hint: hint(primitive).into() }
}

/// What the supervisor keeps: it becomes the commands' users, and signals them.
const KEPT: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::KILL);

/// What its jobs may take up again, on the workspace alone (see `jobs`).
const FOR_JOBS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Gives up what the supervisor does not need, for good. All of it counted only inside its user namespace anyway.
pub(crate) fn drop_rights() -> Result<(), Failure> {
    let fail = |errno: rustix::io::Errno| refused("capabilities", errno);
    rustix::thread::clear_ambient_capability_set().map_err(fail)?;
    for bit in 0..63 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Beyond the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(fail(errno)),
        }
    }
    let sets =
        CapabilitySets { effective: KEPT, permitted: KEPT | FOR_JOBS, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(fail)?;
    rustix::thread::set_no_new_privs(true).map_err(|errno| refused("no_new_privs", errno))?;
    // Its memory, descriptors and program are nobody's business inside, not even those of the same user.
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(hidden).map_err(|errno| refused("PR_SET_DUMPABLE", errno))
}
