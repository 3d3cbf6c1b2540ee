//! What a model gave back.

use serde::{Deserialize, Serialize};

use crate::Item;

/// Tokens used by one or more calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens read, those from the cache included.
    pub input_tokens: u64,
    /// Of these, read from the provider's cache.
    pub cached_input_tokens: u64,
    /// Tokens written to the provider's cache.
    pub cache_write_tokens: u64,
    /// Tokens produced, reasoning included.
    pub output_tokens: u64,
    /// Of these, spent on reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Adds another call's tokens.
    pub fn add(&mut self, other: &Self) {
        self.input_tokens += other.input_tokens;
        self.cached_input_tokens += other.cached_input_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.output_tokens += other.output_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
    }

    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input_tokens + self.output_tokens
    }
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It was done, or called tools.
    Stop,
    /// It reached the most tokens it may produce; the last item may be cut.
    MaxOutputTokens,
    /// The provider's filter or the model itself declined.
    Refusal,
    /// Something else, in the provider's word.
    Other(String),
}

/// One produced token with its log-probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's text.
    pub token: String,
    /// Its number in the vocabulary, where the provider says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The natural logarithm of its probability.
    pub logprob: f64,
}

/// What training needs and only some providers give. Empty where they do not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capture {
    /// The prompt as the model's tokens (vLLM: `prompt_token_ids`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompt_token_ids: Vec<u32>,
    /// The response as the model's tokens (vLLM: `token_ids`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
    /// Log-probabilities of the tokens produced, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// Which weights answered, where the provider says it (`system_fingerprint`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelResponse {
    /// The provider's id of the response, where it gives one.
    pub id: Option<String>,
    /// The model that answered, in the provider's words; from a chain of models its name in that chain.
    pub model: String,
    /// What it said and called.
    pub items: Vec<Item>,
    /// The tokens used.
    pub usage: Usage,
    /// Why it stopped.
    pub stop_reason: StopReason,
    /// What training needs.
    #[serde(default)]
    pub capture: Capture,
}
