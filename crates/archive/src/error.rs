//! What can go wrong with an archive.

use std::io;
use std::path::{Path, PathBuf};

/// An archive could not be read, written, or was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A member that a workspace may not hold, or that would be written outside of the root.
    #[error("archive member '{}' refused: {reason}", shown(member))]
    Refused {
        /// The member's name, with what is not UTF-8 replaced.
        member: String,
        /// Why.
        reason: String,
    },
    /// The archive is larger than allowed.
    #[error("archive exceeds the limit of {limit} {what} at member '{member}'")]
    Limit {
        /// The member that went over it.
        member: String,
        /// `members` or `bytes`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The stream broke off, is no tar archive, or could not be written.
    #[error("cannot {operation} the archive: {source}")]
    Stream {
        /// `read` or `write`.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", shown(&path.to_string_lossy()))]
    File {
        /// `create`, `open`, `list`, ….
        operation: &'static str,
        /// The path; relative to the root but for the root itself.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A name for people: of a very long one the beginning and the end.
fn shown(name: &str) -> String {
    let count = name.chars().count();
    if count <= 300 {
        return name.to_owned();
    }
    let (first, last): (String, String) =
        (name.chars().take(200).collect(), name.chars().skip(count - 80).collect());
    format!("{first} … {last}")
}

impl ArchiveError {
    pub(crate) fn refused(member: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { member: member.to_string_lossy().into_owned(), reason: reason.into() }
    }

    pub(crate) fn read(source: io::Error) -> Self {
        Self::Stream { operation: "read", source }
    }

    pub(crate) fn write(source: io::Error) -> Self {
        Self::Stream { operation: "write", source }
    }

    pub(crate) fn file(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::File { operation, path: path.to_owned(), source: source.into() }
    }
}
