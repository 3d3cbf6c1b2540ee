//! Path grants: directories of this host that a manifest asks for and the operator allows.
//!
//! A manifest may come from anywhere, so it can only choose among what the operator names: such a directory, or one below
//! it. This is asked at every start, not once: what a session's state says may come from anywhere as well.

use std::path::{Path, PathBuf};

use mooring_manifest::PathGrant;
use mooring_sandbox::SandboxError;
use mooring_supervisor::{Grant, root_allowed};

/// A directory of this host that sandboxes may see, with all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGrant {
    /// The directory.
    pub path: PathBuf,
    /// Whether they may change what is there.
    pub writable: bool,
}

/// What a manifest asks for, as far as `allowed` says. `root` is where the workspace appears, `state_dir` what nobody is
/// ever shown.
pub(crate) fn resolve(
    asked: &[PathGrant],
    allowed: &[HostGrant],
    root: &str,
    state_dir: &Path,
) -> Result<Vec<Grant>, SandboxError> {
    let mut grants: Vec<Grant> = Vec::new();
    for one in asked {
        let refuse = |reason: String| SandboxError::Unsupported {
            operation: format!("path grant '{}'", one.path),
            backend: "local".into(),
            reason,
        };
        root_allowed(&one.path).map_err(|_| refuse("this is the system's place; use another path".into()))?;
        let near = |other: &&str| overlap(Path::new(other), Path::new(&one.path));
        let other =
            grants.iter().map(|grant| grant.path.as_str()).chain([root]).find(near).map(str::to_owned);
        if let Some(other) = other {
            return Err(refuse(format!("it lies in {other}, or around it; use a path beside it")));
        }
        let source = Path::new(one.host_path.as_deref().unwrap_or(&one.path));
        let grant = Grant {
            source: real(source).map_err(&refuse)?,
            path: one.path.clone(),
            writable: !one.read_only,
        };
        check(&grant, allowed, state_dir).map_err(refuse)?;
        grants.push(grant);
    }
    Ok(grants)
}

/// Whether the operator allows what was resolved; if not, why.
pub(crate) fn check(grant: &Grant, allowed: &[HostGrant], state_dir: &Path) -> Result<(), String> {
    let source = &grant.source;
    if real(state_dir).is_ok_and(|state_dir| overlap(source, &state_dir)) {
        return Err(format!("{} holds the state of sandboxes, or lies in it", source.display()));
    }
    let mut around = allowed.iter().filter(|one| real(&one.path).is_ok_and(|path| source.starts_with(path)));
    match (around.clone().next(), around.any(|one| one.writable || !grant.writable)) {
        (None, _) => Err(format!(
            "{} is not among the directories that sandboxes may see; allow it in the configuration ([grants] read or \
             write), or copy what is needed with local_dir",
            source.display()
        )),
        (Some(_), false) => Err(format!(
            "{} may be read and not written; ask for it with read_only, or allow it in the configuration ([grants] write)",
            source.display()
        )),
        _ => Ok(()),
    }
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// A directory's path without links.
fn real(path: &Path) -> Result<PathBuf, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let real = std::fs::canonicalize(path).map_err(|error| failed(&error))?;
    if real.is_dir() { Ok(real) } else { Err(failed(&"it is no directory")) }
}
