//! The lock of a manifest: what its sources were, so that a workspace is the same tomorrow.
//!
//! It says the manifest's digest, the digest of what every entry put into the workspace, and of every repository the
//! commit. With it a branch means that commit, and a file that changed is refused by name.

use std::collections::BTreeMap;

use mooring_manifest::{EntryKind, Manifest, RelPath};
use serde::{Deserialize, Serialize};

use crate::materialise::{blocking, clone_all};
use crate::stage::survey;
use crate::{Plan, SandboxError};

/// What a manifest's sources were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The version of this form: 1.
    pub version: u64,
    /// The manifest's digest.
    pub manifest: String,
    /// Its entries, by their paths below the root.
    pub entries: BTreeMap<String, Locked>,
}

/// What one entry was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// SHA-256 over the paths that it brings, with kind, mode and content; hexadecimal. Times do not count, nor does
    /// the `.git` directory of a repository.
    pub digest: String,
    /// The commit, for a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl Lock {
    /// Reads every source of a planned manifest, and clones its repositories.
    ///
    /// # Errors
    /// What materialisation would return.
    pub async fn of(manifest: &Manifest, plan: &Plan) -> Result<Self, SandboxError> {
        let clones = clone_all(plan).await?;
        let own = plan.clone();
        let (mut staged, entries) = blocking(move || survey(&own, Some(&clones))).await??;
        let entries = entries.into_iter().map(|(path, digest)| {
            let commit = staged.commits.remove(&path);
            (path, Locked { digest, commit })
        });
        let entries = entries.collect();
        Ok(Self { version: 1, manifest: manifest.digest(), entries })
    }

    /// Reads a lock as it is written.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for what is no lock of this version.
    pub fn from_json(text: &str) -> Result<Self, SandboxError> {
        let invalid = |reason: String| SandboxError::Invalid { reason };
        let lock: Self =
            serde_json::from_str(text).map_err(|error| invalid(format!("this is no lock: {error}")))?;
        if lock.version != 1 {
            return Err(invalid(format!(
                "the lock has version {}, and this release reads version 1",
                lock.version
            )));
        }
        Ok(lock)
    }

    /// The lock as text, one line for each of its parts.
    ///
    /// # Errors
    /// None that can happen: it is plain data.
    pub fn to_json(&self) -> Result<String, SandboxError> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|error| SandboxError::Invalid { reason: error.to_string() })
    }

    /// The manifest with every branch and tag replaced by the commit that it was.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] where the manifest is not the one that was locked.
    pub fn pin(&self, manifest: &Manifest) -> Result<Manifest, SandboxError> {
        let digest = manifest.digest();
        if digest != self.manifest {
            let reason = format!(
                "the manifest changed since it was locked: it was {}, and is {digest}",
                self.manifest
            );
            return Err(SandboxError::Invalid { reason });
        }
        let mut pinned = manifest.clone();
        for (path, locked) in &self.entries {
            let entry = RelPath::parse(path).ok().and_then(|path| pinned.entry_mut(&path));
            if let (Some(EntryKind::GitRepo(repo)), Some(commit)) =
                (entry.map(|entry| &mut entry.kind), &locked.commit)
            {
                repo.reference.clone_from(commit);
            }
        }
        Ok(pinned)
    }

    /// Makes sure that the files on the host are those that were locked. Repositories are not asked: a commit that
    /// is pinned is what it was, or cannot be fetched. This reads all files, and blocks.
    ///
    /// # Errors
    /// [`SandboxError::Stage`] with the first entry that differs.
    pub fn verify(&self, plan: &Plan) -> Result<(), SandboxError> {
        let (_, entries) = survey(plan, None)?;
        for (path, digest) in entries {
            match self.entries.get(&path) {
                Some(locked) if locked.digest == digest => {}
                Some(locked) => {
                    return Err(SandboxError::Stage {
                        entry: path,
                        reason: format!(
                            "it is not what was locked: it was {}, and is {digest}",
                            locked.digest
                        ),
                    });
                }
                None => {
                    return Err(SandboxError::Stage {
                        entry: path,
                        reason: "it is not in the lock".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}
