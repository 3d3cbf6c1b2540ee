//! What a snapshot is made of: lists of entries, each named by the digest of its bytes.
//!
//! Owners are kept by name and not by number: each backend numbers users its own way. What is physical (inodes, the
//! time of the last change, where exactly a file system keeps its holes) is not kept, so that the same files have the
//! same digest wherever they lie.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::SnapshotError;

/// The form of lists. Other forms have other numbers.
const FORM: u8 = 1;

/// BLAKE3 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) mode: u32,
    /// Empty: the sandbox's default user, and its group.
    pub(crate) user: String,
    pub(crate) group: String,
    /// Seconds and nanoseconds since the Unix epoch.
    pub(crate) mtime: (u64, u32),
    pub(crate) kind: Kind,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Directory(Digest),
    File(Content),
    Symlink(Vec<u8>),
    Fifo,
    /// Another name for the file at this path, which comes before in the order of the walk.
    HardLink(Vec<u8>),
}

/// A file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) size: u64,
    /// For a file with holes, where it has data: offset and length. The data of all of them is one after the other.
    pub(crate) pieces: Option<Vec<(u64, u64)>>,
    pub(crate) data: Data,
}

/// Where data is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Data {
    Empty,
    /// One object.
    One(Digest),
    /// The object that lists the objects.
    Many(Digest),
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, SnapshotError> {
    postcard::to_extend(value, vec![FORM])
        .map_err(|error| SnapshotError::damaged(format!("a list cannot be written: {error}")))
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, SnapshotError> {
    match bytes.split_first() {
        Some((&FORM, rest)) => postcard::from_bytes(rest)
            .map_err(|error| SnapshotError::damaged(format!("a list cannot be read: {error}"))),
        _ => Err(SnapshotError::damaged("a list has a form that this version does not know")),
    }
}
