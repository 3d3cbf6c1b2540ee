//! What differs between two trees, as a patch that `git apply` takes.
//!
//! What a patch in git's form cannot say (permissions beyond "executable", owners, FIFOs, empty directories) and what
//! it is no good for (content that is no text) is noted in lines that begin with `#`, which `git apply` skips.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::content::Source;
use crate::objects::Reader;
use crate::patch::{Side, file_patch};
use crate::tree::{Content, Digest, Entry, Kind};
use crate::{SnapshotError, SnapshotStore};

/// Larger files are not compared line by line.
const MAX_TEXT: u64 = 8 << 20;

impl SnapshotStore {
    /// Writes what leads from one tree to another. Times do not count. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] where one of them is no longer in the store, and [`SnapshotError::Store`] where `out`
    /// fails.
    pub fn diff(&self, from: &Digest, to: &Digest, out: &mut dyn Write) -> Result<(), SnapshotError> {
        let reader = Reader::new(self)?;
        let mut diff = Diff { reader: &reader, from: *from, to: *to, out, notes: Vec::new() };
        diff.directories(Some(from), Some(to), Path::new(""))?;
        let notes = std::mem::take(&mut diff.notes);
        notes.iter().try_for_each(|note| diff.write(format!("# {note}\n").as_bytes()))
    }
}

struct Diff<'a, 's> {
    reader: &'a Reader<'s>,
    from: Digest,
    to: Digest,
    out: &'a mut dyn Write,
    notes: Vec<String>,
}

impl Diff<'_, '_> {
    fn directories(
        &mut self,
        from: Option<&Digest>,
        to: Option<&Digest>,
        at: &Path,
    ) -> Result<(), SnapshotError> {
        if from == to {
            return Ok(());
        }
        let mut names: BTreeMap<Vec<u8>, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
        for entry in from.map(|from| self.reader.directory(from)).transpose()?.unwrap_or_default() {
            let name = entry.name.clone();
            names.entry(name).or_default().0 = Some(entry);
        }
        for entry in to.map(|to| self.reader.directory(to)).transpose()?.unwrap_or_default() {
            let name = entry.name.clone();
            names.entry(name).or_default().1 = Some(entry);
        }
        for (name, (old, new)) in names {
            let path = at.join(std::ffi::OsStr::from_bytes(&name));
            self.entries(old.as_ref(), new.as_ref(), &path)?;
        }
        Ok(())
    }

    fn entries(
        &mut self,
        old: Option<&Entry>,
        new: Option<&Entry>,
        path: &Path,
    ) -> Result<(), SnapshotError> {
        let below = |entry: Option<&Entry>| match entry.map(|entry| &entry.kind) {
            Some(Kind::Directory(digest)) => Some(*digest),
            _ => None,
        };
        let (old_below, new_below) = (below(old), below(new));
        let empty = |diff: &Self, digest: Option<Digest>| {
            digest
                .map(|digest| diff.reader.directory(&digest))
                .transpose()
                .map(|found| found.is_some_and(|all| all.is_empty()))
        };
        if old_below.is_none() && empty(self, new_below)? {
            self.notes.push(format!("new empty directory: {}", path.display()));
        }
        if new_below.is_none() && empty(self, old_below)? {
            self.notes.push(format!("empty directory that is gone: {}", path.display()));
        }
        self.directories(old_below.as_ref(), new_below.as_ref(), path)?;
        if let (Some(old), Some(new)) = (old, new) {
            self.note_metadata(old, new, path);
        }
        let (old_side, new_side) = (self.side(old, false)?, self.side(new, true)?);
        for (entry, other, what) in [(old, new, "FIFO that is gone"), (new, old, "new FIFO")] {
            let fifo = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.kind == Kind::Fifo);
            if fifo(entry) && !fifo(other) {
                self.notes.push(format!("{what}: {}", path.display()));
            }
        }
        let patch = match (&old_side, &new_side) {
            (None, None) => return Ok(()),
            // A link that becomes a file, or the other way round, is two steps to git.
            (Some(old), Some(new)) if old.is_link() != new.is_link() => {
                let mut patch = file_patch(path, Some(old), None);
                patch.extend(file_patch(path, None, Some(new)));
                patch
            }
            (old, new) => file_patch(path, old.as_ref(), new.as_ref()),
        };
        if old_side.as_ref().is_some_and(Side::is_binary) || new_side.as_ref().is_some_and(Side::is_binary) {
            let size = |side: &Option<Side>| {
                side.as_ref().map_or("none".into(), |side| format!("{} bytes", side.size))
            };
            if old_side != new_side {
                self.notes.push(format!(
                    "not text, and not in this patch: {}: {} before, {} now",
                    path.display(),
                    size(&old_side),
                    size(&new_side)
                ));
            }
        }
        self.write(&patch)
    }

    fn note_metadata(&mut self, old: &Entry, new: &Entry, path: &Path) {
        let link = matches!(old.kind, Kind::Symlink(_)) || matches!(new.kind, Kind::Symlink(_));
        let hidden = |entry: &Entry| match entry.kind {
            // Git knows whether a file's owner may execute it.
            Kind::File(_) | Kind::HardLink(_) => entry.mode & !0o100,
            _ => entry.mode,
        };
        if !link && hidden(old) != hidden(new) {
            self.notes.push(format!(
                "permissions of {}: {:o} before, {:o} now",
                path.display(),
                old.mode,
                new.mode
            ));
        }
        let owner = |entry: &Entry| {
            let name = |name: &str| if name.is_empty() { "agent".to_owned() } else { name.to_owned() };
            format!("{}:{}", name(&entry.user), name(&entry.group))
        };
        if owner(old) != owner(new) {
            self.notes.push(format!(
                "owner of {}: {} before, {} now",
                path.display(),
                owner(old),
                owner(new)
            ));
        }
    }

    /// What git sees of an entry: a file or a link.
    fn side(&self, entry: Option<&Entry>, new: bool) -> Result<Option<Side>, SnapshotError> {
        let Some(entry) = entry else { return Ok(None) };
        Ok(match &entry.kind {
            Kind::Directory(_) | Kind::Fifo => None,
            Kind::Symlink(target) => Some(Side::link(target.clone())),
            Kind::File(content) => Some(self.file(entry.mode, content)?),
            Kind::HardLink(first) => {
                let root = if new { self.to } else { self.from };
                match self.find(&root, Path::new(std::ffi::OsStr::from_bytes(first)))? {
                    Some(content) => Some(self.file(entry.mode, &content)?),
                    None => None,
                }
            }
        })
    }

    fn file(&self, mode: u32, content: &Content) -> Result<Side, SnapshotError> {
        let digest = Digest::of(&crate::tree::encode(content)?);
        if content.size > MAX_TEXT || content.pieces.is_some() {
            return Ok(Side::binary(mode, content.size, digest));
        }
        let mut source = Source::new(self.reader, content)?;
        let mut text = Vec::new();
        let read = source.read_to_end(&mut text);
        if let Some(failure) = source.failure {
            return Err(failure);
        }
        read.map_err(|error| self.reader.store.failed(error.to_string()))?;
        Ok(Side::file(mode, text, digest))
    }

    fn find(&self, root: &Digest, path: &Path) -> Result<Option<Content>, SnapshotError> {
        let (mut at, mut found) = (Some(*root), None);
        for name in path {
            let Some(directory) = at else { return Ok(None) };
            let entries = self.reader.directory(&directory)?;
            match entries.into_iter().find(|entry| entry.name == name.as_bytes()).map(|entry| entry.kind) {
                Some(Kind::Directory(below)) => at = Some(below),
                Some(Kind::File(content)) => (at, found) = (None, Some(content)),
                _ => return Ok(None),
            }
        }
        Ok(found)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.out
            .write_all(bytes)
            .map_err(|error| self.reader.store.failed(format!("the patch cannot be written: {error}")))
    }
}
