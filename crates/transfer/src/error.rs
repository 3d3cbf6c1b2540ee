//! What can go wrong on the way.

use mooring_harness::HarnessError;
use mooring_journal::{JournalError, RunId};
use mooring_sandbox::SandboxError;

/// A run could not be brought out, or in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The file is no such file, is cut off, or was changed.
    #[error("the file cannot be used: {reason}. Nothing was changed here; export the run again")]
    Damaged {
        /// How it shows.
        reason: String,
    },
    /// A newer version wrote it.
    #[error(
        "the file was written by {by}, in a form that this version does not know ({what}). Use that version, or a newer one"
    )]
    Newer {
        /// The version that wrote it.
        by: String,
        /// What is new.
        what: String,
    },
    /// More than what is carried.
    #[error("{what} is larger than the {limit} bytes that can be carried")]
    TooLarge {
        /// What.
        what: String,
        /// How much can be carried.
        limit: u64,
    },
    /// A run of that id is here, and is another or has gone on.
    #[error(
        "run {run} is here already, and differs from the one in the file from event {seq} on. Nothing was changed here"
    )]
    Differs {
        /// The run.
        run: RunId,
        /// The first event in which they differ.
        seq: u64,
    },
    /// The workspace could not be saved or restored.
    #[error("the workspace of run {run} cannot be carried: {source}")]
    Workspace {
        /// The run.
        run: RunId,
        /// Why.
        source: SandboxError,
    },
    /// The journal failed, or has no such run, or a driver is at work on it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The run cannot be read, is part of another, or needs what is not here.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// Reading or writing the file, or room for it, failed.
    #[error("cannot {operation}: {source}")]
    Io {
        /// What.
        operation: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl TransferError {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged { reason: reason.into() }
    }

    pub(crate) fn io(operation: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}
