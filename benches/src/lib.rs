//! What the benches share: clocks, samples, tables, and the peers' processes.
//!
//! A bench measures ours and a peer in one run of one program and prints both in one table. A figure stands with its
//! unit, its median, its minimum and the number of samples: on a busy machine the minimum is the sound one. The
//! peers' halves are scripts in `peers/`, which print one JSON object a line.

pub mod machine;
pub mod peer;
mod samples;
mod table;

pub use samples::Samples;
pub use table::{Table, figure};

/// What ends a bench.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
