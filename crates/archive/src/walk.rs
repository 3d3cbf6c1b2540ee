//! A walk over a directory tree that follows no link, whatever happens to the tree meanwhile.
//!
//! Every directory is opened relative to its parent's descriptor with `O_NOFOLLOW`. A directory that is swapped for
//! a link during the walk makes it fail; it never leads elsewhere.
//!
//! A tree may lie in several layers, as `overlayfs` stacks them: a name in a higher layer hides the same name below,
//! but for two directories, which are one; a device with the number 0:0 hides it and is nothing itself; and below a
//! directory that is marked opaque nothing shows through. What the walk gives is what the mounted overlay shows.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::ArchiveError;

/// How deep a tree may be. Each level holds one descriptor open.
const MAX_DEPTH: usize = 256;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link and where it points, as written in it.
    Symlink(PathBuf),
    /// A FIFO.
    Fifo,
    /// A socket or device.
    Other,
}

/// Whether to go on below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Go on.
    Descend,
    /// Leave out what is below.
    Skip,
}

/// One file, directory or link.
#[derive(Debug)]
pub struct Node<'a> {
    /// Its path relative to where the walk began.
    pub path: &'a Path,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, setuid and sticky bits included.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last modification in whole seconds since the Unix epoch; what is older is 0.
    pub mtime: u64,
    /// Nanoseconds of the last modification beyond `mtime`.
    pub nanos: u32,
    /// Last change of content or metadata, in nanoseconds since the Unix epoch. No program can set it.
    pub changed_ns: i128,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device and inode.
    pub identity: (u64, u64),
    /// Whether the inode has more names than this one.
    pub shared: bool,
    /// Whether it takes less room on disk than its size: it may have holes (see [`crate::extents`]).
    pub sparse: bool,
    parent: BorrowedFd<'a>,
    name: &'a CStr,
}

impl Node<'_> {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`ArchiveError::File`] where it cannot be opened or is no longer the file that was seen.
    pub fn open(&self) -> Result<File, ArchiveError> {
        // Without NONBLOCK, a FIFO put in the file's place would stop us here.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |error: Errno| ArchiveError::file("open", self.path, error);
        let file = rustix::fs::openat(self.parent, self.name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if (stat.st_dev, stat.st_ino) != self.identity
            || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        {
            return Err(ArchiveError::file(
                "read",
                self.path,
                std::io::Error::other("it was replaced meanwhile"),
            ));
        }
        Ok(File::from(file))
    }
}

/// Visits everything below `directory`, in the order of names' bytes, a directory before what is in it.
///
/// # Errors
/// [`ArchiveError::File`] where something cannot be read or the tree is more than 256 levels deep, and whatever
/// `visit` returns.
pub fn walk<E: From<ArchiveError>>(
    directory: impl AsFd,
    visit: &mut dyn FnMut(&Node<'_>) -> Result<Visit, E>,
) -> Result<(), E> {
    level(&[directory.as_fd()], Path::new(""), 0, visit)
}

/// Visits a tree that lies in several layers, the highest first. The same as [`walk`] for one.
pub fn walk_layers<E: From<ArchiveError>>(
    layers: &[impl AsFd],
    visit: &mut dyn FnMut(&Node<'_>) -> Result<Visit, E>,
) -> Result<(), E> {
    let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
    level(&layers, Path::new(""), 0, visit)
}

fn level<E: From<ArchiveError>>(
    layers: &[BorrowedFd<'_>],
    at: &Path,
    depth: usize,
    visit: &mut dyn FnMut(&Node<'_>) -> Result<Visit, E>,
) -> Result<(), E> {
    if depth == MAX_DEPTH {
        let deep = std::io::Error::other(format!("the tree is more than {MAX_DEPTH} levels deep"));
        return Err(ArchiveError::file("list", at, deep).into());
    }
    for (name, layer) in names(layers, at)? {
        let path = at.join(OsStr::from_bytes(name.to_bytes()));
        let Some(node) = look(layers, layer, &name, &path)? else { continue };
        let descend = visit(&node)? == Visit::Descend;
        if descend && node.kind == Kind::Directory {
            let below = open_below(layers, layer, &name, &path)?;
            let below: Vec<_> = below.iter().map(AsFd::as_fd).collect();
            level(&below, &path, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// All names of a directory, each with the highest layer that has it.
fn names(layers: &[BorrowedFd<'_>], at: &Path) -> Result<Vec<(CString, usize)>, ArchiveError> {
    let failed = |error: Errno| ArchiveError::file("list", at, error);
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    for (layer, directory) in layers.iter().enumerate() {
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let known = layers.len() > 1 && !seen.insert(name.to_owned());
            if !known && !matches!(name.to_bytes(), b"." | b"..") {
                names.push((name.to_owned(), layer));
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory in the highest layer that has it, and those that show through it.
fn open_below(
    layers: &[BorrowedFd<'_>],
    highest: usize,
    name: &CStr,
    path: &Path,
) -> Result<Vec<OwnedFd>, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |error: Errno| ArchiveError::file("open", path, error);
    let mut opened = Vec::new();
    for (layer, parent) in layers.iter().enumerate().skip(highest) {
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(directory) => {
                let through = layer + 1 < layers.len() && !opaque(&directory).map_err(failed)?;
                opened.push(directory);
                if !through {
                    break;
                }
            }
            Err(error) if layer == highest => return Err(failed(error)),
            Err(Errno::NOENT) => {}
            // Something else than a directory is in between, or a mark that there is none.
            Err(Errno::NOTDIR | Errno::LOOP) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(opened)
}

/// Whether an overlay shows nothing of lower layers in this directory.
fn opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::fgetxattr(directory, c"user.overlay.opaque", &mut [0_u8; 1][..]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is at a name; `None` for an overlay's mark that nothing is.
fn look<'a>(
    layers: &[BorrowedFd<'a>],
    layer: usize,
    name: &'a CStr,
    path: &'a Path,
) -> Result<Option<Node<'a>>, ArchiveError> {
    let parent = layers[layer];
    let failed = |error: Errno| ArchiveError::file("look at", path, error);
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed)?;
            Kind::Symlink(std::ffi::OsString::from_vec(target.into_bytes()).into())
        }
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice if layers.len() > 1 && stat.st_rdev == 0 => return Ok(None),
        _ => Kind::Other,
    };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Some(Node {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        size,
        mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
        nanos: if stat.st_mtime < 0 { 0 } else { stat.st_mtime_nsec as u32 },
        changed_ns: i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec),
        uid: stat.st_uid,
        gid: stat.st_gid,
        identity: (stat.st_dev, stat.st_ino),
        shared: stat.st_nlink > 1,
        sparse: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size,
        parent,
        name,
    }))
}

/// Opens the directory where everything begins. Links on the way to it are followed: the caller named it.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| ArchiveError::file("open", path, error))
}
