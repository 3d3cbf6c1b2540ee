//! Storage that a sandbox sees as a directory: who serves it, outside of the sandbox, where its credentials are.

use std::os::fd::OwnedFd;

use mooring_manifest::{Entry, EntryKind, Manifest, Mount, PathError, RelPath};

use crate::{BoxFuture, SandboxError};

/// Whoever serves what manifests mount.
pub trait StorageHost: Send + Sync + std::fmt::Debug {
    /// Opens all storage that a manifest mounts, in the order of its entries. Each is reached once, so that what cannot
    /// be opened is told before anything starts.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] for a kind of storage that is not served, [`SandboxError::Invalid`] where it
    /// cannot be opened, with the entry, and never with a credential.
    fn open<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> BoxFuture<'a, Result<Vec<Box<dyn Storage>>, SandboxError>>;
}

/// Storage that is open, and not mounted yet.
pub trait Storage: Send + std::fmt::Debug {
    /// Where it is mounted, below the workspace's root.
    fn path(&self) -> &str;

    /// Whether nothing may be written there.
    fn read_only(&self) -> bool;

    /// Answers a FUSE device, which somebody has mounted, until it is unmounted. Returns at once. Whom files belong to is
    /// by their numbers inside.
    fn serve(self: Box<Self>, device: OwnedFd, uid: u32, gid: u32);
}

/// A mount in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedMount<'a> {
    /// The path of its entry, by which the manifest's other parts name it.
    pub entry: RelPath,
    /// Where it appears, below the workspace's root.
    pub path: RelPath,
    /// What is mounted.
    pub mount: &'a Mount,
}

/// The mounts of a manifest.
///
/// # Errors
/// [`SandboxError::Invalid`] for a mount outside of the workspace: nothing else of a sandbox is a manifest's.
pub fn mounts(manifest: &Manifest) -> Result<Vec<PlacedMount<'_>>, SandboxError> {
    let mut found = Vec::new();
    for located in manifest.located() {
        let (EntryKind::Mount(mount), Some(entry)) = (&located.entry.kind, located.path) else { continue };
        let path = match &mount.common.mount_path {
            None => entry.clone(),
            Some(elsewhere) => below(&manifest.root, elsewhere).map_err(|error| SandboxError::Invalid {
                reason: format!(
                    "entry '{entry}' is mounted at {elsewhere}, which is not below {} ({error}); leave out mount_path, or \
                     name a path there",
                    manifest.root
                ),
            })?,
        };
        found.push(PlacedMount { entry, path, mount });
    }
    Ok(found)
}

/// What a manifest mounts and what opens it, without all else; `None` where it mounts nothing. A session's state can keep
/// it: there is no secret in it.
///
/// # Errors
/// As [`mounts`].
pub fn mounts_alone(manifest: &Manifest) -> Result<Option<Manifest>, SandboxError> {
    let mut alone = Manifest { root: manifest.root.clone(), ..Manifest::default() };
    for placed in mounts(manifest)? {
        let entry = Entry::new(EntryKind::Mount(Box::new(placed.mount.clone())));
        alone.entries.insert(placed.entry.to_string(), entry);
    }
    alone.extension.mounts.clone_from(&manifest.extension.mounts);
    alone.extension.secrets.clone_from(&manifest.extension.secrets);
    Ok((!alone.entries.is_empty()).then_some(alone))
}

/// A path as it is below the root.
fn below(root: &str, path: &str) -> Result<RelPath, PathError> {
    let root = root.trim_end_matches('/');
    let inside = path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/'));
    RelPath::parse(inside.unwrap_or(path))
}
