//! Tar streams of a workspace: [`pack`] writes one, [`unpack`] reads one, and neither leaves its root.
//!
//! An archive may come from a sandbox, that is, from a model: nothing in it is believed. Every path is resolved by
//! the kernel beneath the root's descriptor (`openat2` with `RESOLVE_BENEATH`), so that neither a name, nor a link
//! in the archive, nor a link that a running process puts in the way can lead outside. Checking names first and
//! opening them later would leave a window for the last of these.
//!
//! The code blocks and needs no runtime, because the local sandbox's supervisor uses it too. Extended attributes and
//! access times are not kept.

mod error;
mod extents;
mod guard;
mod pack;
mod read;
mod unpack;
mod walk;
mod write;

pub use error::ArchiveError;
pub use extents::{Extent, Pieces, extents};
pub use pack::{OwnerNames, pack};
pub use read::{Limits, Member, MemberKind, read};
pub use unpack::{Owners, unpack};
pub use walk::{Kind, Node, Visit, walk, walk_layers};
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
    /// Sockets and devices that were left out. Only packing leaves any out; unpacking refuses them.
    pub skipped: u64,
}
