//! What is asked of a model.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Item, OutputSchema};

/// How a tool takes its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToolKind {
    /// JSON arguments after a JSON Schema.
    Function {
        /// The schema of the arguments.
        parameters: Value,
        /// Ask the provider to enforce the schema.
        strict: bool,
    },
    /// Free text, with a grammar where the provider can hold the model to it. A wire without custom tools offers
    /// the same tool as a function with one string argument named `input`, and translates its calls back to
    /// [`Item::CustomToolCall`].
    Custom {
        /// The grammar's language: `lark` or `regex`.
        syntax: String,
        /// The grammar.
        definition: String,
    },
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// How it takes its input.
    pub kind: ToolKind,
}

/// How much a reasoning model should think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningEffort {
    /// Not at all.
    None,
    /// As little as it can.
    Minimal,
    /// Little.
    Low,
    /// The usual.
    Medium,
    /// Much.
    High,
}

/// Sampling and the like. `None` leaves the provider's default. Recorded with every model call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Sampling temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The most tokens to produce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// How much to think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether the model may call several tools at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Sampling seed, where the provider takes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Ask for the log-probabilities of the tokens produced, and this many alternatives of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// Ask a Chat Completions server for the tokens themselves, as vLLM gives them; others refuse the request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub return_token_ids: bool,
    /// A name for what calls of one conversation share, by which OpenAI finds its cache of it (`prompt_cache_key`, 64
    /// characters at most). A hint: it is not sent to those who may not know it. Anthropic needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_key: Option<String>,
    /// From how many tokens on the provider is to shorten the conversation, where it can; others refuse the request.
    /// Not the agent's maker's to set here: it is part of how an agent's conversation is shortened.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub compact_at: Option<u64>,
}

/// One call of a model. Borrowed, so that a long conversation is not copied for each turn.
#[derive(Debug, Clone, Copy)]
pub struct ModelRequest<'a> {
    /// The system's instructions.
    pub instructions: &'a str,
    /// The conversation so far.
    pub items: &'a [Item],
    /// The tools on offer.
    pub tools: &'a [ToolSpec],
    /// Sampling and the like.
    pub settings: &'a Settings,
    /// What the answer must look like, where the provider can hold the model to it; a provider that cannot is not told,
    /// and nothing here checks the answer.
    pub output: Option<&'a OutputSchema>,
    /// How many responses of this conversation came before this one. A scripted model answers by it, so that a resumed run
    /// goes on where it was.
    pub ordinal: u64,
}
