//! Which mounts may have their credentials inside of the sandbox.
//!
//! A helper that mounts from inside needs its credentials there, where every command can read them. Only code says
//! that this is meant, for one mount at a time: nothing in a manifest's text can, and nothing of it is written.

use std::collections::BTreeSet;

use crate::{Manifest, PathError, RelPath};

/// What was acknowledged. Never read from a manifest, never written into one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exposure {
    scoped: BTreeSet<String>,
    broad: BTreeSet<String>,
}

/// What a credential opens, if it gets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// What is mounted.
    Mount,
    /// More: whatever an identity, a credentials file or the helper's own options open.
    Broad,
}

impl Manifest {
    /// Allows the credentials in the manifest's mount at this path to be inside of the sandbox.
    ///
    /// # Errors
    /// For what is no path of a mount: the root, and what leaves it by `..`.
    pub fn acknowledge_exposure(&mut self, mount: &str) -> Result<(), PathError> {
        self.exposure.scoped.insert(key(mount)?);
        Ok(())
    }

    /// Allows the mount at this path more than its own credentials: identities of the machine, credential files, and
    /// options that nobody can judge.
    ///
    /// # Errors
    /// As [`Manifest::acknowledge_exposure`].
    pub fn acknowledge_broad_exposure(&mut self, mount: &str) -> Result<(), PathError> {
        self.exposure.broad.insert(key(mount)?);
        Ok(())
    }

    /// Whether it was acknowledged for the mount with this target, an absolute path.
    pub(crate) fn acknowledges(&self, reach: Reach, target: &str) -> bool {
        let paths = match reach {
            Reach::Mount => &self.exposure.scoped,
            Reach::Broad => &self.exposure.broad,
        };
        let below = target.strip_prefix(self.root.trim_end_matches('/'));
        let below = below.and_then(|rest| rest.strip_prefix('/'));
        paths.contains(target) || below.is_some_and(|below| paths.contains(below))
    }
}

fn key(path: &str) -> Result<String, PathError> {
    match path.strip_prefix('/') {
        Some(below) => RelPath::parse(below).map(|path| format!("/{path}")),
        None => RelPath::parse(path).map(|path| path.to_string()),
    }
}
