//! Paths in the workspace: opened below its root, whatever links and races say.
//!
//! The kernel does the confining (`openat2` with `RESOLVE_BENEATH`), relative to a descriptor of the root; no path
//! is checked first and opened later. It refuses every absolute link, though, and a link from `/workspace/a` to
//! `/workspace/b` does not leave: such links are read here, and the path that comes out is opened without
//! following any.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};
use rustix::io::Errno;

use crate::wire::Failure;
use crate::world::World;

/// As many links as the kernel itself follows.
const MAX_LINKS: usize = 40;

/// Turns a path as asked for into one relative to the root; `.` is the root.
pub(crate) fn relative(world: &World, path: &str) -> Result<String, Failure> {
    if path.contains('\0') {
        return Err(Failure::Invalid { reason: "a path cannot hold a NUL byte".into() });
    }
    let below = if path.starts_with('/') {
        let rest =
            path.strip_prefix(world.root.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        rest.ok_or_else(|| escape(path, &format!("it is not below {}", world.root)))?
    } else {
        path
    };
    let below: Vec<&str> = below.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(if below.is_empty() { ".".into() } else { below.join("/") })
}

/// Opens a path below the root. With `O_NOFOLLOW` in `flags` a link at its end is not followed.
pub(crate) fn open(world: &World, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Failure> {
    let relative = relative(world, path)?;
    open_relative(world, &relative, flags, mode).map_err(|problem| problem.describe(path))
}

/// Why a path could not be opened.
pub(crate) enum Problem {
    Escape(String),
    /// In this mount.
    Mounted(String),
    System(Errno),
}

impl Problem {
    pub(crate) fn describe(self, path: &str) -> Failure {
        match self {
            Self::Escape(reason) => escape(path, &reason),
            Self::Mounted(mount) => Failure::File {
                path: path.into(),
                reason: format!(
                    "it is in the mount {mount}, which commands alone read and write; use a command"
                ),
            },
            Self::System(errno) => failure(path, errno),
        }
    }
}

/// Opens a path relative to the root.
pub(crate) fn open_relative(
    world: &World,
    path: &str,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Problem> {
    // `openat2` takes nothing beside O_PATH that it would ignore.
    let more = if flags.contains(OFlags::PATH) { OFlags::CLOEXEC } else { OFlags::CLOEXEC | OFlags::NOCTTY };
    let flags = flags | more;
    let beneath = ResolveFlags::NO_MAGICLINKS | beneath(world);
    refuse_mounted(world, path)?;
    for _ in 0..4 {
        match openat2(&world.root_fd, path, flags, mode, beneath) {
            Ok(fd) => return Ok(fd),
            // Something was renamed meanwhile, and the kernel cannot be sure.
            Err(Errno::AGAIN) => {}
            Err(Errno::XDEV) => {
                let path = resolve(world, path, !flags.contains(OFlags::NOFOLLOW))?;
                refuse_mounted(world, &path)?;
                let strict = beneath | ResolveFlags::NO_SYMLINKS;
                match openat2(&world.root_fd, path.as_str(), flags, mode, strict) {
                    Ok(fd) => return Ok(fd),
                    // A link appeared where there was none: look again.
                    Err(Errno::AGAIN | Errno::LOOP | Errno::XDEV) => {}
                    Err(errno) => return Err(Problem::System(errno)),
                }
            }
            Err(errno) => return Err(Problem::System(errno)),
        }
    }
    Err(Problem::Escape("it changes while it is being opened".into()))
}

/// Below the root, and not in what is mounted: that answers when it answers, and here nobody may wait.
fn beneath(world: &World) -> ResolveFlags {
    if world.mounts.is_empty() {
        ResolveFlags::BENEATH
    } else {
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV
    }
}

fn refuse_mounted(world: &World, path: &str) -> Result<(), Problem> {
    let within = |mount: &&String| {
        path.strip_prefix(mount.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match world.mounts.iter().find(within) {
        None => Ok(()),
        Some(mount) => Err(Problem::Mounted(mount.clone())),
    }
}

/// Follows links by reading them. The result holds none, unless somebody is changing the tree.
pub(crate) fn resolve(world: &World, path: &str, follow_last: bool) -> Result<String, Problem> {
    let outside = |what: &str| Problem::Escape(format!("it leads to {what}, outside {}", world.root));
    let mut pending: Vec<String> = parts(path);
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            done.pop().ok_or_else(|| outside("a parent"))?;
            continue;
        }
        done.push(part);
        if pending.is_empty() && !follow_last {
            break;
        }
        let here = done.join("/");
        let target = match read_link(world, &here) {
            Ok(target) => target,
            // No link, or nothing: then opening it says so.
            // Nor is there one in a mount.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => continue,
            Err(errno) => return Err(Problem::System(errno)),
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Problem::System(Errno::LOOP));
        }
        done.pop();
        if target.starts_with('/') {
            let rest = target
                .strip_prefix(world.root.as_str())
                .filter(|rest| rest.is_empty() || rest.starts_with('/'));
            pending.extend(parts(rest.ok_or_else(|| outside(&target))?));
            done.clear();
        } else {
            pending.extend(parts(&target));
        }
    }
    Ok(if done.is_empty() { ".".into() } else { done.join("/") })
}

/// A path's parts, last first.
fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

fn read_link(world: &World, path: &str) -> Result<String, Errno> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let beneath = ResolveFlags::NO_SYMLINKS | beneath(world);
    let parent = openat2(&world.root_fd, parent, flags, Mode::empty(), beneath)?;
    let target = readlinkat(&parent, name, Vec::new())?;
    target.into_string().map_err(|_| Errno::ILSEQ)
}

/// The directory that holds a path's last part, and that part. `parents`: make the directories that are missing.
pub(crate) fn open_parent(world: &World, path: &str, parents: bool) -> Result<(OwnedFd, String), Failure> {
    let relative = relative(world, path)?;
    let (parent, name) = relative.rsplit_once('/').unwrap_or((".", &relative));
    if name == "." || name == ".." {
        return Err(Failure::Invalid { reason: format!("{path} names no file") });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let found = match open_relative(world, parent, flags, Mode::empty()) {
        Err(Problem::System(Errno::NOENT)) if parents => make_directories(world, parent),
        other => other,
    };
    Ok((found.map_err(|problem| problem.describe(path))?, name.to_owned()))
}

/// Makes a directory and its missing parents, and opens it.
pub(crate) fn make_directories(world: &World, path: &str) -> Result<OwnedFd, Problem> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let resolved = resolve(world, path, true)?;
    let mut here = String::from(".");
    let mut folder = open_relative(world, &here, flags, Mode::empty())?;
    for part in resolved.split('/').filter(|part| *part != ".") {
        match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Problem::System(errno)),
        }
        here = format!("{here}/{part}");
        folder = open_relative(world, &here, flags, Mode::empty())?;
    }
    Ok(folder)
}

/// Whether something is at `name`, links included.
pub(crate) fn exists(folder: impl AsFd, name: &str) -> bool {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Opens the root itself.
pub(crate) fn open_root(root: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn escape(path: &str, reason: &str) -> Failure {
    Failure::PathEscape { path: path.into(), reason: reason.into() }
}

/// What a system error on a path means.
pub(crate) fn failure(path: &str, errno: Errno) -> Failure {
    let path = path.to_owned();
    match errno {
        Errno::NOENT => Failure::NotFound { path },
        Errno::EXIST => Failure::AlreadyExists { path },
        Errno::XDEV => Failure::PathEscape { path, reason: "it leaves the workspace".into() },
        errno => Failure::File { path, reason: reason(errno) },
    }
}

pub(crate) fn reason(errno: Errno) -> String {
    match errno {
        Errno::NOTEMPTY => "the directory is not empty; remove it recursively".into(),
        Errno::NOSPC => "no space left on the workspace's disk".into(),
        errno => std::io::Error::from(errno).to_string(),
    }
}
