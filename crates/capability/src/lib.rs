//! What an agent can do in its sandbox, as tools for the model.
//!
//! Names, parameters and output forms are those of the OpenAI Agents SDK, since models are trained on them. A tool
//! knows its sandbox session and nothing of the loop that calls it.

mod tool;

pub use tool::{BoxFuture, Effect, Reconciled, Tool, ToolContext, ToolInput, ToolResult, ToolStatus};
