//! Where sessions lie on disk: `STATE/sandboxes/SESSION/workspace`.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mooring_sandbox::SandboxError;

use crate::layers;

pub(crate) fn folder(state_dir: &Path, id: &str) -> PathBuf {
    state_dir.join("sandboxes").join(id)
}

/// Where a session's private workspace lies on this host. Without isolation, this is where its commands see it too.
pub fn private_workspace(state_dir: &Path, session_id: &str) -> PathBuf {
    folder(state_dir, session_id).join("workspace")
}

/// Makes a session's directory, or finds it. Nobody else on the host can enter it.
pub(crate) fn make_folder(folder: &Path) -> Result<(), SandboxError> {
    let make = || -> std::io::Result<()> {
        let mut own = std::fs::DirBuilder::new();
        own.mode(0o700).recursive(true).create(folder.parent().unwrap_or(folder))?;
        match own.recursive(false).create(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    make().map_err(|error| file("create", folder, &error))
}

/// Makes a private workspace, or finds it.
pub(crate) fn make_private(state_dir: &Path, id: &str) -> Result<PathBuf, SandboxError> {
    make_folder(&folder(state_dir, id))?;
    let workspace = private_workspace(state_dir, id);
    let make = || -> std::io::Result<PathBuf> {
        fs::create_dir_all(&workspace)?;
        fs::canonicalize(&workspace)
    };
    make().map_err(|error| file("create", &workspace, &error))
}

/// Makes sure that a caller's directory is there.
pub(crate) fn make_named(path: &Path, state_dir: &Path) -> Result<PathBuf, SandboxError> {
    let make = || {
        fs::create_dir_all(path)?;
        fs::canonicalize(path)
    };
    let found = make().map_err(|error| file("create", path, &error))?;
    if found == Path::new("/") {
        return Err(SandboxError::Invalid { reason: "the whole host cannot be a workspace".into() });
    }
    // There lie the journal, and what other sandboxes are reached by.
    if std::fs::canonicalize(state_dir).is_ok_and(|state| state.starts_with(&found)) {
        let reason = format!(
            "the workspace {} holds the state directory {}; use a workspace beside it",
            found.display(),
            state_dir.display()
        );
        return Err(SandboxError::Invalid { reason });
    }
    Ok(found)
}

/// Removes a session's directory. One that is not there is no error.
pub(crate) fn remove(folder: &Path) -> Result<(), SandboxError> {
    remove_tree(folder).map_err(|error| file("remove", folder, &error))
}

/// A session's id, and why it could not be removed.
pub type Pruned = (String, Result<(), SandboxError>);

/// Removes the directories of sessions that `unused` says nobody needs, but for those that run. Gives their ids, and why
/// one could not be removed. With `look_only` nothing is removed. Blocks.
///
/// # Errors
/// [`SandboxError::File`].
pub fn prune_sessions(
    state_dir: &Path,
    look_only: bool,
    unused: &dyn Fn(&str, &Path) -> bool,
) -> Result<Vec<Pruned>, SandboxError> {
    let home = state_dir.join("sandboxes");
    let entries = match fs::read_dir(&home) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file("list", &home, &error)),
    };
    let mut removed = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| file("list", &home, &error))?.path();
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.is_dir() || !unused(&id, &path) {
            continue;
        }
        // Held until it is gone.
        let Some(_idle) = layers::idle(&path)? else { continue };
        let gone = if look_only { Ok(()) } else { remove(&path) };
        removed.push((id, gone));
    }
    if !look_only {
        layers::collect(state_dir)?;
    }
    Ok(removed)
}

pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    for _ in 0..2 {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // A directory that its owner may not enter: it can be opened up, it is ours.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => open_up(path)?,
            other => return other,
        }
    }
    fs::remove_dir_all(path)
}

fn open_up(path: &Path) -> std::io::Result<()> {
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

pub(crate) fn file(operation: &'static str, path: &Path, error: &std::io::Error) -> SandboxError {
    SandboxError::File { operation, path: path.display().to_string(), reason: error.to_string() }
}
