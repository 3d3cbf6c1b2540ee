//! Archive errors in the words of the compute plane.

use mooring_archive::ArchiveError;

use crate::SandboxError;

impl SandboxError {
    /// An error of packing or unpacking a workspace.
    pub fn of_archive(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Refused { member, reason } => Self::Archive { member, reason },
            ArchiveError::Limit { member, what, limit } => {
                Self::Archive { member, reason: format!("the archive exceeds the limit of {limit} {what}") }
            }
            ArchiveError::File { operation, path, source } => {
                Self::File { operation, path: path.display().to_string(), reason: source.to_string() }
            }
            ArchiveError::Stream { operation, source } => {
                Self::File { operation, path: "the archive".to_owned(), reason: source.to_string() }
            }
            other => Self::Invalid { reason: other.to_string() },
        }
    }
}
