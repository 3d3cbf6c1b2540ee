//! A tar stream as a directory tree, confined to its root.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::guard::{Allowance, Guard};
use crate::walk::open_directory;
use crate::{ArchiveError, Stats};

/// How much an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members.
    pub members: u64,
    /// Bytes of content, as unpacked.
    pub bytes: u64,
}

impl Default for Limits {
    /// A million members, 16 GiB.
    fn default() -> Self {
        Self { members: 1_000_000, bytes: 16 << 30 }
    }
}

/// Gives a user's and a group's numbers for their names, each of which may be empty. `None`: the caller's own.
pub type Owners<'a> = dyn Fn(&str, &str) -> Option<(u32, u32)> + 'a;

/// The kernel takes no longer path.
const MAX_NAME: usize = 4095;

/// How often a path is resolved again when a rename in the tree disturbed the kernel.
const MAX_RESOLVES: usize = 64;

/// Mode bits that are kept. The setuid and setgid bits are not: they would outlive the archive's author.
const KEPT_MODE: u32 = 0o1777;

/// Unpacks a tar stream below `root`, which must exist.
///
/// `owners` knows users and groups by name; numbers in the archive are never looked at. Modes and times are kept, but for the setuid and setgid bits;
/// directories get theirs last. Parents that the archive does not name are made with mode 0755. A `.` member is
/// accepted and changes nothing: the root belongs to the caller.
///
/// A file or link that exists is replaced, never written through. A symbolic link may point anywhere, because
/// nothing is ever written through one that leaves the root; within the root, parents may be links.
///
/// # Errors
/// [`ArchiveError::Refused`] for an absolute name, `..`, a device or FIFO, a name that comes twice (other than a
/// directory), a hard link to what the archive did not bring before, a parent that is a link out of the root, or a
/// directory and something else at one path. [`ArchiveError::Limit`], [`ArchiveError::Stream`],
/// [`ArchiveError::File`]. What was unpacked before an error stays.
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
    let allowance = Rc::new(Allowance::default());
    let mut archive = Archive::new(Guard::new(stream, Rc::clone(&allowance)));
    let mut unpacker = Unpacker {
        root: open_directory(root)?,
        limits,
        owners,
        directories: BTreeMap::new(),
        brought: HashMap::new(),
        parent: None,
        stats: Stats::default(),
        chunk: vec![0; 64 << 10],
    };
    let mut entries = archive.entries().map_err(ArchiveError::read)?;
    loop {
        allowance.headers();
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(ArchiveError::read)?;
        allowance.content();
        unpacker.member(&mut entry)?;
    }
    if allowance.ended() {
        let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off: its closing block is missing");
        return Err(ArchiveError::read(cut));
    }
    unpacker.finish_directories()?;
    drop(archive);
    // Writers pad an archive with zeros. They are read, so that whoever writes does not fail on a closed pipe.
    io::copy(&mut stream.take(1 << 20), &mut io::sink()).map_err(ArchiveError::read)?;
    Ok(unpacker.stats)
}

/// What a directory gets once nothing is written into it any more.
struct Directory {
    mode: u32,
    /// `None`: made only because something is in it.
    mtime: Option<u64>,
    owner: Option<(u32, u32)>,
}

struct Unpacker<'a> {
    root: OwnedFd,
    limits: &'a Limits,
    owners: &'a Owners<'a>,
    directories: BTreeMap<PathBuf, Directory>,
    /// Members so far, and whether they are regular files.
    brought: HashMap<PathBuf, bool>,
    /// The last parent, since members mostly come in its order.
    parent: Option<(PathBuf, OwnedFd)>,
    stats: Stats,
    chunk: Vec<u8>,
}

impl Unpacker<'_> {
    fn member(&mut self, entry: &mut Entry<'_, Guard<'_>>) -> Result<(), ArchiveError> {
        let raw = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&raw).into_owned();
        let refused =
            |reason: &str| ArchiveError::Refused { member: name.clone(), reason: reason.to_owned() };
        self.stats.members += 1;
        if self.stats.members > self.limits.members {
            return Err(ArchiveError::Limit { member: name, what: "members", limit: self.limits.members });
        }
        let path = relative(&raw).map_err(refused)?;
        let kind = match entry.header().entry_type() {
            // The oldest form has no type for directories.
            EntryType::Regular if raw.ends_with(b"/") => EntryType::Directory,
            EntryType::Continuous | EntryType::GNUSparse => EntryType::Regular,
            other => other,
        };
        if kind == EntryType::Regular && is_pax_sparse(entry)? {
            return Err(refused("sparse files in the pax form are not supported"));
        }
        let mode = entry.header().mode().map_err(ArchiveError::read)? & KEPT_MODE;
        let mtime = entry.header().mtime().map_err(ArchiveError::read)?;
        let owner = self.owner(entry);
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let (Some(parent), Some(last)) = (path.parent(), path.file_name()) else {
            return if kind == EntryType::Directory {
                Ok(())
            } else {
                Err(refused("it names the root itself"))
            };
        };
        if kind == EntryType::Directory {
            self.make_directory(parent, &path, last)?;
            self.directories.insert(path, Directory { mode, mtime: Some(mtime), owner });
            return Ok(());
        }
        if self.brought.contains_key(&path) || self.directories.contains_key(&path) {
            return Err(refused("the archive has this path twice"));
        }
        let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        match kind {
            EntryType::Regular => {
                let file = self.create(parent, &path, last)?;
                self.fill(entry, &file, &path, &name)?;
                set_metadata(file.as_fd(), &path, mode, Some(mtime), owner)?;
                self.stats.files += 1;
            }
            EntryType::Symlink => {
                let target = target.filter(|target| !target.is_empty() && !target.contains(&0));
                let target = target.ok_or_else(|| refused("the link has no target"))?;
                self.place(parent, &path, last, |parent, name| {
                    rustix::fs::symlinkat(OsStr::from_bytes(&target), parent, name)
                })?;
                self.finish_link(&path, last, mtime, owner)?;
            }
            EntryType::Link => {
                let target = relative(&target.unwrap_or_default()).map_err(refused)?;
                if self.brought.get(&target) != Some(&true) {
                    return Err(refused("a hard link may only name a file that the archive brought before"));
                }
                self.hard_link(parent, &path, last, &target)?;
                self.stats.files += 1;
            }
            EntryType::Char | EntryType::Block => return Err(refused("it is a device")),
            EntryType::Fifo => return Err(refused("it is a FIFO")),
            _ => return Err(refused("its type is unknown")),
        }
        self.brought.insert(path, kind != EntryType::Symlink);
        Ok(())
    }

    fn owner(&self, entry: &Entry<'_, Guard<'_>>) -> Option<(u32, u32)> {
        // A name that is not UTF-8 is no name that anybody knows.
        let user = entry.header().username().ok().flatten().unwrap_or_default();
        let group = entry.header().groupname().ok().flatten().unwrap_or_default();
        (self.owners)(user, group)
    }

    fn fill(
        &mut self,
        entry: &mut Entry<'_, Guard<'_>>,
        mut file: &File,
        path: &Path,
        name: &str,
    ) -> Result<(), ArchiveError> {
        let size = entry.size();
        let over = self.stats.bytes.checked_add(size).is_none_or(|total| total > self.limits.bytes);
        if over {
            return Err(ArchiveError::Limit {
                member: name.to_owned(),
                what: "bytes",
                limit: self.limits.bytes,
            });
        }
        let mut written = 0;
        loop {
            let count = entry.read(&mut self.chunk).map_err(ArchiveError::read)?;
            if count == 0 {
                break;
            }
            file.write_all(&self.chunk[..count]).map_err(|error| ArchiveError::file("write", path, error))?;
            written += count as u64;
        }
        self.stats.bytes += written;
        if written == size {
            Ok(())
        } else {
            let cut = io::Error::new(io::ErrorKind::UnexpectedEof, format!("it is cut off within '{name}'"));
            Err(ArchiveError::read(cut))
        }
    }

    fn create(&mut self, parent: &Path, path: &Path, last: &OsStr) -> Result<File, ArchiveError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.place(parent, path, last, |parent, name| {
            rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
        })
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

    fn finish_link(
        &mut self,
        path: &Path,
        last: &OsStr,
        mtime: u64,
        owner: Option<(u32, u32)>,
    ) -> Result<(), ArchiveError> {
        // `place` has just put the parent here.
        let Some((_, parent)) = &self.parent else { return Ok(()) };
        if let Some((uid, gid)) = owner {
            rustix::fs::chownat(
                parent,
                last,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(|error| ArchiveError::file("change the owner of", path, error))?;
        }
        rustix::fs::utimensat(parent, last, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
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
                            let implied = Directory { mode: 0o755, mtime: None, owner: None };
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
            set_metadata(opened.as_fd(), &path, directory.mode, directory.mtime, directory.owner)?;
        }
        Ok(())
    }
}

/// A member's name as a path below the root; empty for the root itself.
fn relative(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.is_empty() {
        return Err("it has no name");
    }
    if name.len() > MAX_NAME {
        return Err("its name is too long");
    }
    if name.contains(&0) {
        return Err("its name holds a NUL");
    }
    if name.starts_with(b"/") {
        return Err("its name is absolute");
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its name has '..' in it"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
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

fn is_pax_sparse(entry: &mut Entry<'_, Guard<'_>>) -> Result<bool, ArchiveError> {
    let Some(extensions) = entry.pax_extensions().map_err(ArchiveError::read)? else { return Ok(false) };
    for extension in extensions {
        if extension.map_err(ArchiveError::read)?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The owner first: changing it clears mode bits.
fn set_metadata(
    file: BorrowedFd<'_>,
    path: &Path,
    mode: u32,
    mtime: Option<u64>,
    owner: Option<(u32, u32)>,
) -> Result<(), ArchiveError> {
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| ArchiveError::file("change the owner of", path, error))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
        .map_err(|error| ArchiveError::file("change the mode of", path, error))?;
    if let Some(mtime) = mtime {
        rustix::fs::futimens(file, &times(mtime))
            .map_err(|error| ArchiveError::file("set the time of", path, error))?;
    }
    Ok(())
}

fn times(mtime: u64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: i64::try_from(mtime).unwrap_or(i64::MAX), tv_nsec: 0 },
    }
}
