//! Agents together: whom an agent may hand over to, whom it may give work to, and the tools by which the model asks
//! for either.
//!
//! A handoff stays in the run: another agent goes on with the conversation, in the same sandbox. A sub-agent is a run
//! of its own with its own journal, limits and sandbox; what it answers is a tool's output, and as untrusted as any.

use std::error::Error;
use std::sync::Arc;

use mooring_model::{FunctionOutput, Item, Role, ToolKind, ToolSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::run::AgentSpec;

/// How many runs may be nested: agents that give work to each other in a circle come to an end.
pub(crate) const MAX_DEPTH: u64 = 5;

/// An agent that the conversation may be handed over to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    /// The agent's name.
    pub agent: String,
    /// The tool's name; `transfer_to_AGENT` where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What the agent is for, for the model.
    #[serde(default)]
    pub description: String,
    /// What the agent gets of the conversation.
    #[serde(default)]
    pub filter: HandoffFilter,
}

/// What an agent gets of the conversation that is handed over to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandoffFilter {
    /// All of it.
    #[default]
    All,
    /// What was said, without tool calls, their outputs and reasoning.
    NoTools,
    /// What was said, folded into one message that says so.
    Folded,
    /// Only what the user said last.
    LastMessage,
    /// What the [`InputFilter`] of this name leaves, which whoever drives the run brings along in [`crate::AgentHost`].
    Code(String),
}

/// What an agent gets of the conversation that is handed over to it, as code. It is asked once for each handoff: what it
/// gives is recorded, and the conversation before stays in the journal.
pub trait InputFilter: std::fmt::Debug + Send + Sync {
    /// Its name, by which journals know it.
    fn name(&self) -> &str;

    /// The conversation as the next agent gets it. Its last item is the output of the call that hands over.
    ///
    /// # Errors
    /// Whatever keeps it from filtering: the run fails with `handoff_filter`, and the filter is asked again when the run is
    /// resumed.
    fn filter(&self, items: &[Item]) -> Result<Vec<Item>, Box<dyn Error + Send + Sync>>;
}

/// An agent that works as a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubAgent {
    /// The agent's name.
    pub agent: String,
    /// The tool's name; the agent's where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What the agent is for, for the model.
    #[serde(default)]
    pub description: String,
    /// Where it works.
    #[serde(default)]
    pub sandbox: SubSandbox,
}

/// Where a sub-agent works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubSandbox {
    /// In a sandbox of its own, made from its own manifest.
    #[default]
    Own,
    /// In a sandbox of its own that begins with a copy of the caller's workspace. What it changes there stays there.
    Fork,
}

impl Handoff {
    /// The name of the tool that hands over.
    pub fn tool_name(&self) -> String {
        self.tool.clone().unwrap_or_else(|| format!("transfer_to_{}", snake(&self.agent)))
    }

    fn spec(&self) -> ToolSpec {
        let what = format!("Hands the conversation over to the agent {}.", self.agent);
        ToolSpec {
            name: self.tool_name(),
            description: format!("{what} {}", self.description).trim_end().to_owned(),
            kind: ToolKind::Function {
                parameters: json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false}),
                strict: true,
            },
        }
    }
}

impl SubAgent {
    /// The name of the tool that gives it work.
    pub fn tool_name(&self) -> String {
        self.tool.clone().unwrap_or_else(|| snake(&self.agent))
    }

    fn spec(&self) -> ToolSpec {
        let place = match self.sandbox {
            SubSandbox::Own => "It sees nothing of this conversation and of your workspace.",
            SubSandbox::Fork => {
                "It sees nothing of this conversation, and works in a copy of your workspace as it is now; what it \
                 changes there stays there."
            }
        };
        let what = format!("Gives a task to the agent {} and returns what it answers. {place}", self.agent);
        ToolSpec {
            name: self.tool_name(),
            description: format!("{what} {}", self.description).trim_end().to_owned(),
            kind: ToolKind::Function {
                parameters: json!({
                    "type": "object",
                    "properties": {"input": {"type": "string", "description": "The task, with all that is needed to do it."}},
                    "required": ["input"],
                    "additionalProperties": false,
                }),
                strict: true,
            },
        }
    }
}

impl AgentSpec {
    /// The tools by which the model asks for other agents.
    pub fn team_tools(&self) -> Vec<ToolSpec> {
        self.handoffs.iter().map(Handoff::spec).chain(self.agents.iter().map(SubAgent::spec)).collect()
    }

    /// The names of the agents that this one may hand over to, give work to, or ask for their judgement.
    pub fn mates(&self) -> impl Iterator<Item = &str> {
        let handoffs = self.handoffs.iter().map(|handoff| handoff.agent.as_str());
        let judges = self.guardrails.iter().filter_map(|guardrail| guardrail.agent.as_deref());
        handoffs.chain(self.agents.iter().map(|agent| agent.agent.as_str())).chain(judges)
    }
}

impl HandoffFilter {
    /// The word in agent files and events; the name of one that is code.
    pub fn as_str(&self) -> &str {
        match self {
            Self::All => "all",
            Self::NoTools => "no_tools",
            Self::Folded => "folded",
            Self::LastMessage => "last_message",
            Self::Code(name) => name,
        }
    }

    /// The code that it names, or why that cannot be had.
    pub(crate) fn bind<'a>(
        &self,
        code: &'a [Arc<dyn InputFilter>],
    ) -> Result<Option<&'a dyn InputFilter>, String> {
        let Self::Code(name) = self else { return Ok(None) };
        let found = code.iter().find(|code| code.name() == name).map(AsRef::as_ref);
        let missing = || format!("the filter '{name}' is code that was not given to this driver");
        found.map(Some).ok_or_else(missing)
    }

    /// The conversation as the next agent gets it; `None` where it is left as it is.
    pub(crate) fn apply(
        &self,
        items: &[Item],
        code: &[Arc<dyn InputFilter>],
    ) -> Result<Option<Vec<Item>>, String> {
        if let Some(code) = self.bind(code)? {
            let filtered = code.filter(items);
            return filtered
                .map(Some)
                .map_err(|error| format!("the filter '{}' failed: {error}", self.as_str()));
        }
        Ok(self.left(items))
    }

    fn left(&self, items: &[Item]) -> Option<Vec<Item>> {
        let said = |item: &&Item| matches!(item, Item::Message { .. });
        match self {
            Self::All | Self::Code(_) => None,
            Self::NoTools => {
                let mut kept: Vec<Item> = items.iter().filter(said).cloned().collect();
                if !matches!(kept.last(), Some(Item::Message { role: Role::User, .. })) {
                    // Some providers take a conversation that ends with the model's words as the begin of its answer.
                    kept.push(Item::user("This conversation was handed over to you. Go on with it."));
                }
                Some(kept)
            }
            Self::LastMessage => {
                let user = |item: &&Item| matches!(item, Item::Message { role: Role::User, .. });
                Some(items.iter().rev().find(user).cloned().into_iter().collect())
            }
            Self::Folded => {
                let line = |item: &Item| {
                    let Item::Message { role, .. } = item else { return None };
                    let who = serde_json::to_value(role).ok()?;
                    let text = item.text();
                    (!text.is_empty()).then(|| format!("{}: {text}", who.as_str().unwrap_or("?")))
                };
                let lines: Vec<String> = items.iter().filter_map(line).collect();
                let text = format!(
                    "This conversation was handed over to you. What was said before:\n\n{}\n\nGo on with it.",
                    lines.join("\n\n")
                );
                Some(vec![Item::user(text)])
            }
        }
    }
}

/// What the model reads when its handoff is taken.
pub(crate) fn handed_over(agent: &str) -> FunctionOutput {
    FunctionOutput::Text(json!({"assistant": agent}).to_string())
}

/// A name as a tool may have it.
fn snake(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}
