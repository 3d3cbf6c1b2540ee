//! What of a manifest a backend cannot enforce. It is refused by name when a run is planned: a limit that is not kept
//! is worse than none, because somebody relies on it.

use mooring_manifest::extension::{Network, Resources};
use mooring_manifest::{EntryKind, Extension, Manifest};

use crate::storage::{self, StorageMount};
use crate::{SandboxError, Support};

/// Refuses the first thing of a manifest that the backend lacks. [`crate::Plan::new`] does the same; this is for a workspace
/// that is there already, whose sources are not looked at.
///
/// # Errors
/// [`SandboxError::Unsupported`].
pub fn check_support(manifest: &Manifest, support: &Support, backend: &str) -> Result<(), SandboxError> {
    let owned = |(operation, reason): (String, &str)| (operation, reason.to_owned());
    let found = accounts(manifest, support)
        .map(owned)
        .or_else(|| mounts(manifest, support))
        .or_else(|| resources(&manifest.extension.resources, support).map(owned))
        .or_else(|| network(&manifest.extension, support).map(owned))
        .or_else(|| others(&manifest.extension, support).map(owned));
    match found {
        None => Ok(()),
        Some((operation, reason)) => {
            Err(SandboxError::Unsupported { operation, backend: backend.to_owned(), reason })
        }
    }
}

/// What is refused, and why.
type Lack = Option<(String, &'static str)>;

fn accounts(manifest: &Manifest, support: &Support) -> Lack {
    let reason = "this backend runs everything as one user; remove them from the manifest";
    if !support.users {
        if let Some(user) = manifest.users.first() {
            return Some((format!("user '{}'", user.name), reason));
        }
        if let Some(group) = manifest.groups.first() {
            return Some((format!("group '{}'", group.name), reason));
        }
    }
    let grant = manifest.extra_path_grants.first().filter(|_| !support.path_grants)?;
    let reason = "this backend shows commands no other path of the host; copy what is needed with local_dir";
    Some((format!("path grant '{}'", grant.path), reason))
}

fn mounts(manifest: &Manifest, support: &Support) -> Option<(String, String)> {
    let located = manifest.located();
    let (path, mount) = located.iter().find_map(|located| match &located.entry.kind {
        EntryKind::Mount(mount) => {
            Some((located.path.as_ref().map_or(located.key, |path| path.as_str()), mount))
        }
        _ => None,
    })?;
    if !support.mounts {
        let reason = "nobody serves storage here: it is mounted in the local sandbox of a run, with isolation; or copy the data with \
                      local_dir";
        return Some((storage::describe(path, mount), reason.to_owned()));
    }
    StorageMount::find(manifest).err()
}

fn resources(asked: &Resources, support: &Support) -> Lack {
    let keeps = support.resources;
    let lacking = [
        ("cpu", asked.cpu.map(|cpu| cpu.to_string()), keeps.cpu),
        ("memory", asked.memory.map(|size| size.to_string()), keeps.memory),
        ("pids", asked.pids.map(|pids| pids.to_string()), keeps.pids),
        ("disk", asked.disk.map(|size| size.to_string()), keeps.disk),
        ("wall_clock", asked.wall_clock.map(|time| time.to_string()), keeps.wall_clock),
    ];
    let mut lacking = lacking.into_iter().filter(|(_, _, kept)| !kept);
    let reason = "this backend cannot keep the limit; remove it, or use a backend that can";
    lacking.find_map(|(name, limit, _)| Some((format!("resources.{name} ({})", limit?), reason)))
}

fn network(extension: &Extension, support: &Support) -> Lack {
    let (kind, kept, reason) = match extension.network.as_ref()? {
        Network::Deny => {
            ("deny", support.network.deny, "commands could reach the network all the same; use isolation")
        }
        Network::Allow(_) => (
            "allow",
            support.network.allow,
            "this backend cannot let some requests through and stop all others; use 'deny', or another backend",
        ),
        Network::Unrestricted => (
            "unrestricted",
            support.network.unrestricted,
            "this backend has no network; remove it, or use another backend",
        ),
    };
    (!kept).then(|| (format!("network {kind}"), reason))
}

fn others(extension: &Extension, support: &Support) -> Lack {
    // Those for repositories alone are used before there is a sandbox.
    let mut brokered = extension.secrets.iter().filter(|(_, used)| !used.inject.is_empty());
    if let Some((name, _)) = brokered.next().filter(|_| !support.secrets) {
        let reason =
            "this backend cannot keep a secret outside of the sandbox and put it into requests; remove it";
        return Some((format!("secret '{name}'"), reason));
    }
    if let Some(port) = extension.ports.first().filter(|_| !support.ports) {
        return Some((format!("port {port}"), "this backend has no way in for connections; remove it"));
    }
    if extension.image.is_some() && !support.image {
        let reason = "this backend starts no images; remove it, or use a backend of containers";
        return Some(("image".to_owned(), reason));
    }
    let command = extension.setup.first().filter(|_| !support.setup)?;
    Some((
        format!("setup command '{}'", command.run),
        "nothing runs commands here; remove it, or use a sandbox",
    ))
}
