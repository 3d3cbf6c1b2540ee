//! File operations, with no more rights than the session's default user has.

use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use mooring_sandbox::{FileKind, FileStat, WriteOptions};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, fchmod, fstat, mkdirat, openat,
    openat2, readlinkat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::frame::MAX_PAYLOAD;
use crate::paths::{self, failure, open, open_parent, open_relative};
use crate::wire::Failure;
use crate::world::World;

pub(crate) fn read(world: &World, path: &str, max: u64) -> Result<Vec<u8>, Failure> {
    // O_NONBLOCK: a FIFO must not hold up everyone.
    let fd = open(world, path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let refuse = |reason: String| Err(Failure::File { path: path.into(), reason });
    let stat = fstat(&fd).map_err(|errno| failure(path, errno))?;
    if kind(&stat) != FileKind::File {
        return refuse("it is not a regular file".into());
    }
    let max = max.min(MAX_PAYLOAD as u64);
    let too_large = |size: u64| refuse(format!("it has {size} bytes, more than the {max} allowed"));
    if stat.st_size as u64 > max {
        return too_large(stat.st_size as u64);
    }
    let mut data = Vec::with_capacity(stat.st_size as usize);
    // It may grow while it is read.
    let read = std::fs::File::from(fd).take(max + 1).read_to_end(&mut data);
    match read {
        Ok(size) if size as u64 > max => too_large(size as u64),
        Ok(_) => Ok(data),
        Err(error) => refuse(error.to_string()),
    }
}

/// Writes beside the file and renames over it, so that a reader sees the old content or the new.
pub(crate) fn write(world: &World, path: &str, data: &[u8], options: &WriteOptions) -> Result<(), Failure> {
    let fail = |errno: Errno| failure(path, errno);
    let relative = paths::relative(world, path)?;
    // Through a link to the file that it names. `create_new` is about the link itself.
    let target = if options.create_new {
        relative
    } else {
        paths::resolve(world, &relative, true).map_err(|problem| problem.describe(path))?
    };
    let (folder, name) =
        open_parent(world, &target, options.parents).map_err(|error| rename_path(error, path))?;
    let old = statat(&folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
    let mode = match (&old, options.mode) {
        (Ok(_), _) if options.create_new => return Err(fail(Errno::EXIST)),
        (Ok(old), _) if kind(old) == FileKind::Directory => return Err(fail(Errno::ISDIR)),
        (_, Some(mode)) => mode,
        (Ok(old), None) if kind(old) == FileKind::File => old.st_mode & 0o7777,
        _ => 0o644,
    };
    let temporary = temporary_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&folder, temporary.as_str(), flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
    let mut file = std::fs::File::from(fd);
    let written = file.write_all(data).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let replace = if options.create_new { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
    written
        // Never set-user-id, as for commands (see `seccomp`): on disk the file may be root's.
        .and_then(|()| fchmod(&file, Mode::from_raw_mode(mode & 0o1777)))
        .and_then(|()| renameat_with(&folder, temporary.as_str(), &folder, name.as_str(), replace))
        .map_err(|errno| {
            // The first error is the one to tell.
            let _ = unlinkat(&folder, temporary.as_str(), AtFlags::empty());
            fail(errno)
        })
}

pub(crate) fn rename(world: &World, from: &str, to: &str) -> Result<(), Failure> {
    let (from_folder, from_name) = open_parent(world, from, false)?;
    let (to_folder, to_name) = open_parent(world, to, false)?;
    if !paths::exists(&from_folder, &from_name) {
        return Err(failure(from, Errno::NOENT));
    }
    let no_replace = RenameFlags::NOREPLACE;
    match renameat_with(&from_folder, from_name.as_str(), &to_folder, to_name.as_str(), no_replace) {
        // A file system without the flag: not atomic there, but for the workspace's own processes alone.
        Err(Errno::INVAL) if !paths::exists(&to_folder, &to_name) => {
            renameat(&from_folder, from_name.as_str(), &to_folder, to_name.as_str())
        }
        other => other,
    }
    .map_err(|errno| failure(to, errno))
}

pub(crate) fn list(world: &World, path: &str) -> Result<Vec<FileStat>, Failure> {
    let fail = |errno: Errno| failure(path, errno);
    let folder = open(world, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut files = Vec::new();
    for name in names(&folder).map_err(fail)? {
        match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let target = if kind(&stat) == FileKind::Symlink {
                    readlinkat(&folder, &name, Vec::new())
                        .ok()
                        .map(|target| target.to_string_lossy().into_owned())
                } else {
                    None
                };
                files.push(file_stat(world, name.to_string_lossy().into_owned(), &stat, target));
            }
            // Gone since.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

pub(crate) fn mkdir(world: &World, path: &str, parents: bool) -> Result<(), Failure> {
    if parents {
        let relative = paths::relative(world, path)?;
        return paths::make_directories(world, &relative).map(drop).map_err(|problem| problem.describe(path));
    }
    let (folder, name) = open_parent(world, path, false)?;
    mkdirat(&folder, name.as_str(), Mode::from_raw_mode(0o755)).map_err(|errno| failure(path, errno))
}

/// Removes a file or an empty directory. A whole tree is a job (see `jobs`).
pub(crate) fn remove(world: &World, path: &str) -> Result<(), Failure> {
    let (folder, name) = open_parent(world, path, false)?;
    let removed = match unlinkat(&folder, name.as_str(), AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(&folder, name.as_str(), AtFlags::REMOVEDIR),
        other => other,
    };
    removed.map_err(|errno| failure(path, errno))
}

pub(crate) fn stat(world: &World, path: &str) -> Result<FileStat, Failure> {
    let relative = paths::relative(world, path)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let fd =
        open_relative(world, &relative, flags, Mode::empty()).map_err(|problem| problem.describe(path))?;
    let stat = fstat(&fd).map_err(|errno| failure(path, errno))?;
    let target = readlinkat(&fd, "", Vec::new()).ok().filter(|_| kind(&stat) == FileKind::Symlink);
    Ok(file_stat(world, path.into(), &stat, target.map(|target| target.to_string_lossy().into_owned())))
}

/// Removes everything in a directory but what is called `spared`, through descriptors, following no link and entering
/// no mount. Whether a mount was left, and with it the directories that lead to it.
pub(crate) fn remove_below(folder: &impl AsFd, spared: Option<&str>) -> Result<bool, Errno> {
    let mut left = false;
    for name in names(folder)? {
        if spared.is_some_and(|spared| spared.as_bytes() == name.to_bytes()) {
            continue;
        }
        match unlinkat(folder, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            // So the kernel says for a mount.
            Err(Errno::BUSY) => {
                left = true;
                continue;
            }
            Err(errno) => return Err(errno),
        }
        match enter(folder, &name)? {
            None => left = true,
            Some(below) if remove_below(&below, None)? => left = true,
            Some(_) => unlinkat(folder, &name, AtFlags::REMOVEDIR)?,
        }
    }
    Ok(left)
}

/// A directory, opened. `None`: it is a mount.
fn enter(folder: &impl AsFd, name: &CString) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(folder, name, flags, Mode::empty(), strict) {
        Ok(below) => Ok(Some(below)),
        Err(Errno::XDEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Moves everything in one directory to another that holds nothing but mounts, and directories that lead to them.
/// What would be in a mount's place stays.
pub(crate) fn move_below(from: &impl AsFd, to: &impl AsFd) -> Result<(), Errno> {
    for name in names(from)? {
        match renameat(from, &name, to, &name) {
            Ok(()) => continue,
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::BUSY | Errno::ISDIR | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
        let Some(target) = enter(to, &name)? else { continue };
        match enter(from, &name) {
            Ok(Some(source)) => move_below(&source, &target)?,
            // Where there is a file now, a mount is in its way.
            Ok(None) | Err(Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn names(folder: &impl AsFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if ![c".", c".."].contains(&name.as_c_str()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// An error about a resolved path, told with the path that was asked for.
fn rename_path(error: Failure, asked: &str) -> Failure {
    match error {
        Failure::NotFound { .. } => Failure::NotFound { path: asked.into() },
        Failure::PathEscape { reason, .. } => Failure::PathEscape { path: asked.into(), reason },
        Failure::File { reason, .. } => Failure::File { path: asked.into(), reason },
        other => other,
    }
}

/// A name that nothing has, not even what an earlier supervisor left half-written.
pub(crate) fn temporary_name() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!(".moor-{:016x}", RandomState::new().hash_one(rustix::process::getpid()))
}

fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

fn file_stat(world: &World, name: String, stat: &Stat, target: Option<String>) -> FileStat {
    // Where one number alone is mapped, or it is the host's that is seen, names of the sandbox's say nothing.
    let (user, group) =
        if world.many_users { world.accounts.names(stat.st_uid, stat.st_gid) } else { ("", "") };
    FileStat {
        name,
        kind: kind(stat),
        size: stat.st_size as u64,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: user.into(),
        group: group.into(),
        modified_ns: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
        target,
    }
}
