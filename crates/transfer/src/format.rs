//! The file's form: its header, its limits, and the reader that takes its members in order.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use mooring_journal::RunId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::TransferError;

/// The version of the form. It grows when an old reader could misread a new file.
pub(crate) const VERSION: u64 = 1;

/// The word that says what the file is.
pub(crate) const FORMAT: &str = "mooring-run";

/// The header's name, which comes first.
pub(crate) const HEADER: &str = "mooring-run.json";

/// The name of the header's digest, which comes second.
pub(crate) const HEADER_DIGEST: &str = "mooring-run.json.sha256";

/// The largest header, in bytes.
pub(crate) const MAX_HEADER: u64 = 16 << 20;

/// The most bytes of events, of all runs together: they are in memory while they are carried.
pub(crate) const MAX_EVENTS: u64 = 1 << 30;

/// The largest workspace, in bytes of its archive.
pub(crate) const MAX_WORKSPACE: u64 = 16 << 30;

/// A tar archive's unit.
const BLOCK: u64 = 512;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// [`FORMAT`].
    pub(crate) format: String,
    /// [`VERSION`].
    pub(crate) version: u64,
    /// The version of the program that wrote it.
    pub(crate) runtime: String,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) exported_ms: i64,
    /// The run that it is about.
    pub(crate) run: RunId,
    /// That run, which comes last, and before it those of its sub-agents, each before its caller.
    pub(crate) runs: Vec<Part>,
    /// The workspaces of those of them that work on.
    pub(crate) workspaces: Vec<Part>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Whose.
    pub(crate) run: RunId,
    /// Its name in the archive.
    pub(crate) file: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// SHA-256 of its content, hex.
    pub(crate) sha256: String,
}

/// SHA-256, hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Copies what is read; gives its size and digest. Stops after `most` bytes.
pub(crate) fn copy(from: &mut dyn Read, to: &mut dyn Write, most: u64) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    let mut from = from.take(most);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, hex(hash)));
        }
        hash.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        bytes += count as u64;
    }
}

/// Counts what is read.
pub(crate) struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Counted<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, count: 0 }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// The members, taken one after the other.
pub(crate) struct Members<'a, R: Read> {
    entries: tar::Entries<'a, Counted<R>>,
    /// How long the archive is up to here.
    expected: u64,
}

impl<'a, R: Read> Members<'a, R> {
    pub(crate) fn new(archive: &'a mut tar::Archive<Counted<R>>) -> Result<Self, TransferError> {
        // Raw: long names and the like are members as any, and none of ours has one.
        let entries = archive.entries().map_err(|error| TransferError::damaged(error.to_string()))?.raw(true);
        Ok(Self { entries, expected: 0 })
    }

    /// Copies the next member, which must have this name; gives its size and digest.
    pub(crate) fn take(
        &mut self,
        name: &str,
        most: u64,
        to: &mut dyn Write,
    ) -> Result<(u64, String), TransferError> {
        let damaged = |error: io::Error| TransferError::damaged(format!("{name}: {error}"));
        let mut entry = match self.entries.next() {
            None => return Err(TransferError::damaged(format!("it ends before {name}"))),
            Some(entry) => entry.map_err(damaged)?,
        };
        let size = entry.header().entry_size().map_err(damaged)?;
        if entry.header().entry_type() != tar::EntryType::Regular || entry.path_bytes() != name.as_bytes() {
            let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Err(TransferError::damaged(format!("{found:?} is where {name} should be")));
        }
        if size > most {
            return Err(TransferError::TooLarge { what: name.into(), limit: most });
        }
        self.expected += BLOCK + size.next_multiple_of(BLOCK);
        let (bytes, digest) = copy(&mut entry, to, size).map_err(damaged)?;
        if bytes != size {
            return Err(TransferError::damaged(format!("it is cut off in {name}")));
        }
        Ok((bytes, digest))
    }

    /// How long the whole archive is, with the two blocks at its end.
    pub(crate) fn length(&self) -> u64 {
        self.expected + 2 * BLOCK
    }
}

/// Reads what is left, and checks that the archive has the length that its members say.
pub(crate) fn finish<R: Read>(archive: tar::Archive<Counted<R>>, length: u64) -> Result<(), TransferError> {
    let mut rest = archive.into_inner();
    let left = length.saturating_sub(rest.count) + 1;
    io::copy(&mut (&mut rest).take(left), &mut io::sink()).map_err(TransferError::io("read the file"))?;
    match rest.count {
        count if count == length => Ok(()),
        count if count < length => Err(TransferError::damaged("it is cut off at its end")),
        _ => Err(TransferError::damaged("something follows its end")),
    }
}
