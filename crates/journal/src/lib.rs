//! The journal: append-only events, the single source of truth about a run.
//!
//! Run state, traces, trajectories, the live stream and the audit trail are views of it. This crate knows how events
//! look and how they are kept, not what they mean: folding them is the harness's work. Items, manifests and errors
//! are therefore JSON values here, in their owners' wire forms.
//!
//! Two stores keep one contract, [`Journal`]: [`SqliteJournal`] in a file that many processes share, and
//! [`MemoryJournal`] for tests and simulations.

// Only the store in a file chains its records.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
mod chain;
pub mod event;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;

pub use event::{Event, Record, RunId, SCHEMA_VERSION};
pub use memory::MemoryJournal;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteJournal;
pub use store::{
    Amounts, Append, BoxFuture, Claim, Durability, Holding, Journal, JournalError, RunRow, Stamped,
};
