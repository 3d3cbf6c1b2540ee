//! Tar streams of a workspace: [`pack`] writes one, [`unpack`] reads one, and neither leaves its root.
//!
//! An archive may come from a sandbox, that is, from a model: nothing in it is believed. Every path is resolved by
//! the kernel beneath the root's descriptor (`openat2` with `RESOLVE_BENEATH`), so that neither a name, nor a link
//! in the archive, nor a link that a running process puts in the way can lead outside. Checking names first and
//! opening them later would leave a window for the last of these.
//!
//! The code blocks and needs no runtime, because the local sandbox's supervisor uses it too. Extended attributes,
//! access times and fractions of a second are not kept; sparse files become dense.

mod error;
mod guard;
mod pack;
mod unpack;
mod walk;
mod write;

pub use error::ArchiveError;
pub use pack::pack;
pub use unpack::{Limits, Owners, unpack};
pub use walk::{Kind, Node, Visit, walk};
pub use write::{Meta, Writer};

/// What a stream held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// All members.
    pub members: u64,
    /// Those that are regular files; a further hard link to one counts too.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Sockets, FIFOs and devices that were left out. Only packing leaves any out; unpacking refuses them.
    pub skipped: u64,
}
