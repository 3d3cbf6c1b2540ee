//! A tree of objects as a tar stream: the only way in which a snapshot goes back to a workspace.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use mooring_archive::{ArchiveError, Extent, Meta, Writer as TarWriter};

use crate::SnapshotError;
use crate::content::Source;
use crate::objects::Reader;
use crate::tree::{Content, Digest, Entry, Kind};

/// Writes everything below `root`, in the order in which `mooring_archive::pack` does.
pub(crate) fn export(reader: &Reader<'_>, root: &Digest, out: impl Write) -> Result<(), SnapshotError> {
    let mut writer = TarWriter::new(out);
    directory(reader, &mut writer, root, Path::new(""))?;
    writer.finish()?;
    Ok(())
}

fn directory<W: Write>(
    reader: &Reader<'_>,
    writer: &mut TarWriter<W>,
    digest: &Digest,
    at: &Path,
) -> Result<(), SnapshotError> {
    for entry in reader.directory(digest)? {
        let path = at.join(checked_name(&entry.name)?);
        let meta = meta(&entry);
        match &entry.kind {
            Kind::Directory(below) => {
                writer.directory(&path, meta)?;
                directory(reader, writer, below, &path)?;
            }
            Kind::Symlink(target) => writer.symlink(&path, meta, Path::new(OsStr::from_bytes(target)))?,
            Kind::HardLink(first) => writer.hard_link(&path, meta, Path::new(OsStr::from_bytes(first)))?,
            Kind::Fifo => writer.fifo(&path, meta)?,
            Kind::File(content) => {
                let mut source = Source::new(reader, content)?;
                let written = file(writer, &path, meta, content, &mut source);
                if let Some(failure) = source.failure {
                    return Err(failure);
                }
                written?;
            }
        }
    }
    Ok(())
}

fn file<W: Write>(
    writer: &mut TarWriter<W>,
    path: &Path,
    meta: Meta<'_>,
    content: &Content,
    source: &mut Source<'_>,
) -> Result<(), ArchiveError> {
    match &content.pieces {
        None => writer.file(path, meta, content.size, source),
        Some(pieces) => {
            let pieces: Vec<Extent> =
                pieces.iter().map(|&(offset, length)| Extent { offset, length }).collect();
            writer.sparse(path, meta, content.size, &pieces, source)
        }
    }
}

fn meta(entry: &Entry) -> Meta<'_> {
    Meta {
        mode: entry.mode,
        mtime: entry.mtime.0,
        nanos: entry.mtime.1,
        user: &entry.user,
        group: &entry.group,
        ..Meta::default()
    }
}

/// A name that is one: a store may have been written by anybody, and what reads the stream does not know that.
fn checked_name(name: &[u8]) -> Result<&Path, SnapshotError> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(SnapshotError::damaged("a directory holds a name that cannot be one"));
    }
    Ok(Path::new(OsStr::from_bytes(name)))
}
