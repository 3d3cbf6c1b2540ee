//! Storage that a manifest mounts, and who serves it.
//!
//! A backend makes the mount inside of a sandbox and hands the file-system device out; the control plane serves it.
//! So a sandbox holds files of a bucket, and neither its credentials nor a way to it. What a session keeps of a mount
//! are the names of secrets, never their values.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;

use mooring_manifest::{AzureBlob, EntryKind, Gcs, Manifest, Mount, Pattern, Provider, R2, S3};
use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// What is mounted, as a session keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageMount {
    /// Where, relative to the workspace's root.
    pub path: String,
    /// Whether nothing may be written there.
    pub read_only: bool,
    /// What is mounted.
    pub source: StorageSource,
    /// Names of secrets, by the field of the source that each fills.
    pub credentials: BTreeMap<String, String>,
}

/// What can be mounted. The fields that are secrets are empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageSource {
    /// An S3 bucket.
    S3(S3),
    /// A Google Cloud Storage bucket.
    Gcs(Gcs),
    /// A Cloudflare R2 bucket.
    R2(R2),
    /// An Azure Blob container.
    AzureBlob(AzureBlob),
}

/// Something that a mount could not do. The command that looked has only a number for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MountFailure {
    /// Where the mount is, relative to the workspace.
    pub mount: String,
    /// What was tried.
    pub operation: String,
    /// The path below the mount; empty for the mount itself.
    pub path: String,
    /// Why it failed: what the server said, without any secret.
    pub reason: String,
}

impl fmt::Display for MountFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mount {}: cannot {} '{}': {}", self.mount, self.operation, self.path, self.reason)
    }
}

/// Serves storage to sandboxes.
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Serves the mount on the device that was opened for it, until what is returned is dropped: then everything that
    /// waits for it fails. Nothing is asked of the storage before a command looks. Needs a runtime around it.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a source that cannot be used: a secret that is not configured, an address that
    /// may not be reached.
    fn serve(
        &self,
        session_id: &str,
        mount: &StorageMount,
        device: OwnedFd,
    ) -> Result<Box<dyn Serving>, SandboxError>;

    /// The same check without a device.
    ///
    /// # Errors
    /// As [`Storage::serve`].
    fn check(&self, mount: &StorageMount) -> Result<(), SandboxError>;

    /// What failed in a session's mounts since this was asked last, each thing once.
    fn failures(&self, session_id: &str) -> Vec<MountFailure>;
}

/// A mount that is served, until this is dropped.
pub trait Serving: Send + Sync + std::fmt::Debug {}

/// What of a mount cannot be had, and why.
pub(crate) type Refusal = (String, String);

impl StorageMount {
    /// The mounts of a manifest.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] for one that nobody can serve from outside, or that has secrets in the manifest
    /// itself.
    pub fn all(manifest: &Manifest, backend: &str) -> Result<Vec<Self>, SandboxError> {
        Self::find(manifest).map_err(|(operation, reason)| SandboxError::Unsupported {
            operation,
            backend: backend.to_owned(),
            reason,
        })
    }

    pub(crate) fn find(manifest: &Manifest) -> Result<Vec<Self>, Refusal> {
        let mut found: Vec<Self> = Vec::new();
        for located in manifest.located() {
            let EntryKind::Mount(mount) = &located.entry.kind else { continue };
            let path = located.path.as_ref().map_or(located.key, |path| path.as_str());
            let refuse = |reason: String| (describe(path, mount), reason);
            let target = manifest.mount_target(&located, mount).unwrap_or_default();
            let root = format!("{}/", manifest.root.trim_end_matches('/'));
            let Some(place) = target.strip_prefix(&root).filter(|place| !place.is_empty()) else {
                return Err(refuse(format!(
                    "it would be at {target}, outside of the workspace; remove mount_path, or name a path below {root}"
                )));
            };
            let nested = |other: &&Self| {
                let below = |upper: &str, lower: &str| {
                    lower.strip_prefix(upper).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                below(&other.path, place) || below(place, &other.path)
            };
            if let Some(other) = found.iter().find(nested) {
                return Err(refuse(format!(
                    "it is in the place of the mount '{}'; move one of them",
                    other.path
                )));
            }
            let options = manifest.extension.mounts.get(path);
            let credentials: BTreeMap<String, String> =
                options.map(|options| options.credentials.clone().into_iter().collect()).unwrap_or_default();
            found.push(Self {
                path: place.to_owned(),
                read_only: mount.common.read_only,
                source: source(path, &with_options(mount)).map_err(refuse)?,
                credentials,
            });
        }
        Ok(found)
    }
}

/// Refuses a manifest that holds a secret of a mount itself: what is in a manifest is recorded, too.
///
/// # Errors
/// [`SandboxError::Invalid`], which names the entry and the field.
pub fn refuse_literal_secrets(manifest: &Manifest) -> Result<(), SandboxError> {
    for located in manifest.located() {
        let EntryKind::Mount(mount) = &located.entry.kind else { continue };
        let path = located.path.as_ref().map_or(located.key, |path| path.as_str());
        if let Some(field) = mount.provider.literal_secret() {
            let reason = format!("{}: {}", describe(path, mount), literal(path, field));
            return Err(SandboxError::Invalid { reason });
        }
    }
    Ok(())
}

fn literal(path: &str, field: &str) -> String {
    format!(
        "'{field}' is a secret in the manifest itself, and would be kept in the journal; configure it as a secret of \
         this machine, and name it in x-mooring.mounts.{path}.credentials"
    )
}

/// How a mount is called in an error.
pub(crate) fn describe(path: &str, mount: &Mount) -> String {
    let strategy = &mount.common.mount_strategy;
    let helper = strategy.pattern().map(|pattern| format!(" with {}", pattern.type_name()));
    format!(
        "entry '{path}' ({}, {}{})",
        mount.provider.type_name(),
        strategy.type_name(),
        helper.unwrap_or_default()
    )
}

/// What is mounted, with what the helper's own options would say.
fn with_options(mount: &Mount) -> Provider {
    let mut provider = mount.provider.clone();
    let Some(Pattern::Mountpoint(helper)) = mount.common.mount_strategy.pattern() else { return provider };
    let (prefix, region, endpoint_url) = match &mut provider {
        Provider::S3(s3) => (&mut s3.prefix, &mut s3.region, &mut s3.endpoint_url),
        Provider::Gcs(gcs) => (&mut gcs.prefix, &mut gcs.region, &mut gcs.endpoint_url),
        _ => return provider,
    };
    let options = helper.options.clone();
    for (field, option) in
        [(prefix, options.prefix), (region, options.region), (endpoint_url, options.endpoint_url)]
    {
        if option.is_some() {
            *field = option;
        }
    }
    provider
}

fn source(path: &str, provider: &Provider) -> Result<StorageSource, String> {
    let nobody = |what: &str| Err(format!("{what}; copy the data with local_dir instead"));
    // What is in a manifest is in the journal, too.
    if let Some(field) = provider.literal_secret() {
        return Err(literal(path, field));
    }
    match provider {
        Provider::S3(s3) => Ok(StorageSource::S3(s3.clone())),
        Provider::R2(r2) => Ok(StorageSource::R2(r2.clone())),
        Provider::Gcs(gcs) if gcs.service_account_file.is_some() => Err(format!(
            "'service_account_file' names a file that only the SDK's own helper reads; configure its content as a secret, \
             and name it in x-mooring.mounts.{path}.credentials as service_account_credentials"
        )),
        Provider::Gcs(gcs) => Ok(StorageSource::Gcs(gcs.clone())),
        Provider::AzureBlob(azure) if azure.identity_client_id.is_some() => Err(
            "'identity_client_id' is an identity of the machine that mounts, and this machine's own is never used; \
             give an account key by reference"
                .to_owned(),
        ),
        Provider::AzureBlob(azure) => Ok(StorageSource::AzureBlob(azure.clone())),
        Provider::Box(_) => nobody("Box has no interface that can be served from outside of the sandbox"),
        Provider::S3Files(_) => nobody("S3 Files is an NFS server inside of AWS, which cannot be served from here"),
        Provider::BlaxelDrive(_) => nobody("a Blaxel drive exists in Blaxel's own sandboxes alone"),
    }
}
