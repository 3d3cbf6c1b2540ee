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
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::ArchiveError;

/// How deep a tree may be. Each level holds one descriptor open.
const MAX_DEPTH: usize = 256;

/// The kernel takes no longer path, and so no longer one could be unpacked.
pub(crate) const MAX_PATH: usize = 4095;

/// How many directories are looked at before they are asked for. Each may hold a descriptor open.
const AHEAD: usize = 32;

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
pub struct Node {
    /// Its path relative to where the walk began.
    pub path: PathBuf,
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
    parent: Arc<OwnedFd>,
}

impl Node {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`ArchiveError::File`] where it cannot be opened or is no longer the file that was seen.
    pub fn open(&self) -> Result<File, ArchiveError> {
        // Without NONBLOCK, a FIFO put in the file's place would stop us here.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |error: Errno| ArchiveError::file("open", &self.path, error);
        let name = self.path.file_name().unwrap_or_default();
        let file = rustix::fs::openat(&self.parent, name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if (stat.st_dev, stat.st_ino) != self.identity
            || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        {
            return Err(ArchiveError::file(
                "read",
                &self.path,
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
    visit: &mut dyn FnMut(&Node) -> Result<Visit, E>,
) -> Result<(), E> {
    level(&[own(directory)?], Path::new(""), 0, visit)
}

fn level<E: From<ArchiveError>>(
    layers: &[Arc<OwnedFd>],
    at: &Path,
    depth: usize,
    visit: &mut dyn FnMut(&Node) -> Result<Visit, E>,
) -> Result<(), E> {
    for (name, layer) in names(layers, at, depth)? {
        let Some(node) = look(layers, layer, &name, below(at, &name))? else { continue };
        let descend = visit(&node)? == Visit::Descend;
        if descend && node.kind == Kind::Directory {
            level(&open_below(layers, layer, &node.path)?, &node.path, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// Visits a tree that lies in several layers, the highest first, in the same order; what is at a path in `without` is not
/// looked at, nor what is below it.
///
/// Most of a walk is waiting for the kernel: a thread of its own does that, some directories ahead of `visit`. What is
/// visited may have changed meanwhile, which [`Node::open`] does not hide.
///
/// # Errors
/// As [`walk`].
pub fn walk_layers<E: From<ArchiveError>>(
    layers: &[impl AsFd],
    without: &[PathBuf],
    visit: &mut dyn FnMut(&Node) -> Result<(), E>,
) -> Result<(), E> {
    let layers = &layers.iter().map(own).collect::<Result<Vec<_>, _>>()?;
    let (listings, listed) = sync_channel(AHEAD);
    std::thread::scope(move |scope| {
        let work = move || {
            if let Err(Some(error)) = ahead(layers, Path::new(""), 0, without, &listings) {
                // Nobody listens any more where this fails.
                let _ = listings.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .spawn_scoped(scope, work)
            .map_err(|error| ArchiveError::file("list", Path::new(""), error))?;
        follow(&listed, visit)
    })
}

/// Lists a directory, and then those below it in their order. `None`: nobody wants more.
fn ahead(
    layers: &[Arc<OwnedFd>],
    at: &Path,
    depth: usize,
    without: &[PathBuf],
    listings: &SyncSender<Result<Vec<Node>, ArchiveError>>,
) -> Result<(), Option<ArchiveError>> {
    let (mut nodes, mut directories) = (Vec::new(), Vec::new());
    for (name, layer) in names(layers, at, depth)? {
        let path = below(at, &name);
        if without.contains(&path) {
            continue;
        }
        let Some(node) = look(layers, layer, &name, path)? else { continue };
        if node.kind == Kind::Directory {
            directories.push((node.path.clone(), layer));
        }
        nodes.push(node);
    }
    listings.send(Ok(nodes)).map_err(|_| None)?;
    for (path, layer) in directories {
        ahead(&open_below(layers, layer, &path)?, &path, depth + 1, without, listings)?;
    }
    Ok(())
}

/// Visits what was listed ahead.
fn follow<E: From<ArchiveError>>(
    listed: &Receiver<Result<Vec<Node>, ArchiveError>>,
    visit: &mut dyn FnMut(&Node) -> Result<(), E>,
) -> Result<(), E> {
    let ended = |_| ArchiveError::file("list", Path::new(""), std::io::Error::other("its thread has ended"));
    for node in listed.recv().map_err(ended)?? {
        visit(&node)?;
        if node.kind == Kind::Directory {
            follow(listed, visit)?;
        }
    }
    Ok(())
}

fn own(directory: impl AsFd) -> Result<Arc<OwnedFd>, ArchiveError> {
    let owned = directory.as_fd().try_clone_to_owned();
    owned.map(Arc::new).map_err(|error| ArchiveError::file("open", Path::new(""), error))
}

fn below(at: &Path, name: &CStr) -> PathBuf {
    at.join(OsStr::from_bytes(name.to_bytes()))
}

/// All names of a directory, each with the highest layer that has it.
fn names(layers: &[Arc<OwnedFd>], at: &Path, depth: usize) -> Result<Vec<(CString, usize)>, ArchiveError> {
    if depth == MAX_DEPTH {
        let deep = std::io::Error::other(format!("the tree is more than {MAX_DEPTH} levels deep"));
        return Err(ArchiveError::file("list", at, deep));
    }
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
    let above = at.as_os_str().len() + usize::from(depth > 0);
    if let Some((name, _)) = names.iter().find(|(name, _)| above + name.as_bytes().len() > MAX_PATH) {
        let long = format!(
            "its path is longer than {MAX_PATH} bytes, and could not be put back; move it up, or remove it"
        );
        return Err(ArchiveError::file("keep", &below(at, name), std::io::Error::other(long)));
    }
    Ok(names)
}

/// Opens a directory in the highest layer that has it, and those that show through it.
fn open_below(
    layers: &[Arc<OwnedFd>],
    highest: usize,
    path: &Path,
) -> Result<Vec<Arc<OwnedFd>>, ArchiveError> {
    let name = path.file_name().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |error: Errno| ArchiveError::file("open", path, error);
    let mut opened = Vec::new();
    for (layer, parent) in layers.iter().enumerate().skip(highest) {
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(directory) => {
                let through = layer + 1 < layers.len() && !opaque(&directory).map_err(failed)?;
                opened.push(Arc::new(directory));
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
fn look(
    layers: &[Arc<OwnedFd>],
    layer: usize,
    name: &CStr,
    path: PathBuf,
) -> Result<Option<Node>, ArchiveError> {
    let parent = &layers[layer];
    let failed = |error: Errno| ArchiveError::file("look at", &path, error);
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
        parent: Arc::clone(parent),
    }))
}

/// Opens the directory where everything begins. Links on the way to it are followed: the caller named it.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| ArchiveError::file("open", path, error))
}
