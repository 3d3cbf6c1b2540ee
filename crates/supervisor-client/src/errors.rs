//! A supervisor's failures, as the errors of the compute plane.

use mooring_sandbox::SandboxError;
use mooring_supervisor::wire::Failure;

/// What a failure means. `operation` is what was asked for, in one word.
pub fn translate(operation: &'static str, failure: Failure) -> SandboxError {
    match failure {
        Failure::Isolation { primitive, reason, hint } => SandboxError::Isolation { primitive, reason, hint },
        Failure::NotFound { path } => SandboxError::NotFound { path },
        Failure::AlreadyExists { path } => SandboxError::AlreadyExists { path },
        Failure::PathEscape { path, reason } => SandboxError::PathEscape { path, reason },
        Failure::File { path, reason } => SandboxError::File { operation, path, reason },
        Failure::Start { command, reason } => SandboxError::Start { command, reason },
        Failure::Archive { member, reason } => SandboxError::Archive { member, reason },
        Failure::StdinFull => SandboxError::StdinFull,
        Failure::Port { port, reason } => SandboxError::Port { port, reason },
        Failure::Running => SandboxError::Invalid { reason: "the session runs already".into() },
        Failure::Invalid { reason } => SandboxError::Invalid { reason },
    }
}

/// A session that is not running, or whose sandbox has ended.
pub fn gone(session: &str, reason: impl Into<String>) -> SandboxError {
    SandboxError::Gone { session: session.into(), reason: reason.into() }
}
