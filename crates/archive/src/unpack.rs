//! A tar stream as a directory tree, confined to its root.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::read::{Limits, Member, MemberKind, read};
use crate::walk::open_directory;
use crate::{ArchiveError, Stats};

/// Gives a user's and a group's numbers for their names, each of which may be empty. `None`: the caller's own.
pub type Owners<'a> = dyn Fn(&str, &str) -> Option<(u32, u32)> + 'a;

/// How many names are tried for a file that is made beside another.
const MAX_NAMES: u32 = 1000;

/// How often a path is resolved again when a rename in the tree disturbed the kernel.
const MAX_RESOLVES: usize = 64;

/// Unpacks a tar stream below `root`, which must exist.
///
/// `owners` knows users and groups by name; numbers in the archive are never looked at. Modes and times are kept, but for the setuid and setgid bits;
/// directories get theirs last. Parents that the archive does not name are made with mode 0755. A `.` member is
/// accepted and changes nothing: the root belongs to the caller.
///
/// A file or link that exists is replaced, never written through, and is what it was until all of the new one is there.
/// A symbolic link may point anywhere, because nothing is ever written through one that leaves the root; within the
/// root, parents may be links.
///
/// # Errors
/// [`ArchiveError::Refused`] for what [`read`] refuses, for a parent that is a link out of the root, and for a
/// directory and something else at one path. [`ArchiveError::Limit`], [`ArchiveError::Stream`],
/// [`ArchiveError::File`]. What was unpacked before an error stays, but for the file that it met.
pub fn unpack(
    root: &Path,
    mut archive: impl Read,
    limits: &Limits,
    owners: &Owners<'_>,
) -> Result<Stats, ArchiveError> {
    unpack_from(root, &mut archive, limits, owners)
}

fn unpack_from(
    root: &Path,
    stream: &mut dyn Read,
    limits: &Limits,
    owners: &Owners<'_>,
) -> Result<Stats, ArchiveError> {
    let mut unpacker = Unpacker {
        root: open_directory(root)?,
        owners,
        directories: BTreeMap::new(),
        parent: None,
        chunk: vec![0; 64 << 10],
    };
    let stats = read(stream, limits, &mut |member, content| unpacker.member(member, content))?;
    unpacker.finish_directories()?;
    Ok(stats)
}

/// What a directory gets once nothing is written into it any more.
struct Directory {
    mode: u32,
    /// `None`: made only because something is in it.
    times: Option<Timestamps>,
    owner: Option<(u32, u32)>,
}

struct Unpacker<'a> {
    root: OwnedFd,
    owners: &'a Owners<'a>,
    directories: BTreeMap<PathBuf, Directory>,
    /// The last parent, since members mostly come in its order.
    parent: Option<(PathBuf, OwnedFd)>,
    chunk: Vec<u8>,
}

impl Unpacker<'_> {
    fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), ArchiveError> {
        let path = &member.path;
        let (Some(parent), Some(last)) = (path.parent(), path.file_name()) else {
            return Err(ArchiveError::refused(path, "it names the root itself"));
        };
        let owner = (self.owners)(&member.user, &member.group);
        let times = times(member);
        if member.kind != MemberKind::Directory && self.directories.contains_key(path) {
            return Err(ArchiveError::refused(path, "the archive has this path twice"));
        }
        match &member.kind {
            MemberKind::Directory => {
                self.make_directory(parent, path, last)?;
                let directory = Directory { mode: member.mode, times: Some(times), owner };
                self.directories.insert(path.clone(), directory);
            }
            MemberKind::File { size, sparse } => {
                let (file, beside) = self.create(parent, path, last)?;
                let filled = self
                    .fill(content, &file, path, sparse.then_some(*size))
                    .and_then(|()| set_metadata(file.as_fd(), path, member.mode, Some(&times), owner));
                self.settle(path, last, beside.as_ref(), filled)?;
            }
            MemberKind::Symlink(target) => {
                self.place(parent, path, last, |parent, name| {
                    rustix::fs::symlinkat(target.as_os_str(), parent, name)
                })?;
                self.finish_unopened(path, last, None, &times, owner)?;
            }
            MemberKind::HardLink(target) => self.hard_link(parent, path, last, target)?,
            MemberKind::Fifo => {
                self.place(parent, path, last, |parent, name| {
                    rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                })?;
                self.finish_unopened(path, last, Some(member.mode), &times, owner)?;
            }
        }
        Ok(())
    }

    /// Writes a file's content. Of one with holes, `sparse` is the size, and runs of zeros are left out.
    fn fill(
        &mut self,
        content: &mut dyn Read,
        mut file: &File,
        path: &Path,
        sparse: Option<u64>,
    ) -> Result<(), ArchiveError> {
        let failed = |error| ArchiveError::file("write", path, error);
        loop {
            let count = content.read(&mut self.chunk).map_err(ArchiveError::read)?;
            if count == 0 {
                break;
            }
            let piece = &self.chunk[..count];
            if sparse.is_some() && piece.iter().all(|byte| *byte == 0) {
                file.seek(SeekFrom::Current(count as i64)).map_err(failed)?;
            } else {
                file.write_all(piece).map_err(failed)?;
            }
        }
        match sparse {
            Some(size) => file.set_len(size).map_err(failed),
            None => Ok(()),
        }
    }

    /// Makes a file; where something is in its place, beside that, under the name that is given.
    fn create(
        &mut self,
        parent: &Path,
        path: &Path,
        last: &OsStr,
    ) -> Result<(File, Option<String>), ArchiveError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.parent(parent)?;
        let failed = |error: Errno| ArchiveError::file("create", path, error);
        let make = |name: &OsStr| rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        match make(last) {
            Err(Errno::EXIST) => {}
            made => return Ok((made.map_err(failed)?.into(), None)),
        }
        let process = rustix::process::getpid().as_raw_nonzero();
        let mut made = Err(Errno::EXIST);
        let mut name = String::new();
        for number in 0..MAX_NAMES {
            name = format!(".moor-{process}-{number}");
            made = make(name.as_ref());
            if made.as_ref().err() != Some(&Errno::EXIST) {
                break;
            }
        }
        Ok((made.map_err(failed)?.into(), Some(name)))
    }

    /// Puts a file that was made beside another in its place, or removes what could not be filled.
    fn settle(
        &self,
        path: &Path,
        last: &OsStr,
        beside: Option<&String>,
        filled: Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        // `create` has just put the parent here.
        let Some((_, parent)) = &self.parent else { return filled };
        let settled = match beside {
            Some(name) if filled.is_ok() => rustix::fs::renameat(parent, name.as_str(), parent, last)
                .map_err(|error| match error {
                    Errno::ISDIR => ArchiveError::refused(path, "a directory is in its place"),
                    error => ArchiveError::file("replace", path, error),
                }),
            _ => filled,
        };
        if settled.is_err() {
            // The first error is the one to tell.
            let name = beside.map_or(last, |name| name.as_ref());
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
        }
        settled
    }

    fn hard_link(
        &mut self,
        parent: &Path,
        path: &Path,
        last: &OsStr,
        target: &Path,
    ) -> Result<(), ArchiveError> {
        let (Some(above), Some(first)) = (target.parent(), target.file_name()) else {
            return Err(ArchiveError::refused(path, "the hard link names the root itself"));
        };
        let from = self.open(above).map_err(|error| outside(target, error))?;
        let stat = rustix::fs::statat(&from, first, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| ArchiveError::file("look at", target, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ArchiveError::refused(path, "the file it links to was replaced"));
        }
        self.place(parent, path, last, |parent, name| {
            rustix::fs::linkat(&from, first, parent, name, AtFlags::empty())
        })
    }

    /// The metadata of what cannot be opened, or must not be: a link, a FIFO.
    fn finish_unopened(
        &mut self,
        path: &Path,
        last: &OsStr,
        mode: Option<u32>,
        times: &Timestamps,
        owner: Option<(u32, u32)>,
    ) -> Result<(), ArchiveError> {
        // `place` has just put the parent here.
        let Some((_, parent)) = &self.parent else { return Ok(()) };
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(parent, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| ArchiveError::file("change the owner of", path, error))?;
        }
        if let Some(mode) = mode {
            set_fifo_mode(parent, path, last, mode)?;
        }
        rustix::fs::utimensat(parent, last, times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| ArchiveError::file("set the time of", path, error))
    }

    /// Makes something new at `path`, in place of a file or link that is there.
    fn place<T>(
        &mut self,
        parent: &Path,
        path: &Path,
        last: &OsStr,
        make: impl Fn(BorrowedFd<'_>, &OsStr) -> Result<T, Errno>,
    ) -> Result<T, ArchiveError> {
        let parent = self.parent(parent)?;
        let made = match make(parent, last) {
            Err(Errno::EXIST) => {
                match rustix::fs::unlinkat(parent, last, AtFlags::empty()) {
                    Err(Errno::ISDIR) => {
                        return Err(ArchiveError::refused(path, "a directory is in its place"));
                    }
                    Err(Errno::NOENT) | Ok(()) => {}
                    Err(error) => return Err(ArchiveError::file("replace", path, error)),
                }
                make(parent, last)
            }
            other => other,
        };
        made.map_err(|error| ArchiveError::file("create", path, error))
    }

    fn make_directory(&mut self, parent: &Path, path: &Path, last: &OsStr) -> Result<(), ArchiveError> {
        let parent = self.parent(parent)?;
        match rustix::fs::mkdirat(parent, last, Mode::RWXU) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, last, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| ArchiveError::file("look at", path, error))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    Ok(())
                } else {
                    Err(ArchiveError::refused(path, "something that is not a directory is in its place"))
                }
            }
            Err(error) => Err(ArchiveError::file("create", path, error)),
        }
    }

    /// The directory `path`, made with its parents where it does not exist.
    fn parent(&mut self, path: &Path) -> Result<BorrowedFd<'_>, ArchiveError> {
        if self.parent.as_ref().is_none_or(|(cached, _)| cached != path) {
            let opened = match self.open(path) {
                Err(Errno::NOENT) => self.make_parents(path)?,
                other => other.map_err(|error| outside(path, error))?,
            };
            self.parent = Some((path.to_owned(), opened));
        }
        match &self.parent {
            Some((_, opened)) => Ok(opened.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    fn make_parents(&mut self, path: &Path) -> Result<OwnedFd, ArchiveError> {
        let mut above = self.open(Path::new("")).map_err(|error| outside(path, error))?;
        let mut so_far = PathBuf::new();
        for component in path.components() {
            so_far.push(component);
            // Resolved from the root each time: a link may lead up and still stay inside.
            above = match self.open(&so_far) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&above, component.as_os_str(), Mode::RWXU) {
                        Ok(()) => {
                            let implied = Directory { mode: 0o755, times: None, owner: None };
                            self.directories.insert(so_far.clone(), implied);
                        }
                        // A link to nowhere; opening it says so.
                        Err(Errno::EXIST) => {}
                        Err(error) => return Err(ArchiveError::file("create", &so_far, error)),
                    }
                    self.open(&so_far).map_err(|error| outside(&so_far, error))?
                }
                other => other.map_err(|error| outside(&so_far, error))?,
            };
        }
        Ok(above)
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        beneath(self.root.as_fd(), path, OFlags::PATH)
    }

    fn finish_directories(&mut self) -> Result<(), ArchiveError> {
        // From the last: a directory's mode may lock us out of what is below it.
        while let Some((path, directory)) = self.directories.pop_last() {
            let opened = beneath(self.root.as_fd(), &path, OFlags::RDONLY | OFlags::NOFOLLOW)
                .map_err(|error| outside(&path, error))?;
            set_metadata(opened.as_fd(), &path, directory.mode, directory.times.as_ref(), directory.owner)?;
        }
        Ok(())
    }
}

/// Opens a directory below `root`; links may be followed as long as they stay there.
fn beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(Errno::AGAIN);
    for _ in 0..MAX_RESOLVES {
        result = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// What it means that a directory on the way cannot be opened.
fn outside(path: &Path, error: Errno) -> ArchiveError {
    match error {
        Errno::XDEV | Errno::LOOP => ArchiveError::refused(path, "it is below a link that leaves the root"),
        Errno::NOTDIR => ArchiveError::refused(path, "it is below something that is not a directory"),
        Errno::NOENT => ArchiveError::refused(path, "it is below a link that points nowhere"),
        error => ArchiveError::file("open", path, error),
    }
}

/// A FIFO's permissions, by its own descriptor: by its name, a link that is put there now would be followed.
fn set_fifo_mode(parent: &OwnedFd, path: &Path, last: &OsStr, mode: u32) -> Result<(), ArchiveError> {
    let failed = |error: Errno| ArchiveError::file("change the mode of", path, error);
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = rustix::fs::openat(parent, last, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&fifo).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(ArchiveError::refused(path, "it was replaced meanwhile"));
    }
    rustix::fs::fchmod(&fifo, Mode::from_raw_mode(mode)).map_err(failed)
}

/// The owner first: changing it clears mode bits.
fn set_metadata(
    file: BorrowedFd<'_>,
    path: &Path,
    mode: u32,
    times: Option<&Timestamps>,
    owner: Option<(u32, u32)>,
) -> Result<(), ArchiveError> {
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| ArchiveError::file("change the owner of", path, error))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
        .map_err(|error| ArchiveError::file("change the mode of", path, error))?;
    if let Some(times) = times {
        rustix::fs::futimens(file, times)
            .map_err(|error| ArchiveError::file("set the time of", path, error))?;
    }
    Ok(())
}

fn times(member: &Member) -> Timestamps {
    let seconds = i64::try_from(member.mtime).unwrap_or(i64::MAX);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: member.nanos.min(999_999_999).into() },
    }
}
