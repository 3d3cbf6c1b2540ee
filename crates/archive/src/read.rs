//! A tar stream member by member, each one checked before anybody sees it.
//!
//! What is refused here is refused whoever reads: names that lead elsewhere, devices, a path that comes twice, hard
//! links to what the stream did not bring, too much.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tar::{Archive, Entry, EntryType};

use crate::guard::{Allowance, Guard};
use crate::walk::MAX_PATH;
use crate::{ArchiveError, Stats};

/// How much an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members.
    pub members: u64,
    /// Bytes of content, as unpacked.
    pub bytes: u64,
}

impl Default for Limits {
    /// A million members, 16 GiB.
    fn default() -> Self {
        Self { members: 1_000_000, bytes: 16 << 30 }
    }
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its size.
        size: u64,
        /// Whether it had holes: runs of zeros are such then.
        sparse: bool,
    },
    /// A symbolic link and where it points.
    Symlink(OsString),
    /// Another name for a regular file that came before.
    HardLink(PathBuf),
    /// A FIFO.
    Fifo,
}

/// A member of an archive. Its path is relative, plain, and not the root's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Below the root.
    pub path: PathBuf,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits, without setuid and setgid: they would outlive the archive's author.
    pub mode: u32,
    /// Last modification in seconds since the Unix epoch.
    pub mtime: u64,
    /// Nanoseconds beyond.
    pub nanos: u32,
    /// Owner's name; empty for none.
    pub user: String,
    /// Group's name; empty for none.
    pub group: String,
}

/// Mode bits that are kept.
const KEPT_MODE: u32 = 0o1777;

/// Reads a tar stream; `take` gets each member, and for a regular file its content. A member that names the root
/// itself is accepted and left out.
///
/// # Errors
/// [`ArchiveError::Refused`] for an absolute name, `..`, a device, a name that comes twice (other than a directory),
/// or a hard link to what the archive did not bring before. [`ArchiveError::Limit`], [`ArchiveError::Stream`], and
/// whatever `take` returns.
pub fn read(
    mut stream: impl Read,
    limits: &Limits,
    take: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), ArchiveError>,
) -> Result<Stats, ArchiveError> {
    read_from(&mut stream, limits, take)
}

fn read_from(
    stream: &mut dyn Read,
    limits: &Limits,
    take: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), ArchiveError>,
) -> Result<Stats, ArchiveError> {
    let allowance = Rc::new(Allowance::default());
    let mut archive = Archive::new(Guard::new(stream, Rc::clone(&allowance)));
    let mut reader = Reader { limits, brought: HashMap::new(), stats: Stats::default() };
    let mut entries = archive.entries().map_err(ArchiveError::read)?;
    loop {
        allowance.headers();
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(ArchiveError::read)?;
        allowance.content();
        if let Some(member) = reader.check(&mut entry)? {
            let MemberKind::File { size, .. } = member.kind else {
                take(&member, &mut io::empty())?;
                continue;
            };
            let failure = RefCell::new(None);
            let mut content =
                Content { entry: &mut entry, name: &member.path, left: size, failure: &failure };
            let taken = take(&member, &mut content);
            // Why the content broke off explains whatever the taker made of it.
            if let Some(broken) = failure.take() {
                return Err(ArchiveError::read(broken));
            }
            taken?;
        }
    }
    if allowance.ended() {
        let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off: its closing block is missing");
        return Err(ArchiveError::read(cut));
    }
    drop(archive);
    // Writers pad an archive with zeros. They are read, so that whoever writes does not fail on a closed pipe.
    io::copy(&mut stream.take(1 << 20), &mut io::sink()).map_err(ArchiveError::read)?;
    Ok(reader.stats)
}

struct Reader<'a> {
    limits: &'a Limits,
    /// Members so far, and what they are.
    brought: HashMap<PathBuf, Brought>,
    stats: Stats,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Brought {
    Directory,
    File,
    Other,
}

impl Reader<'_> {
    fn check(&mut self, entry: &mut Entry<'_, Guard<'_>>) -> Result<Option<Member>, ArchiveError> {
        let raw = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&raw).into_owned();
        let refused =
            |reason: &str| ArchiveError::Refused { member: name.clone(), reason: reason.to_owned() };
        let over = |what, limit| ArchiveError::Limit { member: name.clone(), what, limit };
        self.stats.members += 1;
        if self.stats.members > self.limits.members {
            return Err(over("members", self.limits.members));
        }
        let path = relative(&raw).map_err(refused)?;
        let form = match entry.header().entry_type() {
            // The oldest form has no type for directories.
            EntryType::Regular if raw.ends_with(b"/") => EntryType::Directory,
            EntryType::Continuous => EntryType::Regular,
            other => other,
        };
        let extended = Extended::of(entry)?;
        if form == EntryType::Regular && extended.sparse {
            return Err(refused("sparse files in the pax form are not supported"));
        }
        let header = entry.header();
        let mode = header.mode().map_err(ArchiveError::read)? & KEPT_MODE;
        let mtime = header.mtime().map_err(ArchiveError::read)?;
        // A name that is not UTF-8 is no name that anybody knows.
        let user = header.username().ok().flatten().unwrap_or_default().to_owned();
        let group = header.groupname().ok().flatten().unwrap_or_default().to_owned();
        if form == EntryType::XGlobalHeader {
            return Ok(None);
        }
        if path.as_os_str().is_empty() {
            return if form == EntryType::Directory {
                Ok(None)
            } else {
                Err(refused("it names the root itself"))
            };
        }
        let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let kind = match form {
            EntryType::Directory => MemberKind::Directory,
            EntryType::Regular | EntryType::GNUSparse => {
                let size = entry.size();
                let total = self.stats.bytes.checked_add(size).filter(|total| *total <= self.limits.bytes);
                self.stats.bytes = total.ok_or_else(|| over("bytes", self.limits.bytes))?;
                MemberKind::File { size, sparse: form == EntryType::GNUSparse }
            }
            EntryType::Symlink => {
                let target = target.filter(|target| !target.is_empty() && !target.contains(&0));
                MemberKind::Symlink(OsString::from_vec(
                    target.ok_or_else(|| refused("the link has no target"))?,
                ))
            }
            EntryType::Link => {
                let target = relative(&target.unwrap_or_default()).map_err(refused)?;
                if self.brought.get(&target) != Some(&Brought::File) {
                    return Err(refused("a hard link may only name a file that the archive brought before"));
                }
                MemberKind::HardLink(target)
            }
            EntryType::Fifo => MemberKind::Fifo,
            EntryType::Char | EntryType::Block => return Err(refused("it is a device")),
            _ => return Err(refused("its type is unknown")),
        };
        let brought = match kind {
            MemberKind::Directory => Brought::Directory,
            MemberKind::File { .. } | MemberKind::HardLink(_) => Brought::File,
            MemberKind::Symlink(_) | MemberKind::Fifo => Brought::Other,
        };
        let before = self.brought.insert(path.clone(), brought);
        if before.is_some() && (before, brought) != (Some(Brought::Directory), Brought::Directory) {
            return Err(refused("the archive has this path twice"));
        }
        self.stats.files += u64::from(brought == Brought::File);
        let (mtime, nanos) = extended.mtime.unwrap_or((mtime, 0));
        Ok(Some(Member { path, kind, mode, mtime, nanos, user, group }))
    }
}

/// What a member says about itself in the POSIX form, as far as we look.
#[derive(Default)]
struct Extended {
    sparse: bool,
    mtime: Option<(u64, u32)>,
}

impl Extended {
    fn of(entry: &mut Entry<'_, Guard<'_>>) -> Result<Self, ArchiveError> {
        let mut found = Self::default();
        let Some(extensions) = entry.pax_extensions().map_err(ArchiveError::read)? else { return Ok(found) };
        for extension in extensions {
            let extension = extension.map_err(ArchiveError::read)?;
            match extension.key_bytes() {
                b"mtime" => found.mtime = extension.value().ok().and_then(seconds),
                key => found.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(found)
    }
}

/// `12.5` as seconds and nanoseconds. What is before 1970 is its beginning.
fn seconds(text: &str) -> Option<(u64, u32)> {
    if text.starts_with('-') {
        return Some((0, 0));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some((whole.parse().ok()?, digits.parse().ok()?))
}

/// A file's content; its end before it is whole is an error.
struct Content<'a, 'e, 'g> {
    entry: &'a mut Entry<'e, Guard<'g>>,
    name: &'a Path,
    left: u64,
    failure: &'a RefCell<Option<io::Error>>,
}

impl Read for Content<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let error = match self.entry.read(buffer) {
            Ok(0) => {
                let cut = format!("it is cut off within '{}'", self.name.display());
                io::Error::new(io::ErrorKind::UnexpectedEof, cut)
            }
            Ok(count) => {
                self.left = self.left.saturating_sub(count as u64);
                return Ok(count);
            }
            Err(error) => error,
        };
        let told = io::Error::from(error.kind());
        *self.failure.borrow_mut() = Some(error);
        Err(told)
    }
}

/// A member's name as a path below the root; empty for the root itself.
fn relative(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.is_empty() {
        return Err("it has no name");
    }
    if name.len() > MAX_PATH {
        return Err("its name is too long");
    }
    if name.contains(&0) {
        return Err("its name holds a NUL");
    }
    if name.starts_with(b"/") {
        return Err("its name is absolute");
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its name has '..' in it"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}
