//! A tar stream, member by member. Names and targets of any length, in the GNU form, which every tar reads.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{EntryType, Header};

use crate::{ArchiveError, Stats};

/// A tar stream is made of blocks of this many bytes.
const BLOCK: usize = 512;

/// How much content is copied at a time.
const CHUNK: usize = 64 << 10;

/// A member's metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta<'a> {
    /// Permission bits.
    pub mode: u32,
    /// Last modification in seconds since the Unix epoch.
    pub mtime: u64,
    /// Owner's number. [`crate::unpack`] does not look at it.
    pub uid: u32,
    /// Group's number. [`crate::unpack`] does not look at it.
    pub gid: u32,
    /// Group's name, at most 32 bytes; empty for none.
    pub group: &'a str,
}

/// Writes a tar stream. Dropping it without [`Writer::finish`] leaves a stream that [`crate::unpack`] refuses as
/// cut off. (The tar crate's own builder closes the archive when it is dropped, which would pass off what a failed
/// writer left as whole.)
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    stats: Stats,
    chunk: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// A stream into `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self { out, stats: Stats::default(), chunk: vec![0; CHUNK] }
    }

    /// Adds a directory.
    pub fn directory(&mut self, name: &Path, meta: Meta<'_>) -> Result<(), ArchiveError> {
        let mut name = name.as_os_str().as_bytes().to_owned();
        name.push(b'/');
        self.header(EntryType::Directory, &name, &[], meta, 0)
    }

    /// Adds a regular file of exactly `size` bytes; what `content` has beyond them is left out.
    ///
    /// # Errors
    /// [`ArchiveError::File`] where `content` ends early: padding it would pass off a torn file as a whole one.
    pub fn file(
        &mut self,
        name: &Path,
        meta: Meta<'_>,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        self.header(EntryType::Regular, name.as_os_str().as_bytes(), &[], meta, size)?;
        let mut left = size;
        while left > 0 {
            let most = self.chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match content.read(&mut self.chunk[..most]) {
                Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            }
            .map_err(|error| ArchiveError::file("read", name, error))?;
            self.out.write_all(&self.chunk[..count]).map_err(ArchiveError::write)?;
            left -= count as u64;
        }
        self.pad(size)?;
        self.stats.files += 1;
        self.stats.bytes += size;
        Ok(())
    }

    /// Adds a symbolic link; `target` is kept as it is.
    pub fn symlink(&mut self, name: &Path, meta: Meta<'_>, target: &Path) -> Result<(), ArchiveError> {
        let target = target.as_os_str().as_bytes();
        self.header(EntryType::Symlink, name.as_os_str().as_bytes(), target, meta, 0)
    }

    /// Adds another name for a regular file that was added as `target`.
    pub fn hard_link(&mut self, name: &Path, meta: Meta<'_>, target: &Path) -> Result<(), ArchiveError> {
        let target = target.as_os_str().as_bytes();
        self.header(EntryType::Link, name.as_os_str().as_bytes(), target, meta, 0)?;
        self.stats.files += 1;
        Ok(())
    }

    /// Writes the end of the archive, and says what is in it.
    pub fn finish(mut self) -> Result<Stats, ArchiveError> {
        self.out.write_all(&[0; 2 * BLOCK]).map_err(ArchiveError::write)?;
        self.out.flush().map_err(ArchiveError::write)?;
        Ok(self.stats)
    }

    /// Counts something that was left out.
    pub(crate) fn skip(&mut self) {
        self.stats.skipped += 1;
    }

    fn header(
        &mut self,
        kind: EntryType,
        name: &[u8],
        target: &[u8],
        meta: Meta<'_>,
        size: u64,
    ) -> Result<(), ArchiveError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_mtime(meta.mtime);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_size(size);
        if !meta.group.is_empty() {
            header.set_groupname(meta.group).map_err(ArchiveError::write)?;
        }
        let fields = header.as_old_mut();
        if !fill(&mut fields.linkname, target) {
            self.long(EntryType::GNULongLink, target)?;
        }
        if !fill(&mut fields.name, name) {
            self.long(EntryType::GNULongName, name)?;
        }
        header.set_cksum();
        self.stats.members += 1;
        self.out.write_all(header.as_bytes()).map_err(ArchiveError::write)
    }

    /// A name that does not fit into a header, ahead of the member that it belongs to.
    fn long(&mut self, kind: EntryType, name: &[u8]) -> Result<(), ArchiveError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        fill(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let size = name.len() as u64 + 1;
        header.set_size(size);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(ArchiveError::write)?;
        self.out.write_all(name).map_err(ArchiveError::write)?;
        self.out.write_all(&[0]).map_err(ArchiveError::write)?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let over = (size % BLOCK as u64) as usize;
        let rest = if over == 0 { 0 } else { BLOCK - over };
        self.out.write_all(&[0; BLOCK][..rest]).map_err(ArchiveError::write)
    }
}

/// Puts as much of `value` into a header's field as fits, and says whether all of it did.
fn fill(field: &mut [u8], value: &[u8]) -> bool {
    let most = field.len().min(value.len());
    field[..most].copy_from_slice(&value[..most]);
    value.len() <= field.len()
}
