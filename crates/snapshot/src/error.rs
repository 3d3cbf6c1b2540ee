//! What can go wrong with snapshots.

use mooring_archive::ArchiveError;
use mooring_sandbox::SandboxError;

/// A snapshot could not be taken, found, restored or removed. Nothing is ever half there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The store's file failed: out of reach, full, damaged, another program's.
    #[error("the snapshot store {store}: {reason}")]
    Store {
        /// Its path.
        store: String,
        /// Why.
        reason: String,
    },
    /// Another process prunes the store, or takes a snapshot, for longer than anybody should wait.
    #[error("the snapshot store {store} has been busy for {seconds} s; try again")]
    Busy {
        /// Its path.
        store: String,
        /// How long was waited.
        seconds: u64,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot '{id}'; `moor sandbox list --snapshots` shows those that there are")]
    Unknown {
        /// As it was asked for.
        id: String,
    },
    /// Its id is another one's, which stays.
    #[error(
        "there is a snapshot '{id}' already; use another name, or remove that one first with `moor sandbox rm {id}`"
    )]
    Exists {
        /// The id.
        id: String,
    },
    /// Something that a snapshot needs is missing or not what it was.
    #[error("the snapshot store is damaged: {reason}; snapshots that need it cannot be restored")]
    Damaged {
        /// What.
        reason: String,
    },
    /// The workspace could not be read.
    #[error("cannot take a snapshot: {0}")]
    Read(#[source] ArchiveError),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl SnapshotError {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged { reason: reason.into() }
    }
}

impl From<ArchiveError> for SnapshotError {
    fn from(error: ArchiveError) -> Self {
        Self::Read(error)
    }
}
