//! What can go wrong with a mount: as a number for the command that looks, and as a text for the person who wonders.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fuser::Errno;
use mooring_sandbox::MountFailure;

/// Most different failures of one mount that are told.
const ROOM: usize = 100;

/// How much of a server's answer is told.
const SAID: usize = 400;

/// What failed and was not asked for yet, with the sessions.
pub(crate) type Failures = Arc<Mutex<Vec<(String, MountFailure)>>>;

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    #[error("nothing is there")]
    NotFound,
    #[error("something is there")]
    Exists,
    #[error("it is a directory")]
    IsDirectory,
    #[error("it is no directory")]
    NotDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("object storage cannot rename this in one step")]
    NoRename,
    #[error("object storage keeps no permissions and no owners")]
    NoPermissions,
    #[error("a name cannot be '{0}' in object storage")]
    Name(String),
    #[error("the object was changed or removed while it was open; open it again")]
    Changed,
    #[error("the server did not answer within {} s", .0.as_secs())]
    Deadline(Duration),
    #[error("access was denied; check the mount's credentials: {0}")]
    Denied(String),
    #[error("there is no such bucket, container or object: {0}")]
    Missing(String),
    #[error("a directory with more than {0} entries is not listed; mount a narrower prefix")]
    TooMany(usize),
    #[error(
        "a key in it is no path ({0}): an empty part, '.', '..' or a control character. Rename or remove the object, or \
         mount a prefix beside it"
    )]
    Key(String),
    #[error("files that are not uploaded yet may take {0} bytes on the control plane's disk, and no more")]
    Full(u64),
    #[error("the file is closed, or was never open")]
    Handle,
    #[error("the mount was ended")]
    Ended,
    #[error("{0}")]
    Other(String),
}

impl Fault {
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::ENOENT,
            Self::Exists => Errno::EEXIST,
            Self::IsDirectory => Errno::EISDIR,
            Self::NotDirectory => Errno::ENOTDIR,
            Self::NotEmpty => Errno::ENOTEMPTY,
            Self::NoRename => Errno::EXDEV,
            Self::NoPermissions => Errno::EPERM,
            Self::Name(_) => Errno::EINVAL,
            Self::Changed => Errno::ESTALE,
            Self::Denied(_) => Errno::EACCES,
            Self::Full(_) => Errno::ENOSPC,
            Self::Handle => Errno::EBADF,
            Self::Deadline(_)
            | Self::Missing(_)
            | Self::TooMany(_)
            | Self::Key(_)
            | Self::Ended
            | Self::Other(_) => Errno::EIO,
        }
    }

    /// Whether the number alone says everything.
    fn is_plain(&self) -> bool {
        matches!(
            self,
            Self::NotFound
                | Self::Exists
                | Self::IsDirectory
                | Self::NotDirectory
                | Self::NotEmpty
                | Self::NoRename
                | Self::NoPermissions
                | Self::Handle
                | Self::Ended
        )
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            object_store::Error::Precondition { .. } => Self::Changed,
            object_store::Error::PermissionDenied { source, .. }
            | object_store::Error::Unauthenticated { source, .. } => Self::Denied(source.to_string()),
            object_store::Error::InvalidPath { source } => Self::Key(source.to_string()),
            object_store::Error::Generic { source, .. } => Self::of_server(chain(&*source)),
            other => Self::of_server(chain(&other)),
        }
    }
}

impl Fault {
    /// What a listing or an upload was told. Its status is in the text alone.
    fn of_server(said: String) -> Self {
        let status = |code: &str| said.contains(&format!("status code: {code} "));
        if status("401") || status("403") {
            Self::Denied(said)
        } else if status("404") {
            Self::Missing(said)
        } else {
            Self::Other(said)
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Other(format!("the control plane's own disk: {error}"))
    }
}

/// An error with its causes: the first alone often says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// Tells failures of one mount.
pub(crate) struct Faults {
    pub(crate) mount: String,
    pub(crate) session_id: String,
    /// What must never be told.
    pub(crate) secrets: Vec<String>,
    pub(crate) failures: Failures,
    /// What was told: the same failure has other words each time, such as how long it took.
    told: Mutex<HashSet<(&'static str, String, std::mem::Discriminant<Fault>)>>,
}

impl Faults {
    pub(crate) fn new(mount: String, session_id: String, secrets: Vec<String>, failures: Failures) -> Self {
        Self { mount, session_id, secrets, failures, told: Mutex::default() }
    }

    /// Tells a failure, where its number does not say enough.
    pub(crate) fn tell(&self, operation: &'static str, path: &str, fault: &Fault) {
        if fault.is_plain() {
            return;
        }
        let failure = MountFailure {
            mount: self.mount.clone(),
            operation: operation.to_owned(),
            path: path.to_owned(),
            reason: self.clean(&fault.to_string()),
        };
        let new = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.len() < ROOM && told.insert((operation, path.to_owned(), std::mem::discriminant(fault)))
        };
        if new {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.push((self.session_id.clone(), failure));
        }
    }

    /// Without secrets, which a server may repeat, without line breaks, and not too long.
    pub(crate) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "(secret)");
        }
        let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match plain.char_indices().nth(SAID) {
            Some((at, _)) => format!("{}…", &plain[..at]),
            None => plain,
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("mount", &self.mount).finish_non_exhaustive()
    }
}
