//! Attempts to get out of a sandbox, each a program that runs inside and really tries.
//!
//! A backend gives the suite two sandboxes ([`Target`]): one as untrusted work gets it, in which every attempt must
//! fail, and one with the protections switched off, in which every attempt must succeed. The second is what makes the
//! first worth something: an attempt that never gets out shows nothing.
//!
//! ```ignore
//! mooring_sandbox_escape::suite!(MyTarget::new());
//! ```
//!
//! makes a module `holds` and a module `bites`, with one test of each attempt. A target that cannot be had without its
//! protections uses `mooring_sandbox_escape::holds!`, and [`bites()`] for attempts through the way out. The sandbox must have `python3`.
//!
//! What an attempt got is never believed from inside alone where it can be seen outside: a file that appears, a
//! connection that arrives, a process that dies ([`Outside`]).

#![expect(clippy::unwrap_used, reason = "these are tests: a failed expectation is the report")]

mod allowed;
mod attempts;
mod careless;
mod files;
mod front;
mod ground;
mod harness;
mod kernel;
mod knocks;
mod network;
mod outside;
mod processes;
mod way_out;

use std::path::PathBuf;
use std::sync::Arc;

use mooring_sandbox::{BoxFuture, SandboxClient, SandboxSession};

pub use attempts::{ATTEMPTS, bites, holds};
pub use ground::Ground;
pub use outside::Outside;

/// How many processes a guarded sandbox may have.
pub const PROCESSES: u64 = 64;
/// How much memory a guarded sandbox may have, in bytes.
pub const MEMORY: u64 = 128 << 20;

/// What a backend gives the suite.
pub trait Target: Send + Sync {
    /// A started sandbox as untrusted work gets one, limited to [`PROCESSES`] and [`MEMORY`] where that can be had.
    fn guarded(&self) -> BoxFuture<'_, Started>;

    /// A started sandbox with the protections switched off and without limits.
    fn open(&self) -> BoxFuture<'_, Started>;
}

/// A sandbox to try.
#[derive(Debug)]
pub struct Started {
    /// It.
    pub session: Arc<dyn SandboxSession>,
    /// What made it, and deletes it.
    pub client: Arc<dyn SandboxClient>,
    /// Where its workspace lies on this host, where that is so.
    pub workspace: Option<PathBuf>,
    /// Whether its number of processes is limited.
    pub limits_processes: bool,
    /// Whether its memory is limited.
    pub limits_memory: bool,
}

/// One way out that is tried.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// What it does; stable.
    pub name: &'static str,
    /// What is switched off for it to succeed.
    pub(crate) against: Against,
    /// The kernel keeps an ordinary user from it even without a sandbox.
    pub(crate) needs_root: bool,
    pub(crate) run: for<'a> fn(&'a Ground) -> BoxFuture<'a, Finding>,
}

/// What an attempt is made against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    /// The sandbox's isolation.
    Isolation,
    /// The care that the harness takes with what lies in the workspace.
    Care,
    /// The guard of the way out, when it allows all but this host.
    WayOut,
    /// The same when it has an allow-list.
    AllowList,
}

impl Attempt {
    /// Whether it is made through the way out: what stops it can be switched off whatever the backend.
    pub fn is_through_the_way_out(&self) -> bool {
        matches!(self.against, Against::WayOut | Against::AllowList)
    }
}

/// What was got, empty where nothing was; or why it could not be tried here.
pub(crate) type Finding = Result<Vec<String>, String>;
