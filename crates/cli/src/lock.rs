//! Locks beside manifests: `manifest.lock` beside `manifest.yaml`. Whoever stages a manifest that has one gets what was
//! locked, or is refused.

use std::path::{Path, PathBuf};

use mooring_manifest::Manifest;
use mooring_sandbox::{Credentials, Lock, NetworkSupport, Plan, ResourceSupport, SandboxError, Support};

use crate::agent_file::read_manifest;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host;

/// Reads and checks a manifest, with its sources as its lock says, where there is one.
pub(crate) fn read_locked(path: &Path) -> Result<(Manifest, PathBuf), CommandError> {
    let (manifest, base) = read_manifest(path)?;
    let file = lock_file(path);
    let text = match fs_err::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((manifest, base)),
        Err(error) => return Err(CommandError::input(error.to_string())),
    };
    let refused = |error: SandboxError| {
        CommandError::input(format!(
            "{}: {error}. Lock it anew with `moor manifest lock {}`, or remove the lock",
            file.display(),
            path.display()
        ))
    };
    let pinned = Lock::from_json(&text).and_then(|lock| Ok((lock.pin(&manifest)?, lock)));
    let (manifest, lock) = pinned.map_err(refused)?;
    lock.verify(&plan(&manifest, &base)?).map_err(refused)?;
    Ok((manifest, base))
}

/// The lock of a manifest's file.
pub(crate) fn lock_file(manifest: &Path) -> PathBuf {
    manifest.with_extension("lock")
}

/// What a plain directory keeps: it has neither users nor mounts, and nothing runs in it, so that nothing can exceed a
/// limit.
pub(crate) fn directory() -> Support {
    Support {
        resources: ResourceSupport::ALL,
        network: NetworkSupport::ALL,
        secrets: true,
        ports: true,
        image: true,
        ..Support::default()
    }
}

/// A plan to read a manifest's sources by, whatever it is staged to.
pub(crate) fn plan(manifest: &Manifest, base: &Path) -> Result<Plan, CommandError> {
    let anything = Support { mounts: true, users: true, path_grants: true, setup: true, ..directory() };
    let credentials = credentials(manifest)?;
    Ok(Plan::with_credentials(manifest, base, &anything, "any", &credentials)?)
}

/// What this machine's user has for a manifest's private repositories.
pub(crate) fn credentials(manifest: &Manifest) -> Result<Credentials, CommandError> {
    if manifest.extension.git.values().all(|options| options.credentials.is_none()) {
        return Ok(Credentials::new());
    }
    Ok(host::operator(&Home::find()?.config()?)?.credentials(manifest)?)
}
