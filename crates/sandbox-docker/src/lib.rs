//! Sandboxes in containers of a Docker engine on this machine.
//!
//! A container is used for what it isolates, and for its image; everything else is the supervisor's, as in every
//! other sandbox (see `mooring_supervisor`): it is mounted into the container, read-only, with the loader and the
//! libraries that it needs, and is the container's first process. It connects to a socket in a directory that is
//! mounted beside it, so commands, terminals, deadlines, output and files do not go through the engine, and work the
//! same as locally. That needs an engine which sees this machine's directories; one on another machine is refused.
//!
//! The workspace is a volume (or the caller's directory) and outlives its container, which exists only while the
//! session runs: it ends when its socket is closed, as it is when the harness dies, and the engine then removes it.
//! What is left of a crash in between is found by its labels and removed (see [`DockerSandboxClient::reap`]), and so are
//! workspaces that nobody names any more (see [`DockerSandboxClient::prune`]).

mod build;
mod client;
mod container;
mod engine;
mod image;
mod owner;
mod prune;
mod reap;

pub use client::{DockerOptions, DockerSandboxClient};
pub use mooring_supervisor::Limits;
pub use prune::Pruned;
pub use reap::Reaped;
