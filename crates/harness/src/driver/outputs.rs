//! What a run is to leave in its workspace, by its manifest. A run that did not is not completed, whatever its agent
//! says.

use mooring_journal::event::{RunError, RunFinished};
use mooring_manifest::Manifest;
use mooring_sandbox::SandboxError;

use super::Driver;
use crate::Status;

impl Driver<'_> {
    /// Makes a run that would be completed a failed one where a required output is missing, or cannot be looked for.
    pub(super) async fn require_outputs(&self, finished: &mut RunFinished) {
        if finished.status != Status::Completed.as_str() {
            return;
        }
        let Ok(manifest) = Manifest::from_value(&self.state.started.manifest) else { return };
        let required = manifest.extension.outputs.iter().filter(|output| output.required);
        let mut missing = Vec::new();
        for output in required {
            let found = match &self.session {
                Some(session) => session.stat(&output.path).await.map(drop),
                None => Err(SandboxError::NotFound { path: output.path.clone() }),
            };
            match found {
                Ok(()) => {}
                Err(SandboxError::NotFound { .. }) => missing.push(format!("'{}'", output.path)),
                Err(error) => missing.push(format!("'{}' ({error})", output.path)),
            }
        }
        if !missing.is_empty() {
            finished.status = Status::Failed.as_str().into();
            finished.error = Some(RunError {
                code: "outputs_missing".into(),
                message: format!("the manifest asks for outputs that are not there: {}", missing.join(", ")),
            });
        }
    }
}
