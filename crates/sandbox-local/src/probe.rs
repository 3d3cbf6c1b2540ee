//! What this machine can isolate, for `moor doctor`.

use mooring_sandbox::SandboxError;
use mooring_supervisor::Check;

use crate::LocalOptions;
use crate::connection::Connection;

/// Tries every mechanism that a sandbox needs, and says for each whether it is there, and if not, what to do.
///
/// # Errors
/// [`SandboxError::Gone`] where not even the supervisor can be started.
pub async fn probe(options: &LocalOptions) -> Result<Vec<Check>, SandboxError> {
    Connection::probe(options.state_dir.clone()).await
}
