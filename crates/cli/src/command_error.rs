//! The one place where errors become text, hints and exit codes.

use std::process::ExitCode;

use mooring_harness::{HarnessError, Status};
use mooring_journal::JournalError;
use mooring_model::ModelError;
use mooring_sandbox::SandboxError;
use mooring_snapshot::SnapshotError;
use mooring_transfer::TransferError;

/// The run finished with an answer.
pub(crate) const EXIT_FINISHED: u8 = 0;
/// The run failed.
const EXIT_FAILED: u8 = 1;
/// The command line or a file it names is wrong; nothing was done.
const EXIT_INPUT: u8 = 2;
/// The run waits for an approval.
const EXIT_WAITING: u8 = 3;
/// The run was cancelled, or a command interrupted.
const EXIT_CANCELLED: u8 = 130;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct CommandError {
    message: String,
    code: u8,
}

impl CommandError {
    /// Bad usage or input: exit code 2.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_INPUT }
    }

    /// A failure on the way: exit code 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_FAILED }
    }

    /// Whoever asked for it interrupted it: exit code 130.
    pub(crate) fn cancelled(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_CANCELLED }
    }

    /// The same, with the place that it comes from before it.
    pub(crate) fn at(self, place: &str) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// The text for people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        crate::view::complain(&self.message);
        ExitCode::from(self.code)
    }
}

impl From<JournalError> for CommandError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::UnknownRun { .. } | JournalError::Driven { .. } => Self::input(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<HarnessError> for CommandError {
    fn from(error: HarnessError) -> Self {
        match error {
            HarnessError::Journal(error) => error.into(),
            HarnessError::Refused(_)
            | HarnessError::Empty { .. }
            | HarnessError::NoApproval { .. }
            | HarnessError::NoEvent { .. }
            | HarnessError::Input { .. }
            | HarnessError::Part { .. }
            | HarnessError::SameName { .. }
            | HarnessError::NoPrice { .. }
            | HarnessError::Completed { .. } => Self::input(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<TransferError> for CommandError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Journal(error) => error.into(),
            TransferError::Harness(error) => error.into(),
            TransferError::Io { .. } => Self::failed(error.to_string()),
            _ => Self::input(error.to_string()),
        }
    }
}

impl From<ModelError> for CommandError {
    fn from(error: ModelError) -> Self {
        Self::input(error.to_string())
    }
}

impl From<SandboxError> for CommandError {
    fn from(error: SandboxError) -> Self {
        Self::input(error.to_string())
    }
}

impl From<SnapshotError> for CommandError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Unknown { .. } | SnapshotError::Exists { .. } => Self::input(error.to_string()),
            SnapshotError::Sandbox(error) => error.into(),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// The exit code of a run that is over.
pub(crate) fn exit_code(status: Status) -> ExitCode {
    ExitCode::from(match status {
        Status::Completed => EXIT_FINISHED,
        Status::Running | Status::Failed => EXIT_FAILED,
        Status::Waiting => EXIT_WAITING,
        Status::Cancelled => EXIT_CANCELLED,
    })
}
