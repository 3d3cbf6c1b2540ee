//! What was staged is looked at again, through the sandbox: each entry of the manifest is of its kind, has its mode and
//! its group, and all belong to one user. A file system that keeps no modes, or a backend that unpacks in its own way,
//! is found out here and not by the agent.

use crate::plan::{Content, Plan, Step};
use crate::{FileKind, FileStat, SandboxError, SandboxSession};

/// Compares a session's workspace with what was staged into it.
pub(crate) async fn verify(plan: &Plan, session: &dyn SandboxSession) -> Result<(), SandboxError> {
    // Nobody looks into a directory that its owner may not enter.
    let closed: Vec<_> =
        plan.steps.iter().filter(|step| step.mode & 0o100 == 0).map(|step| &step.path).collect();
    let hidden = |step: &Step| closed.iter().any(|path| step.path != **path && step.path.starts_with(path));
    let (steps, paths): (Vec<_>, Vec<_>) = plan
        .steps
        .iter()
        .filter(|step| !hidden(step))
        .map(|step| (step, step.path.to_string_lossy().into_owned()))
        .unzip();
    let found = session.stat_all(&paths).await?;
    let owner = found.first().map(|stat| stat.uid);
    for ((step, entry), stat) in steps.into_iter().zip(paths).zip(&found) {
        if let Some(reason) = mismatch(step, stat, owner) {
            return Err(SandboxError::Stage { entry, reason });
        }
    }
    Ok(())
}

fn mismatch(step: &Step, stat: &FileStat, owner: Option<u32>) -> Option<String> {
    let kind = match step.content {
        Content::Text(_) | Content::File(_) => FileKind::File,
        Content::Directory | Content::Tree(_) | Content::Git(_) => FileKind::Directory,
    };
    if stat.kind != kind {
        return Some(format!("it was staged and is no {kind:?} there, but {:?}", stat.kind));
    }
    let (wanted, mode) = (step.mode & 0o777, stat.mode & 0o777);
    if mode != wanted {
        return Some(format!(
            "it was staged with mode {wanted:o} and has {mode:o} there; does the workspace's file system keep modes?"
        ));
    }
    if let Some(owner) = owner.filter(|owner| *owner != stat.uid) {
        return Some(format!("it belongs to user {} there, and other entries to user {owner}", stat.uid));
    }
    // Without a group it is the owner's own; a number without a name is nobody's whom the sandbox knows.
    let (wanted, known) =
        if step.group.is_empty() { (&stat.user, !stat.group.is_empty()) } else { (&step.group, true) };
    (known && stat.group != *wanted).then(|| {
        format!(
            "it was staged for the group '{wanted}' and belongs to '{}' ({}) there; was the sandbox made from this \
             manifest, and does the workspace's file system keep groups?",
            stat.group, stat.gid
        )
    })
}
