//! OpenAI's Responses API.

use serde::Deserialize;

use crate::Usage;

/// Usage as this API writes it.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WireUsage {
    input_tokens: u64,
    input_tokens_details: Option<InputDetails>,
    output_tokens: u64,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let input = wire.input_tokens_details.unwrap_or_default();
        Self {
            input_tokens: wire.input_tokens,
            cached_input_tokens: input.cached_tokens,
            cache_write_tokens: input.cache_write_tokens,
            output_tokens: wire.output_tokens,
            reasoning_tokens: wire.output_tokens_details.unwrap_or_default().reasoning_tokens,
        }
    }
}
