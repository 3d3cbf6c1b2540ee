//! The compute plane's contract: what a sandbox is, whatever provides it.
//!
//! A [`SandboxClient`] makes [`SandboxSession`]s; a session runs commands and holds files. This crate knows no
//! provider and no model. Backends live in crates of their own and pass the same tests.
//!
//! The traits are object-safe on purpose: the harness holds `Arc<dyn SandboxSession>`, so that adding a backend
//! recompiles nothing above it. An optional ability is asked for before it is used ([`SandboxClient::support`]);
//! what a backend cannot enforce is refused when the run is planned, never dropped.

mod archive;
mod client;
mod credential;
mod error;
mod exec;
mod exposed;
mod file;
mod git;
mod lock;
mod materialise;
mod network;
mod none;
mod plan;
mod session;
mod source;
mod stage;
mod storage;
mod support;
mod verify;

pub use client::{CreateRequest, NetworkSupport, ResourceSupport, SandboxClient, SessionState, Support};
pub use credential::{Credential, Credentials};
pub use error::SandboxError;
pub use exec::{
    Captured, CommandLine, Cursor, ExecRequest, ExecResult, OUTPUT_LIMIT, Outcome, OutputChunk, OutputPiece,
    Process, Stdin, Stream, TtySize, collect,
};
pub use exposed::ExposedPort;
pub use file::{FileKind, FileStat, WriteOptions};
pub use lock::{Lock, Locked};
pub use materialise::{Materialised, SetUp, apply_to_dir, materialise, materialise_entries, set_up};
pub use network::{Access, ByteStream, Duplex, EGRESS_PORT, Egress, EgressHandler, Ports};
pub use none::NoSandbox;
pub use plan::Plan;
pub use session::{HostWorkspace, Isolation, SandboxSession};
pub use storage::{MountFailure, Serving, Storage, StorageMount, StorageSource, refuse_literal_secrets};
pub use support::check_support;

/// A boxed future, for the object-safe traits.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A reader of an archive, for [`SandboxSession::unpack`] and [`SandboxSession::restore`].
pub type ArchiveReader = std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>;

/// A writer of an archive, for [`SandboxSession::persist`].
pub type ArchiveWriter = std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>;
