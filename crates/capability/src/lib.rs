//! What an agent can do in its sandbox, as tools for the model.
//!
//! Names, parameters and output forms are those of the OpenAI Agents SDK, since models are trained on them. A tool
//! knows its sandbox session and nothing of the loop that calls it.
//!
//! What a workspace says about itself (`AGENTS.md`, skills) is read here too, as content that nobody has vetted.
//! `.moor` at a workspace's root is the runtime's own: long output is kept there for the model to read.

mod agents_md;
mod apply_patch;
mod capability;
mod context;
mod diff;
mod instructions;
mod load_skill;
mod patch;
mod path;
mod plan;
mod processes;
mod shell;
mod skill_file;
mod skills;
mod spill;
mod tool;
mod truncate;
mod view_image;
mod workspace;

pub use agents_md::{Guidance, guidance_item, workspace_guidance};
pub use capability::{ALL_CAPABILITIES, CAPABILITIES, Capability, capability};
pub use context::{WorkspaceContext, workspace_context};
pub use diff::{DiffError, apply_diff, created_content};
pub use instructions::system_instructions;
pub use patch::{Operation, SyntaxError, parse_json_patch, parse_patch};
pub use skills::{Skill, SkillIndex, SkillProblem};
pub use tool::{
    BoxFuture, Effect, Question, Reconciled, Tool, ToolContext, ToolInput, ToolResult, ToolStatus,
};
pub use truncate::truncate;

/// Reads a function tool's arguments, or says to the model what is wrong with them.
fn arguments<T: serde::de::DeserializeOwned>(input: &ToolInput) -> Result<T, ToolResult> {
    // Not every JSON value: an array would do as a list of the fields otherwise.
    let ToolInput::Json(json @ serde_json::Value::Object(_)) = input else {
        return Err(ToolResult::failed(
            "Invalid tool arguments: give a JSON object. Check the tool schema and try again.",
        ));
    };
    serde_path_to_error::deserialize(json).map_err(|error| {
        let field = error.path().to_string();
        let field = if field == "." { String::new() } else { format!(" for {field}") };
        let reason = error.into_inner();
        ToolResult::failed(format!(
            "Invalid tool arguments{field}. Check the tool schema and try again. ({reason})"
        ))
    })
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
