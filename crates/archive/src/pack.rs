//! A directory tree as a tar stream: the same tree gives the same bytes.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use crate::walk::open_directory;
use crate::{ArchiveError, Kind, Meta, Stats, Visit, Writer, walk};

/// Writes everything below `root` to `out`, in the order of names' bytes. The root itself is no member.
///
/// Modes, times, symbolic links and hard links are kept. Sockets, FIFOs and devices are left out and counted. Paths
/// in `without` are relative to the root and left out with all that is below them.
///
/// # Errors
/// [`ArchiveError::File`] where something cannot be read or becomes shorter meanwhile, [`ArchiveError::Stream`]
/// where `out` fails.
pub fn pack(root: &Path, mut out: impl Write, without: &[String]) -> Result<Stats, ArchiveError> {
    pack_into(root, &mut out, without)
}

fn pack_into(root: &Path, out: &mut dyn Write, without: &[String]) -> Result<Stats, ArchiveError> {
    let directory = open_directory(root)?;
    // Without `.`, doubled and trailing slashes: the form that the walk gives.
    let plain =
        |path: &String| Path::new(path).components().filter(|part| *part != Component::CurDir).collect();
    let without: Vec<PathBuf> = without.iter().map(plain).collect();
    let mut writer = Writer::new(BufWriter::with_capacity(128 << 10, out));
    let mut linked: HashMap<(u64, u64), PathBuf> = HashMap::new();
    walk(directory, &mut |node| {
        if without.iter().any(|path| path == node.path) {
            return Ok::<_, ArchiveError>(Visit::Skip);
        }
        let meta = Meta { mode: node.mode, mtime: node.mtime, uid: node.uid, gid: node.gid, group: "" };
        match &node.kind {
            Kind::Directory => writer.directory(node.path, meta)?,
            Kind::Symlink(target) => writer.symlink(node.path, meta, target)?,
            Kind::Other => writer.skip(),
            Kind::File => match linked.get(&node.identity) {
                Some(first) => writer.hard_link(node.path, meta, first)?,
                None => {
                    writer.file(node.path, meta, node.size, &mut node.open()?)?;
                    if node.shared {
                        linked.insert(node.identity, node.path.to_owned());
                    }
                }
            },
        }
        Ok(Visit::Descend)
    })?;
    writer.finish()
}
