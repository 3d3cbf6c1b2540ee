//! The local sandbox for Linux: namespaces, seccomp, cgroups.
//!
//! A session is one supervisor (see `mooring_supervisor`) and one workspace directory. This crate is the outside of
//! it: where workspaces lie, how a supervisor is started and spoken to, how sessions are found again. What happens
//! inside, and what keeps it inside, is the supervisor's.
//!
//! ```no_run
//! use mooring_manifest::Manifest;
//! use mooring_sandbox::{CreateRequest, ExecRequest, SandboxClient};
//! use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
//!
//! # async fn example() -> Result<(), mooring_sandbox::SandboxError> {
//! let client = LocalSandboxClient::new(LocalOptions::new("/var/lib/moor"));
//! let session = client
//!     .create(CreateRequest { session_id: "demo".into(), manifest: Manifest::default(), workspace: None })
//!     .await?;
//! session.start().await?;
//! let result = session.exec(ExecRequest::shell("echo hello from $PWD")).await?;
//! assert_eq!(result.stdout.text(), "hello from /workspace\n");
//! # Ok(())
//! # }
//! ```

mod client;
mod grants;
mod launch;
mod layers;
mod probe;
mod store;

pub use client::{LocalOptions, LocalSandboxClient};
pub use grants::HostGrant;
pub use mooring_supervisor::{Check, Level as IsolationLevel, Limits};
pub use probe::probe;
pub use store::{Pruned, private_workspace, prune_sessions};
