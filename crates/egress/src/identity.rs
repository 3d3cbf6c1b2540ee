//! What a sandbox knows its proxy by: the key of its certificate authority, and the phantoms. Where a sandbox ends with
//! its client, both exist in memory alone. One that lives on between clients meets a proxy in each of them, and the
//! programs in it have read the certificates and the phantoms already: there, both are kept on this host, for this
//! user alone. Neither is worth anything outside of that one sandbox, and no secret's value is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use mooring_sandbox::SandboxError;
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use crate::policy::PolicyError;
use crate::secret::{SecretBinding, new_phantom};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The authority's key, in PEM. Its certificate is made anew each time, and is as good as the one before.
    pub(crate) authority_key: String,
    /// The phantoms, by the names of their secrets.
    pub(crate) phantoms: BTreeMap<String, String>,
}

impl Identity {
    /// A new one.
    pub(crate) fn new(secrets: &[SecretBinding]) -> Result<Self, PolicyError> {
        let key = KeyPair::generate().map_err(|error| PolicyError::Setup(error.to_string()))?;
        let mut made = Self { authority_key: key.serialize_pem(), phantoms: BTreeMap::new() };
        made.complete(secrets)?;
        Ok(made)
    }

    /// The one that is kept in this file. Where there is none, or it cannot be read, it is made.
    pub(crate) fn kept(path: &Path, secrets: &[SecretBinding]) -> Result<Self, SandboxError> {
        let file = |error: io::Error| SandboxError::File {
            operation: "keep what the sandbox knows its proxy by in",
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let invalid = |error: PolicyError| SandboxError::Invalid { reason: error.to_string() };
        let mut kept = open(path).map_err(file)?;
        let mut text = String::new();
        kept.read_to_string(&mut text).map_err(file)?;
        let before: Option<Self> = serde_json::from_str(&text).ok();
        let mut now = match before.clone() {
            Some(known) => known,
            None => Self::new(secrets).map_err(invalid)?,
        };
        now.complete(secrets).map_err(invalid)?;
        if before.as_ref() != Some(&now) {
            let text = serde_json::to_vec(&now).map_err(|error| file(error.into()))?;
            let mut write = || {
                kept.rewind()?;
                kept.set_len(0)?;
                kept.write_all(&text)
            };
            write().map_err(file)?;
        }
        Ok(now)
    }

    fn complete(&mut self, secrets: &[SecretBinding]) -> Result<(), PolicyError> {
        for secret in secrets {
            if !self.phantoms.contains_key(&secret.name) {
                self.phantoms.insert(secret.name.clone(), new_phantom(&secret.value)?);
            }
        }
        Ok(())
    }
}

/// The file, for nobody else on this host, and locked: two clients that come at once have the same.
fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}
