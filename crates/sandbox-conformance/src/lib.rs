//! What every sandbox backend does, as tests.
//!
//! A backend is what its sessions do, so this says it in cases that go through the traits alone. Whoever writes a
//! backend implements [`Backend`] for it and adds one line to its tests, which makes one test of each case:
//!
//! ```ignore
//! mooring_sandbox_conformance::suite!(MyBackend::new());
//! ```
//!
//! The sandbox must have a POSIX shell and the standard utilities; those of busybox will do. This host
//! must have `git`. A case about something
//! optional that the backend does not offer says that it is left out, and why; nothing else is ever left out. A case
//! that fails panics with what was expected, as any test does.

#![expect(clippy::unwrap_used, reason = "these are tests: a failed expectation is the report")]

mod archives;
mod bench;
mod cases;
mod disk;
mod exec;
mod faults;
mod files;
mod hostile;
mod isolation;
mod lifecycle;
mod limits;
mod network;
mod output;
mod staging;
mod stopping;
mod terminals;
mod tree;
mod users;

use std::path::PathBuf;
use std::sync::Arc;

use mooring_sandbox::{BoxFuture, SandboxClient, SandboxSession};

pub use bench::{Bench, run};
pub use cases::CASES;
pub use disk::SmallDisk;
pub use terminals::{on_terminal, read_until};

/// One thing that every backend does.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `area::what`; stable.
    pub name: &'static str,
    pub(crate) run: for<'a> fn(&'a Bench) -> BoxFuture<'a, ()>,
}

/// What a backend gives the suite.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// A client, its sandboxes without limits. Another call gives another one over the same state, as another process
    /// on this host would have it.
    fn client(&self) -> Arc<dyn SandboxClient>;

    /// A client whose sandboxes are limited; or why there is none.
    fn limited(&self, limits: Limits) -> Result<Arc<dyn SandboxClient>, String>;

    /// A directory of this host for a workspace, on a disk that is full after about this many bytes; or why there is
    /// none.
    fn small_disk(&self, bytes: u64) -> Result<PathBuf, String>;

    /// What can be done to a running sandbox from outside.
    fn faults(&self) -> &dyn Faults;
}

/// Limits of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// Memory in bytes.
    Memory(u64),
    /// Processes and threads.
    Processes(u64),
}

/// Does to a running session's sandbox what happens to sandboxes.
pub trait Faults: Send + Sync {
    /// Nothing in it runs, nothing answers, and nobody is told.
    fn freeze<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()>;

    /// It goes on.
    fn thaw<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()>;

    /// It is gone from one moment to the next.
    fn kill<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()>;
}
