//! A workspace that lies on this host as a tree of objects.

use std::collections::HashMap;
use std::io::Seek as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use mooring_archive::{ArchiveError, Extent, Kind as NodeKind, Node, Pieces, extents, walk_layers};
use mooring_sandbox::HostWorkspace;
use rustix::fs::{Mode, OFlags};

use crate::SnapshotError;
use crate::index::Index;
use crate::objects::Writer;
use crate::tree::{Content, Digest, Entry, Kind};

/// How often a file is read that changes while it is read. What the last time gave is taken then: a log that is
/// written to without end must not keep a snapshot from being taken.
const TRIES: usize = 3;

/// Holes begin and end at multiples of this (see `content`).
const BLOCK: u64 = 4096;

/// What a workspace holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) root: Digest,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Reads a workspace; what is in `index` is not read.
pub(crate) fn scan<'s>(
    workspace: &HostWorkspace,
    writer: &mut Writer<'s>,
    index: &mut Index<'s>,
) -> Result<Held, SnapshotError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &PathBuf| {
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| ArchiveError::File {
            operation: "open",
            path: path.clone(),
            source: error.into(),
        })
    };
    let layers: Vec<OwnedFd> = workspace.layers.iter().map(open).collect::<Result<_, _>>()?;
    let mut scan =
        Scan { workspace, writer, index, open: vec![Vec::new()], linked: HashMap::new(), files: 0, bytes: 0 };
    walk_layers(&layers, &workspace.mounts, &mut |node| scan.node(node))?;
    scan.close_to(1)?;
    let root = scan.open.pop().unwrap_or_default();
    Ok(Held { root: scan.writer.directory(&root)?, files: scan.files, bytes: scan.bytes })
}

struct Scan<'a, 's> {
    workspace: &'a HostWorkspace,
    writer: &'a mut Writer<'s>,
    index: &'a mut Index<'s>,
    /// The directories from the root to the one that is being read, with their entries so far. Each is the last entry
    /// of the one above.
    open: Vec<Vec<Entry>>,
    linked: HashMap<(u64, u64), Vec<u8>>,
    files: u64,
    bytes: u64,
}

impl Scan<'_, '_> {
    fn node(&mut self, node: &Node) -> Result<(), SnapshotError> {
        self.close_to(node.path.components().count())?;
        let kind = match &node.kind {
            NodeKind::Other => return Ok(()),
            // Known when all that is in it is.
            NodeKind::Directory => Kind::Directory(Digest([0; 32])),
            NodeKind::Symlink(target) => Kind::Symlink(target.clone().into_os_string().into_vec()),
            NodeKind::Fifo => Kind::Fifo,
            NodeKind::File => self.file(node)?,
        };
        let directory = matches!(kind, Kind::Directory(_));
        let name = node.path.file_name().unwrap_or_default().as_bytes().to_owned();
        let owner = |names: &std::collections::BTreeMap<u32, String>, id| names.get(&id).cloned();
        let entry = Entry {
            name,
            mode: node.mode & 0o1777,
            user: owner(&self.workspace.users, node.uid).unwrap_or_default(),
            group: owner(&self.workspace.groups, node.gid).unwrap_or_default(),
            mtime: (node.mtime, node.nanos),
            kind,
        };
        if let Some(entries) = self.open.last_mut() {
            entries.push(entry);
        }
        if directory {
            self.open.push(Vec::new());
        }
        Ok(())
    }

    /// Puts the directories that are read to their end, until `depth` are left.
    fn close_to(&mut self, depth: usize) -> Result<(), SnapshotError> {
        while self.open.len() > depth.max(1) {
            let entries = self.open.pop().unwrap_or_default();
            let digest = self.writer.directory(&entries)?;
            if let Some(entry) = self.open.last_mut().and_then(|above| above.last_mut()) {
                entry.kind = Kind::Directory(digest);
            }
        }
        Ok(())
    }

    fn file(&mut self, node: &Node) -> Result<Kind, SnapshotError> {
        self.files += 1;
        if let Some(first) = self.linked.get(&node.identity) {
            return Ok(Kind::HardLink(first.clone()));
        }
        let content = match self.index.unchanged(node)? {
            Some(content) => content,
            None => self.read(node)?,
        };
        if node.shared {
            self.linked.insert(node.identity, node.path.as_os_str().as_bytes().to_owned());
        }
        self.bytes += content.size;
        Ok(Kind::File(content))
    }

    fn read(&mut self, node: &Node) -> Result<Content, SnapshotError> {
        let failed = |error| ArchiveError::File { operation: "read", path: node.path.clone(), source: error };
        let mut file = node.open()?;
        let mut content = None;
        for _ in 0..TRIES {
            file.rewind().map_err(failed)?;
            let before = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
            let size = u64::try_from(before.st_size).unwrap_or(0);
            let holes = if node.sparse { extents(&file, size).map_err(failed)? } else { None };
            let read = match holes {
                Some(pieces) => {
                    let pieces = whole_blocks(&pieces, size);
                    let places = pieces.iter().map(|piece| (piece.offset, piece.length)).collect();
                    self.writer.sparse(&mut Pieces::new(&file, &pieces), size, places)?
                }
                None => {
                    file.rewind().map_err(failed)?;
                    self.writer.file(&mut file, size)?
                }
            };
            let after = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
            let stamp = |stat: &rustix::fs::Stat| {
                (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec)
            };
            match read {
                Ok(read) if stamp(&before) == stamp(&after) => {
                    let changed_ns =
                        i128::from(before.st_ctime) * 1_000_000_000 + i128::from(before.st_ctime_nsec);
                    if changed_ns == node.changed_ns {
                        self.index.remember(node, &read);
                    }
                    return Ok(read);
                }
                Ok(read) => content = Some(read),
                // It became shorter while it was read.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(failed(error).into()),
            }
        }
        content.ok_or_else(|| failed(std::io::Error::other("it changes faster than it can be read")).into())
    }
}

/// The same pieces, or somewhat more, of whole blocks.
fn whole_blocks(pieces: &[Extent], size: u64) -> Vec<Extent> {
    let mut whole: Vec<Extent> = Vec::new();
    for piece in pieces {
        let offset = piece.offset / BLOCK * BLOCK;
        let end = (piece.offset + piece.length).next_multiple_of(BLOCK).min(size);
        match whole.last_mut() {
            Some(last) if last.offset + last.length >= offset => last.length = end - last.offset,
            _ => whole.push(Extent { offset, length: end - offset }),
        }
    }
    whole
}
