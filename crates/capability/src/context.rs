//! What a workspace says about itself, for the conversation: guidance and, where the agent can use them, skills.

use mooring_model::Item;
use mooring_sandbox::{SandboxError, SandboxSession};

use crate::{SkillIndex, guidance_item, workspace_guidance};

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

/// Asks a workspace. `skills`: whether the agent can load them.
///
/// # Errors
/// Where the session is lost or the workspace cannot be listed.
pub async fn workspace_context(
    session: &dyn SandboxSession,
    skills: bool,
) -> Result<WorkspaceContext, SandboxError> {
    let guidance = workspace_guidance(session).await?;
    let index = if skills { SkillIndex::read(session).await? } else { SkillIndex::default() };
    let guided = guidance.iter().map(|guidance| guidance.path.clone());
    Ok(WorkspaceContext {
        item: guidance_item(&guidance, &index),
        sources: guided.chain(index.skills.iter().map(|skill| skill.path.clone())).collect(),
        problems: index
            .problems
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.reason))
            .collect(),
    })
}
