//! What a workspace says about itself, for the conversation.

use mooring_model::Item;
use mooring_sandbox::{SandboxError, SandboxSession};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkspaceContext {
    /// One message for the model; `None` where there is nothing to say.
    pub item: Option<Item>,
    /// The files it comes from.
    pub sources: Vec<String>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// Asks a workspace.
pub async fn workspace_context(_session: &dyn SandboxSession) -> Result<WorkspaceContext, SandboxError> {
    Ok(WorkspaceContext::default())
}
