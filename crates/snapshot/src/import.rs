//! A tar stream as a tree of objects, for workspaces that this host cannot see.
//!
//! The stream comes from a sandbox and is not believed: what `mooring_archive::read` refuses is refused, and nothing
//! of it touches a file system.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use mooring_archive::{ArchiveError, Limits, Member, MemberKind, read};

use crate::SnapshotError;
use crate::objects::Writer;
use crate::scan::Held;
use crate::tree::{Digest, Entry, Kind};

/// A directory that is being put together. Its own entry is in the one above.
#[derive(Default)]
struct Directory {
    entries: BTreeMap<Vec<u8>, Entry>,
    below: BTreeMap<Vec<u8>, Directory>,
}

/// Reads a tar stream to its end.
pub(crate) fn import(stream: impl Read, writer: &mut Writer<'_>) -> Result<Held, SnapshotError> {
    let mut root = Directory::default();
    let mut bytes = 0;
    // The reader's errors are archive errors; the store's own take the way around.
    let mut store_failed = None;
    let stats = read(stream, &Limits::default(), &mut |member, content| {
        let kind = match kind(member, content, writer) {
            Ok(kind) => kind?,
            Err(error) => {
                store_failed = Some(error);
                return Err(refused(member, "the snapshot store failed"));
            }
        };
        if let Kind::File(content) = &kind {
            bytes += content.size;
        }
        root.add(member, kind)
    });
    if let Some(error) = store_failed {
        return Err(error);
    }
    let files = stats?.files;
    Ok(Held { root: root.put(writer)?, files, bytes })
}

fn kind(
    member: &Member,
    content: &mut dyn Read,
    writer: &mut Writer<'_>,
) -> Result<Result<Kind, ArchiveError>, SnapshotError> {
    Ok(match &member.kind {
        MemberKind::Directory => Ok(Kind::Directory(Digest([0; 32]))),
        MemberKind::Symlink(target) => Ok(Kind::Symlink(target.clone().into_vec())),
        MemberKind::HardLink(target) => Ok(Kind::HardLink(target.as_os_str().as_bytes().to_owned())),
        MemberKind::Fifo => Ok(Kind::Fifo),
        MemberKind::File { size, sparse } => {
            let read = if *sparse {
                writer.sparse(content, *size, vec![(0, *size)])?
            } else {
                writer.file(content, *size)?
            };
            read.map(Kind::File).map_err(|error| ArchiveError::Stream { operation: "read", source: error })
        }
    })
}

impl Directory {
    fn add(&mut self, member: &Member, kind: Kind) -> Result<(), ArchiveError> {
        let mut names: Vec<Vec<u8>> =
            member.path.components().map(|part| part.as_os_str().as_bytes().to_owned()).collect();
        let Some(name) = names.pop() else { return Ok(()) };
        let mut at = self;
        for name in names {
            at = at
                .enter(name)
                .ok_or_else(|| refused(member, "it is below something that is not a directory"))?;
        }
        if at.below.contains_key(&name) && !matches!(kind, Kind::Directory(_)) {
            return Err(refused(member, "a directory is in its place"));
        }
        if matches!(kind, Kind::Directory(_)) {
            at.below.entry(name.clone()).or_default();
        }
        let entry = Entry {
            name: name.clone(),
            mode: member.mode,
            user: member.user.clone(),
            group: member.group.clone(),
            mtime: (member.mtime, member.nanos),
            kind,
        };
        at.entries.insert(name, entry);
        Ok(())
    }

    /// A directory in this one, made where the archive does not name it.
    fn enter(&mut self, name: Vec<u8>) -> Option<&mut Self> {
        let entry = self.entries.entry(name.clone()).or_insert_with(|| Entry {
            name: name.clone(),
            mode: 0o755,
            user: String::new(),
            group: String::new(),
            mtime: (0, 0),
            kind: Kind::Directory(Digest([0; 32])),
        });
        matches!(entry.kind, Kind::Directory(_)).then(|| self.below.entry(name).or_default())
    }

    fn put(mut self, writer: &mut Writer<'_>) -> Result<Digest, SnapshotError> {
        for (name, directory) in self.below {
            let digest = directory.put(writer)?;
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.kind = Kind::Directory(digest);
            }
        }
        writer.directory(&self.entries.into_values().collect::<Vec<_>>())
    }
}

fn refused(member: &Member, reason: &str) -> ArchiveError {
    ArchiveError::Refused { member: member.path.display().to_string(), reason: reason.to_owned() }
}
