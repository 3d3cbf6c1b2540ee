//! Files and directories on the host that a manifest copies from.
//!
//! Everything is opened beneath the base directory's descriptor, and no link on the way is followed: a directory
//! that is swapped for a link, before or during the copy, cannot lead elsewhere.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use mooring_archive::{ArchiveError, Kind, Node, Visit, walk};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Where a manifest's sources are looked up.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// As the caller named it.
    named: PathBuf,
    /// Without links.
    pub(crate) real: PathBuf,
    opened: Arc<OwnedFd>,
}

/// What is wrong with a source: a reason for people, or a failure below.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The source may not be copied.
    Refused(String),
    /// Reading it, or writing the archive, failed.
    Archive(ArchiveError),
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
            Self::Archive(error) => error.fmt(f),
        }
    }
}

impl Base {
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        let failed = |error: &dyn std::fmt::Display| {
            Fault::Refused(format!("cannot open the base directory {}: {error}", path.display()))
        };
        let real = fs_err::canonicalize(path).map_err(|error| failed(&error))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&real, flags, Mode::empty()).map_err(|error| failed(&error))?;
        Ok(Self { named: lexical(path), real, opened: Arc::new(opened) })
    }

    /// A source's path below the base, for a path that is relative to it or absolute.
    pub(crate) fn locate(&self, src: &Path) -> Result<PathBuf, Fault> {
        let whole = lexical(&self.real.join(src));
        let below = whole.strip_prefix(&self.real).or_else(|_| whole.strip_prefix(&self.named));
        below.map(Path::to_owned).map_err(|_| {
            Fault::Refused(format!(
                "'{}' is outside of the base directory {}; move it there, or stage from a directory that holds it",
                src.display(),
                self.real.display()
            ))
        })
    }

    /// Opens a regular file.
    pub(crate) fn file(&self, below: &Path) -> Result<File, Fault> {
        // Without NONBLOCK, a FIFO would stop us here.
        let file = self.beneath(below, OFlags::RDONLY | OFlags::NONBLOCK)?;
        if kind_of(&file, below)? == FileType::RegularFile {
            Ok(File::from(file))
        } else {
            Err(Fault::Refused(format!("'{}' is not a regular file", below.display())))
        }
    }

    /// Opens a directory.
    pub(crate) fn directory(&self, below: &Path) -> Result<OwnedFd, Fault> {
        self.beneath(below, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn beneath(&self, below: &Path, flags: OFlags) -> Result<OwnedFd, Fault> {
        open_beneath(&self.opened, below, flags)
    }
}

/// Opens a path below a directory; no part of it may be a link.
pub(crate) fn open_beneath(directory: &OwnedFd, below: &Path, flags: OFlags) -> Result<OwnedFd, Fault> {
    let path = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(|error| {
        let why = match error {
            Errno::NOENT => "does not exist".to_owned(),
            Errno::LOOP => "is or passes through a symbolic link; name what it points at".to_owned(),
            Errno::NOTDIR => "is not a directory".to_owned(),
            error => format!("cannot be opened: {error}"),
        };
        Fault::Refused(format!("'{}' {why}", path.display()))
    })
}

fn kind_of(file: &OwnedFd, path: &Path) -> Result<FileType, Fault> {
    let stat = rustix::fs::fstat(file)
        .map_err(|error| Fault::Refused(format!("'{}' cannot be looked at: {error}", path.display())))?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// Without `.` and `..`, by name alone.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// The paths that a manifest names itself. They win over what a copied tree brings.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Whether it is a plain directory, which takes in what a tree brings.
    entries: HashMap<PathBuf, bool>,
    /// Directories that something is named below.
    above: HashSet<PathBuf>,
}

impl Named {
    pub(crate) fn add(&mut self, path: &Path, merges: bool) {
        self.entries.insert(path.to_owned(), merges);
        self.above.extend(path.ancestors().skip(1).map(Path::to_owned));
    }

    /// Whether an entry is around this path.
    pub(crate) fn is_around(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|above| self.entries.contains_key(above))
    }

    /// What becomes of a tree's node that would end at `path`.
    fn place(&self, path: &Path, kind: &Kind) -> Result<Place, Fault> {
        let directory = *kind == Kind::Directory;
        let clash = || {
            let path = path.display();
            Fault::Refused(format!(
                "it brings '{path}', which is no directory, but the manifest has entries below it"
            ))
        };
        match self.entries.get(path) {
            Some(false) => Ok(Place::Replaced),
            Some(true) if directory => Ok(Place::Merged),
            Some(true) => Err(clash()),
            None if !directory && self.above.contains(path) => Err(clash()),
            None => Ok(Place::Added),
        }
    }
}

enum Place {
    /// It is copied.
    Added,
    /// The manifest describes the directory itself; what is in it is copied.
    Merged,
    /// The manifest puts something else there.
    Replaced,
}

/// What links a tree may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Those that stay in the tree.
    Inside,
    /// All: a repository's content is what its commit says.
    All,
}

/// Visits what of a tree is copied to `at`, in a fixed order. `source` is how messages name the tree.
///
/// # Errors
/// For sockets, FIFOs, devices, links that `links` does not allow, and what clashes with the manifest.
pub(crate) fn visit(
    tree: &OwnedFd,
    source: &Path,
    at: &Path,
    links: Links,
    named: &Named,
    copy: &mut dyn FnMut(&Path, &Node) -> Result<(), Fault>,
) -> Result<(), Fault> {
    walk(tree, &mut |node| {
        let path = at.join(&node.path);
        match named.place(&path, &node.kind)? {
            Place::Replaced => return Ok(Visit::Skip),
            Place::Merged => return Ok(Visit::Descend),
            Place::Added => {}
        }
        let refused =
            |why: &str| Err(Fault::Refused(format!("'{}' {why}", source.join(&node.path).display())));
        match &node.kind {
            Kind::Fifo | Kind::Other => {
                return refused("is a socket, FIFO or device; remove it from the source");
            }
            Kind::Symlink(target) if links == Links::Inside && !stays_inside(&node.path, target) => {
                return refused(
                    "is a symbolic link that leaves the source; copy what it points at, or remove it",
                );
            }
            _ => {}
        }
        copy(&path, node)?;
        Ok(Visit::Descend)
    })
}

/// Whether a link leads to a place in its own tree, whatever the other links in that tree are.
///
/// The link's own place is real. `..` at the beginning goes up from there, as far as the tree's top. After a name,
/// `..` is not allowed: the name may be a link itself, and lead to a place that is less deep than it looks.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut above = link.components().count() - 1;
    let mut named = false;
    for part in target.components() {
        match part {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir if !named && above > 0 => above -= 1,
            _ => return false,
        }
    }
    true
}
