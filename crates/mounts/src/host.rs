//! From a manifest's mounts to open storage.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mooring_egress::Operator;
use mooring_manifest::Manifest;
use mooring_sandbox::{BoxFuture, PlacedMount, SandboxError, Storage, StorageHost, mounts};
use tokio::runtime::Handle;

use crate::bucket::Bucket;
use crate::connect::connect;
use crate::serve::serve;

/// Serves object storage. The secrets are the operator's, and so is which names may lead into its own network.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    operator: Arc<Operator>,
}

impl ObjectStorage {
    /// With what the operator says.
    pub fn new(operator: Operator) -> Self {
        Self { operator: Arc::new(operator) }
    }

    async fn open_one(
        &self,
        manifest: &Manifest,
        placed: PlacedMount<'_>,
    ) -> Result<Box<dyn Storage>, SandboxError> {
        let PlacedMount { entry, path, mount } = placed;
        let kind = mount.provider.type_name();
        let unsupported = |reason: &str| SandboxError::Unsupported {
            operation: format!("entry '{entry}' ({kind})"),
            backend: "mounts".into(),
            reason: reason.into(),
        };
        if !mount.common.read_only {
            return Err(unsupported(
                "mounts are only read; write results to the workspace, and leave read_only true",
            ));
        }
        let options = manifest.extension.mounts.get(entry.as_str()).cloned().unwrap_or_default();
        let mut credentials = BTreeMap::new();
        for (field, name) in options.credentials {
            let Some(value) = (self.operator.secret)(&name) else {
                let reason = format!(
                    "entry '{entry}' is opened with the secret '{name}', which is not configured on this machine; \
                     configure it"
                );
                return Err(SandboxError::Invalid { reason });
            };
            credentials.insert(field, value);
        }
        let failed = |why: String| SandboxError::Invalid {
            reason: format!("entry '{entry}' ({kind}) cannot be mounted: {why}"),
        };
        let connected = connect(&mount.provider, &credentials, &self.operator).await.map_err(failed)?;
        let bucket = Bucket::new(connected);
        bucket.probe().await.map_err(|error| failed(error.told()))?;
        Ok(Box::new(Open { path: path.to_string(), bucket, runtime: Handle::current() }))
    }
}

impl StorageHost for ObjectStorage {
    fn open<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> BoxFuture<'a, Result<Vec<Box<dyn Storage>>, SandboxError>> {
        Box::pin(async move {
            let mut open = Vec::new();
            for placed in mounts(manifest)? {
                open.push(self.open_one(manifest, placed).await?);
            }
            Ok(open)
        })
    }
}

/// Storage that was reached.
#[derive(Debug)]
struct Open {
    path: String,
    bucket: Bucket,
    runtime: Handle,
}

impl Storage for Open {
    fn path(&self) -> &str {
        &self.path
    }

    fn read_only(&self) -> bool {
        true
    }

    fn serve(self: Box<Self>, device: OwnedFd, uid: u32, gid: u32) {
        serve(self.bucket, self.runtime, device, uid, gid);
    }
}
