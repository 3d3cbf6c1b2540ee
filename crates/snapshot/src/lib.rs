//! Snapshots of workspaces: what a workspace held at one moment, kept so that a second one costs only what changed.
//!
//! A [`SnapshotStore`] is content-addressed. Files are cut where their content says so, and each piece is kept once,
//! compressed, under the BLAKE3 of what it holds; directories are kept the same way, as lists of what is in them. Two
//! snapshots share everything that is equal. One SQLite file holds it all: a transaction is what makes a snapshot
//! whole or absent, whatever is killed, and ten thousand small pieces are cheaper in it than in as many files.
//!
//! A workspace is read on this host where the sandbox says that it lies here ([`SandboxSession::host_workspace`]), and
//! then files that did not change since the last time are not opened; from any other sandbox it comes as a tar stream.
//! Both ways give the same digest. It goes back as a tar stream alone, which the sandbox unpacks with its own rights
//! and confined to its workspace: a snapshot holds files that a model wrote, and restoring it must not write anywhere
//! else. It holds no policy either: what a sandbox may do comes from whoever starts it.
//!
//! [`SandboxSession::host_workspace`]: mooring_sandbox::SandboxSession::host_workspace

mod content;
mod diff;
mod error;
mod export;
mod import;
mod index;
mod objects;
mod patch;
mod prune;
mod scan;
mod session;
mod setup;
mod store;
mod tree;

pub use error::SnapshotError;
pub use prune::Pruned;
pub use store::{NewSnapshot, Snapshot, SnapshotStore};
pub use tree::Digest;
