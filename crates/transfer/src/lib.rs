//! One file that carries a run from one machine to another: its events, those of its sub-agents, and the workspaces
//! that they were working in.
//!
//! The file is a tar archive: first `mooring-run.json`, which says what follows, with sizes and digests; then its own
//! digest; then the events of each run as JSON lines, and each workspace as a tar archive. So anybody can look into
//! one with `tar`, and nothing of it is believed: members are read in the order that the header gives, into files
//! without names, and nothing in the file chooses a path. The digests find damage, not forgery: who gives you such a
//! file tells you what the agent has done and may do, as an agent file does.
//!
//! What is in the journal is in the file. Keys, configuration and environment are in neither.

mod error;
mod export;
mod format;
mod import;

pub use error::TransferError;
pub use export::{Export, Exported, export};
pub use import::{Bundle, Imported, Importer};
