//! A directory tree as a tar stream: the same tree gives the same bytes.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use crate::walk::open_directory;
use crate::{ArchiveError, Kind, Meta, Node, Pieces, Stats, Visit, Writer, extents, walk};

/// Gives a user's and a group's names for their numbers, each of which may be empty.
pub type OwnerNames<'a> = dyn Fn(u32, u32) -> (&'a str, &'a str) + 'a;

/// Writes everything below `root` to `out`, in the order of names' bytes. The root itself is no member.
///
/// Modes, times, symbolic links, hard links, FIFOs and holes are kept. Sockets and devices are left out and counted.
/// Paths in `without` are relative to the root and left out with all that is below them. `names` gives the names of a
/// user's and a group's numbers, empty for none.
///
/// # Errors
/// [`ArchiveError::File`] where something cannot be read or becomes shorter meanwhile, [`ArchiveError::Stream`]
/// where `out` fails.
pub fn pack(
    root: &Path,
    mut out: impl Write,
    without: &[String],
    names: &OwnerNames<'_>,
) -> Result<Stats, ArchiveError> {
    pack_into(root, &mut out, without, names)
}

fn pack_into(
    root: &Path,
    out: &mut dyn Write,
    without: &[String],
    names: &OwnerNames<'_>,
) -> Result<Stats, ArchiveError> {
    let directory = open_directory(root)?;
    // Without `.`, doubled and trailing slashes: the form that the walk gives.
    let plain =
        |path: &String| Path::new(path).components().filter(|part| *part != Component::CurDir).collect();
    let without: Vec<PathBuf> = without.iter().map(plain).collect();
    let mut writer = Writer::new(BufWriter::with_capacity(128 << 10, out));
    let mut linked: HashMap<(u64, u64), PathBuf> = HashMap::new();
    walk(directory, &mut |node| {
        if without.contains(&node.path) {
            return Ok::<_, ArchiveError>(Visit::Skip);
        }
        let (user, group) = names(node.uid, node.gid);
        let (mode, mtime, nanos) = (node.mode, node.mtime, node.nanos);
        let meta = Meta { mode, mtime, nanos, uid: node.uid, gid: node.gid, user, group };
        match &node.kind {
            Kind::Directory => writer.directory(&node.path, meta)?,
            Kind::Symlink(target) => writer.symlink(&node.path, meta, target)?,
            Kind::Fifo => writer.fifo(&node.path, meta)?,
            Kind::Other => writer.skip(),
            Kind::File => match linked.get(&node.identity) {
                Some(first) => writer.hard_link(&node.path, meta, first)?,
                None => {
                    file(&mut writer, node, meta)?;
                    if node.shared {
                        linked.insert(node.identity, node.path.clone());
                    }
                }
            },
        }
        Ok(Visit::Descend)
    })?;
    writer.finish()
}

fn file(writer: &mut Writer<impl Write>, node: &Node, meta: Meta<'_>) -> Result<(), ArchiveError> {
    let mut file = node.open()?;
    if node.sparse {
        let found =
            extents(&file, node.size).map_err(|error| ArchiveError::file("read", &node.path, error))?;
        if let Some(pieces) = found {
            return writer.sparse(&node.path, meta, node.size, &pieces, &mut Pieces::new(&file, &pieces));
        }
        std::io::Seek::rewind(&mut file).map_err(|error| ArchiveError::file("read", &node.path, error))?;
    }
    writer.file(&node.path, meta, node.size, &mut file)
}
