//! A tar stream, member by member. Names and targets of any length, in the GNU form, which every tar reads.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::{ArchiveError, Extent, Stats};

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
    /// Nanoseconds beyond `mtime`.
    pub nanos: u32,
    /// Owner's number. [`crate::unpack`] does not look at it.
    pub uid: u32,
    /// Group's number. [`crate::unpack`] does not look at it.
    pub gid: u32,
    /// Owner's name, at most 32 bytes; empty for none.
    pub user: &'a str,
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
        self.copy(name, size, content)?;
        self.stats.files += 1;
        self.stats.bytes += size;
        Ok(())
    }

    /// Adds a regular file that has holes: `data` says where it has none, in order, and `content` is what is there,
    /// one piece after the other. The form is that of GNU tar.
    ///
    /// # Errors
    /// As [`Writer::file`]; and [`ArchiveError::Refused`] where the pieces are no whole blocks of 512 bytes, but for
    /// the last, or out of order, or beyond `size`.
    pub fn sparse(
        &mut self,
        name: &Path,
        meta: Meta<'_>,
        size: u64,
        data: &[Extent],
        content: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        let mut end = 0;
        for (at, piece) in data.iter().enumerate() {
            let whole = piece.length % BLOCK as u64 == 0 || at + 1 == data.len();
            let next = piece.offset.checked_add(piece.length).filter(|next| *next <= size);
            match next {
                Some(next) if piece.offset >= end && whole => end = next,
                _ => return Err(ArchiveError::refused(name, "its map of holes makes no sense")),
            }
        }
        let stored = data.iter().map(|piece| piece.length).sum();
        let (head, rest) = sparse_map(data, size);
        self.header_with(EntryType::GNUSparse, name.as_os_str().as_bytes(), &[], meta, stored, |header| {
            if let Some(gnu) = header.as_gnu_mut() {
                gnu.sparse = head;
                gnu.set_real_size(size);
                gnu.set_is_extended(!rest.is_empty());
            }
        })?;
        for block in &rest {
            self.out.write_all(block.as_bytes()).map_err(ArchiveError::write)?;
        }
        self.copy(name, stored, content)?;
        self.stats.files += 1;
        self.stats.bytes += size;
        Ok(())
    }

    /// Adds a FIFO.
    pub fn fifo(&mut self, name: &Path, meta: Meta<'_>) -> Result<(), ArchiveError> {
        self.header(EntryType::Fifo, name.as_os_str().as_bytes(), &[], meta, 0)
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
        self.header_with(kind, name, target, meta, size, |_| {})
    }

    fn header_with(
        &mut self,
        kind: EntryType,
        name: &[u8],
        target: &[u8],
        meta: Meta<'_>,
        size: u64,
        more: impl FnOnce(&mut Header),
    ) -> Result<(), ArchiveError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_mtime(meta.mtime);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_size(size);
        if !meta.user.is_empty() {
            header.set_username(meta.user).map_err(ArchiveError::write)?;
        }
        if !meta.group.is_empty() {
            header.set_groupname(meta.group).map_err(ArchiveError::write)?;
        }
        if meta.nanos != 0 {
            let record = format!(" mtime={}.{:09}\n", meta.mtime, meta.nanos);
            self.extended(&record)?;
        }
        let fields = header.as_old_mut();
        if !fill(&mut fields.linkname, target) {
            self.long(EntryType::GNULongLink, target)?;
        }
        if !fill(&mut fields.name, name) {
            self.long(EntryType::GNULongName, name)?;
        }
        more(&mut header);
        header.set_cksum();
        self.stats.members += 1;
        self.out.write_all(header.as_bytes()).map_err(ArchiveError::write)
    }

    /// A record of the POSIX form ahead of the member that it belongs to; `record` lacks its own length.
    fn extended(&mut self, record: &str) -> Result<(), ArchiveError> {
        // The length counts itself.
        let mut length = record.len() + 2;
        while record.len() + length.to_string().len() != length {
            length = record.len() + length.to_string().len();
        }
        let record = format!("{length}{record}");
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        fill(&mut header.as_old_mut().name, b"././@PaxHeader");
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(record.len() as u64);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(ArchiveError::write)?;
        self.out.write_all(record.as_bytes()).map_err(ArchiveError::write)?;
        self.pad(record.len() as u64)
    }

    fn copy(&mut self, name: &Path, size: u64, content: &mut dyn Read) -> Result<(), ArchiveError> {
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
        self.pad(size)
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

/// The map of a file's data as a header holds it, and as the blocks after it do.
fn sparse_map(data: &[Extent], size: u64) -> ([GnuSparseHeader; 4], Vec<GnuExtSparseHeader>) {
    // The last entry is empty and says where the file ends.
    let mut entries = data.iter().copied().chain([Extent { offset: size, length: 0 }]).map(|piece| {
        let mut entry = GnuSparseHeader { offset: [0; 12], numbytes: [0; 12] };
        number(&mut entry.offset, piece.offset);
        number(&mut entry.numbytes, piece.length);
        entry
    });
    let nothing = || GnuSparseHeader { offset: [0; 12], numbytes: [0; 12] };
    let head = std::array::from_fn(|_| entries.next().unwrap_or_else(nothing));
    let mut rest: Vec<GnuExtSparseHeader> = Vec::new();
    let mut entries = entries.peekable();
    while entries.peek().is_some() {
        let mut block = GnuExtSparseHeader::new();
        block.sparse = std::array::from_fn(|_| entries.next().unwrap_or_else(nothing));
        block.set_is_extended(entries.peek().is_some());
        rest.push(block);
    }
    (head, rest)
}

/// A number as a header holds it: octal digits, or binary where they are too few.
fn number(field: &mut [u8; 12], value: u64) {
    if value < 1 << 33 {
        field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
}

/// Puts as much of `value` into a header's field as fits, and says whether all of it did.
fn fill(field: &mut [u8], value: &[u8]) -> bool {
    let most = field.len().min(value.len());
    field[..most].copy_from_slice(&value[..most]);
    value.len() <= field.len()
}
