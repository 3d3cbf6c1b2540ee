//! Set-up commands whose result is kept: a sandbox that begins with the same files, commands and system gets what they
//! made before, as a snapshot, and runs none of them.
//!
//! Like the layers of an image: a command that would do something else today (a download, the date) is not run again
//! until what it stands for changes, or the snapshot is removed.

use mooring_manifest::Manifest;
use mooring_sandbox::{
    ExecRequest, Materialised, Outcome, Plan, SandboxError, SandboxSession, SetUp, materialise_entries,
    set_up,
};

use crate::{NewSnapshot, Snapshot, SnapshotError, SnapshotStore};

/// What all these snapshots' ids begin with.
const PREFIX: &str = "setup-";

/// Tells one system from another: where programs lie, an installation leaves its time.
const SYSTEM: &str = "stat -c '%n %Y %Z' /usr/bin /usr/lib /usr/sbin /usr/local/bin /usr/local/lib 2>/dev/null; \
                      cat /etc/os-release; uname -m";

impl SnapshotStore {
    /// Stages a plan of `manifest` into a running session as [`mooring_sandbox::materialise`] does, but takes what the
    /// set-up commands made from an earlier session, where there is such a result, and keeps it for later ones.
    ///
    /// Nothing is kept of a manifest that gives commands stand-ins for secrets, nor of a workspace that was not empty.
    ///
    /// # Errors
    /// As [`mooring_sandbox::materialise`]; [`SandboxError::Invalid`] where the store is damaged or out of reach. A
    /// set-up that fails is not kept.
    pub async fn materialise(
        &self,
        plan: &Plan,
        manifest: &Manifest,
        session: &dyn SandboxSession,
        now_ms: i64,
    ) -> Result<Materialised, SandboxError> {
        // Where something is already, what comes out is not the manifest's alone.
        let empty = manifest.extension.setup.is_empty() || session.list(".").await?.is_empty();
        let mut staged = materialise_entries(plan, session).await?;
        if manifest.extension.setup.is_empty() {
            return Ok(staged);
        }
        let with_secrets = manifest.extension.secrets.values().any(|used| !used.inject.is_empty());
        let unkept = match (empty, with_secrets) {
            (false, _) => Some("the workspace was not empty"),
            (_, true) => Some("its commands may be given stand-ins for secrets"),
            _ => None,
        };
        if let Some(reason) = unkept {
            set_up(plan, session).await?;
            staged.setup = Some(SetUp::Ran { reason: reason.to_owned() });
            return Ok(staged);
        }
        let id = format!("{PREFIX}{}", key(manifest, &staged, session).await?);
        let made = match self.renew(&id, now_ms) {
            Ok(found) => {
                self.restore_root(found.root(), session).await.map_err(into_sandbox)?;
                SetUp::Cached
            }
            Err(SnapshotError::Unknown { .. }) => {
                set_up(plan, session).await?;
                let new = NewSnapshot {
                    id,
                    // Whoever made the same meanwhile.
                    replaces: true,
                    manifest_digest: manifest.digest(),
                    taken_ms: now_ms,
                };
                match self.take(session, new).await {
                    Ok(_) => SetUp::Kept,
                    // It was made all the same.
                    Err(error) => SetUp::Ran { reason: error.to_string() },
                }
            }
            Err(error) => return Err(into_sandbox(error)),
        };
        staged.setup = Some(made);
        Ok(staged)
    }

    /// A snapshot by its id, which counts as taken now.
    fn renew(&self, id: &str, now_ms: i64) -> Result<Snapshot, SnapshotError> {
        let found = self.get(id)?;
        self.change(|conn| {
            let at = rusqlite::params![id, now_ms.max(found.taken_ms)];
            conn.execute("UPDATE snapshot SET taken_ms = ?2 WHERE id = ?1", at)?;
            Ok(())
        })?;
        Ok(found)
    }
}

/// What a set-up's result depends on.
async fn key(
    manifest: &Manifest,
    staged: &Materialised,
    session: &dyn SandboxSession,
) -> Result<String, SandboxError> {
    let mut request = ExecRequest::shell(SYSTEM);
    request.timeout = Some(std::time::Duration::from_mins(1));
    let system = session.exec(request).await?;
    if !matches!(system.outcome, Outcome::Exited { .. }) {
        let reason = format!("a command that looks at its system ended with {:?}", system.outcome);
        return Err(SandboxError::Setup { command: SYSTEM.to_owned(), reason });
    }
    let isolation = session.isolation().map(|isolation| isolation.level).unwrap_or_default();
    let backend = session.state().backend;
    let (form, root) = ("1".to_owned(), session.root().to_owned());
    let mut parts =
        vec![form, backend, isolation, root, manifest.digest(), staged.digest.clone(), system.stdout.text()];
    for (path, commit) in &staged.commits {
        parts.extend([path.clone(), commit.clone()]);
    }
    let mut hash = blake3::Hasher::new();
    for part in &parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    Ok(hash.finalize().to_hex()[..32].to_owned())
}

fn into_sandbox(error: SnapshotError) -> SandboxError {
    match error {
        SnapshotError::Sandbox(error) => error,
        error => SandboxError::Invalid { reason: format!("the cache of set-ups: {error}") },
    }
}
