//! Storage that a manifest mounts, served to sandboxes by the control plane: S3 and what speaks like it, Cloudflare
//! R2, Google Cloud Storage, Azure Blob.
//!
//! A backend makes the mount inside of a sandbox and hands the FUSE device out; here it is served. So commands read
//! files with their usual tools, while credentials, addresses and connections stay outside. A request that is not
//! answered fails within 15 seconds; what was listed counts for 10; what was read of an object is kept, 64 MiB for a
//! mount, and belongs to that state of the object alone.
//!
//! Writing, where a manifest asks for it, is as object storage has it: a file goes out as a whole when it is closed or
//! synchronised, and an error shows there. Renaming copies and deletes, for files alone; directories exist while they
//! hold something; there are no links, permissions or times of one's own; two who write the same file at once write
//! over each other.

mod blocks;
mod bucket;
mod fault;
mod filesystem;
mod inodes;
mod spool;
mod volume;
mod write;

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use fuser::{Config, SessionACL};
use mooring_egress::Operator;
use mooring_sandbox::{MountFailure, SandboxError, Serving, Storage, StorageMount};
use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;
use crate::fault::{Failures, Faults};
use crate::filesystem::Mounted;
use crate::volume::Volume;

/// Serves mounts, as the operator allows.
pub struct Mounts {
    operator: Arc<Operator>,
    failures: Failures,
}

impl Mounts {
    /// Serves mounts with the operator's secrets, where the operator lets them lead.
    pub fn new(operator: Operator) -> Self {
        // The program's own, where it has chosen one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { operator: Arc::new(operator), failures: Failures::default() }
    }
}

impl Storage for Mounts {
    fn check(&self, mount: &StorageMount) -> Result<(), SandboxError> {
        bucket::open(mount, &self.operator).map(drop)
    }

    fn failures(&self, session_id: &str) -> Vec<MountFailure> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.extract_if(.., |(session, _)| session == session_id).map(|(_, failure)| failure).collect()
    }

    fn serve(
        &self,
        session_id: &str,
        mount: &StorageMount,
        device: OwnedFd,
    ) -> Result<Box<dyn Serving>, SandboxError> {
        let bucket = bucket::open(mount, &self.operator)?;
        let failed = |error: std::io::Error| SandboxError::Invalid {
            reason: format!(
                "mount '{}': the kernel's file system device cannot be served: {error}",
                mount.path
            ),
        };
        let faults = Faults::new(
            mount.path.clone(),
            session_id.to_owned(),
            bucket.secrets.clone(),
            Arc::clone(&self.failures),
        );
        let volume = Arc::new(Volume::new(bucket, faults));
        let ended = CancellationToken::new();
        let runtime = tokio::runtime::Handle::current();
        let mounted = Mounted::new(volume, runtime, ended.clone());
        // The device ends with the mount, and with it this session's thread.
        let session =
            fuser::Session::from_fd(mounted, device, SessionACL::All, Config::default()).map_err(failed)?;
        drop(session.spawn().map_err(failed)?);
        Ok(Box::new(Served { ended }))
    }
}

impl std::fmt::Debug for Mounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounts").field("operator", &self.operator).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Served {
    ended: CancellationToken,
}

impl Serving for Served {}

impl Drop for Served {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
