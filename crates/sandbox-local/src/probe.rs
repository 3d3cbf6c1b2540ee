//! What this machine can isolate, for `moor doctor`.

use mooring_sandbox::SandboxError;
use mooring_supervisor::{Check, Hello, Task};
use mooring_supervisor_client::{ask, gone};

use crate::LocalOptions;
use crate::launch::start_supervisor;

/// Tries every mechanism that a sandbox needs, and says for each whether it is there, and if not, what to do.
///
/// # Errors
/// [`SandboxError::Gone`] where not even the supervisor can be started.
pub async fn probe(options: &LocalOptions) -> Result<Vec<Check>, SandboxError> {
    let task = Task::Probe { state_dir: options.state_dir.clone() };
    match ask("probe", start_supervisor("probe", None, None)?, task).await? {
        Hello::Checks(checks) => Ok(checks),
        other => Err(gone("probe", format!("the supervisor said {other:?}"))),
    }
}
