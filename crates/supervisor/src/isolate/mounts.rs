//! What a sandbox sees of the file system: the system read-only, nothing of anybody's, and its workspace.
//!
//! Built from nothing, not from the host's root with holes: what nobody thought of is absent.

use std::ffi::CStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, move_mount, unmount,
};

use super::{grants, refused};
use crate::accounts::Accounts;
use crate::config::Grant;
use crate::sys;
use crate::wire::Failure;

pub(crate) const READ_ONLY: u64 = 0x1;

/// Where the new root is put together, in a mount namespace of our own. The first that exists.
const BUILD_AT: [&str; 3] = ["/tmp", "/run", "/mnt"];

/// Directories that are links on most systems, and directories on some.
const SYSTEM: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs need from `/etc`, none of it anybody's secret. Other entries of the host's are absent. Each one
/// costs every start some microseconds, so there is none here without a use.
const ETC: [&str; 15] = [
    "alternatives",
    "bash.bashrc",
    "fonts",
    "inputrc",
    "ld.so.cache",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "pki",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];
/// A Java's settings are in a directory named by its version.
const ETC_PREFIXES: [&str; 1] = ["java"];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files of `/proc` that tell about the whole machine.
const MASKED: [&str; 4] = ["proc/kcore", "proc/keys", "proc/sysrq-trigger", "proc/timer_list"];

/// Directories that a workspace may not cover, nor lie in.
const RESERVED: [&str; 11] =
    ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys"];
/// Directories that it may lie in, but not cover.
const SHARED: [&str; 5] = ["home", "run", "tmp", "var", "var/tmp"];

/// Whether a workspace can be at this path inside a sandbox; if not, why.
///
/// ```
/// assert!(mooring_supervisor::root_allowed("/workspace").is_ok());
/// assert!(mooring_supervisor::root_allowed("/usr/share").is_err());
/// ```
pub fn root_allowed(root: &str) -> Result<(), String> {
    let Some(path) = root.strip_prefix('/') else {
        return Err(format!("the workspace's root '{root}' must be an absolute path"));
    };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if !path.split('/').all(plain) {
        return Err(format!("the workspace's root '{root}' must be a path without '.', '..' or empty parts"));
    }
    let first = path.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) || first == "usr" || SHARED.contains(&path) {
        return Err(format!(
            "the workspace's root cannot be {root}, which is the system's; /workspace is usual"
        ));
    }
    Ok(())
}

/// Makes the file system, enters it, and leaves the old one behind. `workspace` are its layers: one, or those of
/// [`super::layers::overlay`].
///
/// `granted` are the mounts of `grants`.
pub(crate) fn enter(
    root: &str,
    workspace: &[OwnedFd],
    (grants, granted): (&[Grant], &[OwnedFd]),
    accounts: &Accounts,
) -> Result<(), Failure> {
    let step = |what: &'static str| move |error: rustix::io::Errno| refused(what, error);
    let file = |error: std::io::Error| refused("mount namespace", error);
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(step("mount namespace"))?;
    let base = BUILD_AT.into_iter().find(|path| Path::new(path).is_dir());
    let base = base.ok_or_else(|| file(std::io::Error::other("none of /tmp, /run and /mnt exists")))?;
    let nosuid_nodev = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", base, "tmpfs", nosuid_nodev, c"mode=0755,size=16m").map_err(step("tmpfs mount"))?;
    rustix::process::chdir(base).map_err(step("tmpfs mount"))?;
    let overlay;
    let workspace = match workspace {
        [one] => one,
        layers => {
            overlay = super::layers::overlay(layers)?;
            &overlay
        }
    };

    for folder in ["usr", "etc/ssl", "dev/pts", "dev/shm", "proc", "tmp", "run", "home"] {
        fs::create_dir_all(folder).map_err(file)?;
    }
    for folder in ["var/cache", "var/lib", "var/log", "var/spool"] {
        fs::create_dir_all(folder).map_err(file)?;
    }
    symlink("../tmp", "var/tmp").and_then(|()| symlink("../run", "var/run")).map_err(file)?;
    mount_bind_recursive("/usr", "usr").map_err(step("bind mount"))?;
    for name in SYSTEM {
        show(&format!("/{name}"), name, false)?;
    }
    fill_etc(accounts).map_err(file)?;
    prepare_devices().map_err(file)?;
    let mount_point = &root[1..];
    fs::create_dir_all(mount_point).map_err(file)?;
    grants::prepare(grants).map_err(file)?;
    sys::mount_setattr(CWD, c".", true, READ_ONLY | super::identity::NOSUID_NODEV, None)
        .map_err(|error| refused("read-only mount", error))?;

    // From here on what is writable, or a device.
    for name in DEVICES {
        mount_bind(format!("/dev/{name}"), format!("dev/{name}")).map_err(step("device mount"))?;
    }
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "dev/pts", "devpts", quiet, c"newinstance,ptmxmode=0666,mode=0620")
        .map_err(step("devpts mount"))?;
    let temporary: [(&str, &CStr); 3] =
        [("dev/shm", c"mode=1777,size=512m"), ("tmp", c"mode=1777,size=4g"), ("run", c"mode=1777,size=64m")];
    for (folder, options) in temporary {
        mount("tmpfs", folder, "tmpfs", nosuid_nodev, options).map_err(step("tmpfs mount"))?;
    }
    mount("proc", "proc", "proc", quiet | MountFlags::NODEV, None).map_err(step("proc mount"))?;
    for name in MASKED {
        if Path::new(name).exists() {
            mount_bind("/dev/null", name).map_err(step("proc mount"))?;
        }
    }
    mount_bind("proc/sys", "proc/sys").map_err(step("proc mount"))?;
    sys::mount_setattr(CWD, c"proc/sys", false, READ_ONLY, None)
        .map_err(|error| refused("proc mount", error))?;

    // Below /tmp or /run the mount point has just been covered.
    fs::create_dir_all(mount_point).map_err(file)?;
    grants::prepare(grants).map_err(file)?;
    move_mount(workspace, "", CWD, mount_point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(step("workspace mount"))?;
    grants::attach(grants, granted)?;
    rustix::process::pivot_root(".", ".").map_err(step("pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(step("pivot_root"))?;
    rustix::process::chdir("/").map_err(step("pivot_root"))
}

/// Shows something of the host's: a link as a link, a directory as a mount, a file as a copy (which is cheaper
/// than a mount). What the host lacks is left out.
fn show(source: &str, target: &str, files: bool) -> Result<(), Failure> {
    let file = |error: std::io::Error| refused("mount namespace", error);
    let Ok(metadata) = fs::symlink_metadata(source) else { return Ok(()) };
    if metadata.is_symlink() {
        symlink(fs::read_link(source).map_err(file)?, target).map_err(file)
    } else if metadata.is_dir() {
        fs::create_dir_all(target).map_err(file)?;
        mount_bind_recursive(source, target).map_err(|errno| refused("bind mount", errno))
    } else if files {
        // One that not everyone may read is not for the sandbox.
        fs::read(source).map_or(Ok(()), |content| fs::write(target, content).map_err(file))
    } else {
        Ok(())
    }
}

fn fill_etc(accounts: &Accounts) -> std::io::Result<()> {
    let show = |name: &str| {
        show(&format!("/etc/{name}"), &format!("etc/{name}"), true).map_err(std::io::Error::other)
    };
    for name in ETC {
        show(name)?;
    }
    for entry in fs::read_dir("/etc")? {
        let name = entry?.file_name();
        if let Some(name) =
            name.to_str().filter(|name| ETC_PREFIXES.iter().any(|start| name.starts_with(start)))
        {
            show(name)?;
        }
    }
    let files = [
        ("passwd", accounts.passwd()),
        ("group", accounts.group_file()),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 sandbox\n".into()),
        ("hostname", "sandbox\n".into()),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n".into(),
        ),
        ("resolv.conf", String::new()),
    ];
    for (name, content) in files {
        fs::write(format!("etc/{name}"), content)?;
    }
    symlink("/proc/self/mounts", "etc/mtab")
}

fn prepare_devices() -> std::io::Result<()> {
    for name in DEVICES {
        fs::write(format!("dev/{name}"), "")?;
    }
    symlink("/proc/self/fd", "dev/fd")?;
    symlink("/proc/self/fd/0", "dev/stdin")?;
    symlink("/proc/self/fd/1", "dev/stdout")?;
    symlink("/proc/self/fd/2", "dev/stderr")?;
    symlink("pts/ptmx", "dev/ptmx")
}
