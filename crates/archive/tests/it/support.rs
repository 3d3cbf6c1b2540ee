//! Making archives that no honest writer makes, and looking at trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use mooring_archive::{ArchiveError, Limits, Stats, unpack};
use tar::{EntryType, Header};

/// A tar stream of members as they are given, however wrong.
#[derive(Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    pub(crate) fn member(mut self, kind: EntryType, name: &[u8], target: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        self.long(EntryType::GNULongName, name);
        self.long(EntryType::GNULongLink, target);
        put(&mut header.as_old_mut().name, name);
        put(&mut header.as_old_mut().linkname, target);
        header.set_cksum();
        self.block(&header, content)
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.member(EntryType::Regular, name.as_bytes(), b"", content.as_bytes())
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.member(EntryType::Directory, name.as_bytes(), b"", b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Link, name.as_bytes(), target.as_bytes(), b"")
    }

    pub(crate) fn block(mut self, header: &Header, content: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    fn long(&mut self, kind: EntryType, value: &[u8]) {
        if value.len() <= 100 {
            return;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0);
        header.set_size(value.len() as u64);
        header.set_cksum();
        let taken = std::mem::take(self);
        *self = taken.block(&header, value);
    }
}

fn put(field: &mut [u8], value: &[u8]) {
    let most = field.len().min(value.len());
    field[..most].copy_from_slice(&value[..most]);
}

/// Unpacks with the default limits and no owners.
pub(crate) fn unpack_all(root: &Path, archive: &[u8]) -> Result<Stats, ArchiveError> {
    unpack(root, archive, &Limits::default(), &|_, _| None)
}

/// What unpacking was refused with.
pub(crate) fn refusal(root: &Path, archive: &[u8]) -> String {
    unpack_all(root, archive).expect_err("must be refused").to_string()
}

/// Every path below `root` with its kind, mode and content or target.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    look(root, root, &mut found);
    found
}

fn look(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let text = if metadata.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if metadata.is_dir() {
            look(root, &path, found);
            format!("dir {mode:o}")
        } else if metadata.file_type().is_fifo() {
            format!("fifo {mode:o}")
        } else if metadata.len() > 100_000 {
            let content = fs::read(&path).unwrap();
            let zeros = content.split(|byte| *byte == 0).count() - 1;
            format!("file {mode:o} of {} bytes, {zeros} of them zero", content.len())
        } else {
            format!("file {mode:o} {:?}", fs::read_to_string(&path).unwrap())
        };
        found.insert(name, text);
    }
}
