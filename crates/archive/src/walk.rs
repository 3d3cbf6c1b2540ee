//! A walk over a directory tree that follows no link, whatever happens to the tree meanwhile.
//!
//! Every directory is opened relative to its parent's descriptor with `O_NOFOLLOW`. A directory that is swapped for
//! a link during the walk makes it fail; it never leads elsewhere.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
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
    /// A socket, FIFO or device.
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
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device and inode.
    pub identity: (u64, u64),
    /// Whether the inode has more names than this one.
    pub shared: bool,
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
    level(directory.as_fd(), Path::new(""), 0, visit)
}

fn level<E: From<ArchiveError>>(
    directory: BorrowedFd<'_>,
    at: &Path,
    depth: usize,
    visit: &mut dyn FnMut(&Node<'_>) -> Result<Visit, E>,
) -> Result<(), E> {
    if depth == MAX_DEPTH {
        let deep = std::io::Error::other(format!("the tree is more than {MAX_DEPTH} levels deep"));
        return Err(ArchiveError::file("list", at, deep).into());
    }
    for name in names(directory, at)? {
        let path = at.join(OsStr::from_bytes(name.to_bytes()));
        let node = look(directory, &name, &path)?;
        let descend = visit(&node)? == Visit::Descend;
        if descend && node.kind == Kind::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = rustix::fs::openat(directory, name.as_c_str(), flags, Mode::empty())
                .map_err(|error| ArchiveError::file("open", &path, error))?;
            level(child.as_fd(), &path, depth + 1, visit)?;
        }
    }
    Ok(())
}

fn names(directory: BorrowedFd<'_>, at: &Path) -> Result<Vec<CString>, ArchiveError> {
    let failed = |error: Errno| ArchiveError::file("list", at, error);
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn look<'a>(parent: BorrowedFd<'a>, name: &'a CStr, path: &'a Path) -> Result<Node<'a>, ArchiveError> {
    let failed = |error: Errno| ArchiveError::file("look at", path, error);
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed)?;
            Kind::Symlink(std::ffi::OsString::from_vec(target.into_bytes()).into())
        }
        _ => Kind::Other,
    };
    Ok(Node {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        identity: (stat.st_dev, stat.st_ino),
        shared: stat.st_nlink > 1,
        parent,
        name,
    })
}

/// Opens the directory where everything begins. Links on the way to it are followed: the caller named it.
pub(crate) fn open_directory(path: &Path) -> Result<std::os::fd::OwnedFd, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| ArchiveError::file("open", path, error))
}
