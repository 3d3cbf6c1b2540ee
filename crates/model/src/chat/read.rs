//! Reads a stream of chat completion chunks.

use serde_json::{Map, Value, json};

use crate::responses::parse_logprobs;
use crate::sse::SseEvent;
use crate::wire::{self, Decoder, protocol, text};
use crate::wire_calls;
use crate::{Capture, Content, Item, ModelError, ModelEvent, ModelResponse, Role, StopReason, Usage, fault};

/// The fields in which servers stream what a model thinks.
const REASONING: &[&str] = &["reasoning_content", "reasoning"];

/// Reads one answer.
pub(super) struct Reader {
    custom: Vec<String>,
    ordinal: u64,
    id: Option<String>,
    model: String,
    reasoning: Map<String, Value>,
    text: String,
    refusal: String,
    calls: Vec<Call>,
    finish: Option<String>,
    usage: Usage,
    capture: Capture,
    begun: bool,
}

#[derive(Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Reader {
    /// A reader of the answer with this ordinal, where these tools are custom ones.
    pub(super) fn new(custom: Vec<String>, ordinal: u64) -> Self {
        Self {
            custom,
            ordinal,
            id: None,
            model: String::new(),
            reasoning: Map::new(),
            text: String::new(),
            refusal: String::new(),
            calls: Vec::new(),
            finish: None,
            usage: Usage::default(),
            capture: Capture::default(),
            begun: false,
        }
    }
}

impl Decoder for Reader {
    fn event(
        &mut self,
        event: &SseEvent,
        shown: &mut Vec<ModelEvent>,
    ) -> Result<Option<ModelResponse>, ModelError> {
        if event.data.starts_with("[DONE]") {
            if !self.begun {
                return Err(protocol("the stream ended without an answer in it"));
            }
            return Ok(Some(self.whole()));
        }
        let chunk = wire::json(event)?;
        // vLLM's older form has no `error` around it.
        if chunk.get("error").is_some_and(|error| !error.is_null()) || text(&chunk, "object") == "error" {
            return Err(fault::from_object(&chunk, None));
        }
        self.head(&chunk);
        // Only one choice is asked for. The chunk with the usage has none.
        if let Some(choice) = chunk["choices"].get(0) {
            self.begun = true;
            self.choice(choice, shown)?;
        }
        Ok(None)
    }

    fn end(&mut self) -> Option<ModelResponse> {
        self.finish.is_some().then(|| self.whole())
    }
}

impl Reader {
    /// What stands beside the choices.
    fn head(&mut self, chunk: &Value) {
        if self.id.is_none() {
            self.id = Some(text(chunk, "id")).filter(|id| !id.is_empty()).map(str::to_owned);
        }
        if self.model.is_empty() {
            text(chunk, "model").clone_into(&mut self.model);
        }
        if let Some(version) = chunk["system_fingerprint"].as_str() {
            self.capture.policy_version = Some(version.to_owned());
        }
        if let Some(ids) = token_ids(&chunk["prompt_token_ids"]) {
            self.capture.prompt_token_ids = ids;
        }
        let usage = &chunk["usage"];
        if usage.is_object() {
            let count = |value: &Value| value.as_u64().unwrap_or_default();
            let cached = &usage["prompt_tokens_details"]["cached_tokens"];
            self.usage = Usage {
                input_tokens: count(&usage["prompt_tokens"]),
                // DeepSeek has its own name for it.
                cached_input_tokens: count(if cached.is_u64() {
                    cached
                } else {
                    &usage["prompt_cache_hit_tokens"]
                }),
                cache_write_tokens: count(&usage["prompt_tokens_details"]["cache_write_tokens"]),
                output_tokens: count(&usage["completion_tokens"]),
                reasoning_tokens: count(&usage["completion_tokens_details"]["reasoning_tokens"]),
            };
        }
    }

    fn choice(&mut self, choice: &Value, shown: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        let delta = &choice["delta"];
        let mut seen = false;
        for field in REASONING {
            let more = text(delta, field);
            if more.is_empty() {
                continue;
            }
            append(&mut self.reasoning, field, more);
            // Some servers send the same under both names.
            if !std::mem::replace(&mut seen, true) {
                shown.push(ModelEvent::ReasoningDelta(more.to_owned()));
            }
        }
        for (field, whole) in [("content", &mut self.text), ("refusal", &mut self.refusal)] {
            match &delta[field] {
                Value::Null => {}
                Value::String(more) if more.is_empty() => {}
                Value::String(more) => {
                    whole.push_str(more);
                    shown.push(ModelEvent::TextDelta(more.clone()));
                }
                other => return Err(protocol(&format!("`delta.{field}` is no text: {other:.80}"))),
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, shown);
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(finish.to_owned());
        }
        if let Some(ids) = token_ids(&choice["token_ids"]) {
            self.capture.token_ids.extend(ids);
        }
        self.capture.logprobs.extend(parse_logprobs(&choice["logprobs"]["content"]));
        Ok(())
    }

    /// A piece of a call. It belongs to the call of its index; without one, to the call of its id, else to the last.
    fn call(&mut self, piece: &Value, shown: &mut Vec<ModelEvent>) {
        let index = piece["index"].as_u64();
        let id = text(piece, "id");
        let name = text(&piece["function"], "name");
        let known = self.calls.iter().rposition(|call| match index {
            Some(_) => call.index == index,
            None => id.is_empty() || call.id == id,
        });
        // Some servers give all calls of an answer the same index: another id and a name begin another call.
        let known = known.filter(|&at| {
            let call = &self.calls[at];
            !(!name.is_empty()
                && !call.name.is_empty()
                && !id.is_empty()
                && !call.id.is_empty()
                && call.id != id)
        });
        let at = known.unwrap_or_else(|| {
            self.calls.push(Call { index, ..Call::default() });
            self.calls.len() - 1
        });
        let call = &mut self.calls[at];
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        if call.name.is_empty() && !name.is_empty() {
            name.clone_into(&mut call.name);
            shown.push(ModelEvent::ToolCallStarted { name: name.to_owned() });
        }
        match &piece["function"]["arguments"] {
            Value::String(more) => call.arguments.push_str(more),
            Value::Null => {}
            // An object where the protocol wants its text.
            object => call.arguments.push_str(&object.to_string()),
        }
    }

    fn whole(&mut self) -> ModelResponse {
        let mut items = Vec::new();
        if !self.reasoning.is_empty() {
            let fields = std::mem::take(&mut self.reasoning);
            items
                .push(Item::Reasoning { body: Map::from_iter([("chat".to_owned(), Value::Object(fields))]) });
        }
        let mut content = Vec::new();
        if !self.text.is_empty() {
            content.push(Content::OutputText { text: std::mem::take(&mut self.text), extra: Map::new() });
        }
        let refused = !self.refusal.is_empty();
        if refused {
            content.push(Content::Refusal { refusal: std::mem::take(&mut self.refusal) });
        }
        if !content.is_empty() {
            items.push(Item::Message { role: Role::Assistant, content, extra: Map::new() });
        }
        for (at, call) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            // A call without an id gets one that no other answer of this run has.
            let id = if call.id.is_empty() { format!("call_{}_{at}", self.ordinal) } else { call.id };
            items.push(wire_calls::call(&self.custom, id, call.name, call.arguments));
        }
        let mut capture = std::mem::take(&mut self.capture);
        if capture.logprobs.len() == capture.token_ids.len() {
            for (logprob, id) in capture.logprobs.iter_mut().zip(&capture.token_ids) {
                logprob.id = Some(*id);
            }
        }
        ModelResponse {
            id: self.id.take(),
            model: std::mem::take(&mut self.model),
            items,
            usage: self.usage,
            stop_reason: match self.finish.as_deref() {
                Some("content_filter") => StopReason::Refusal,
                _ if refused => StopReason::Refusal,
                None | Some("stop" | "tool_calls" | "function_call") => StopReason::Stop,
                Some("length") => StopReason::MaxOutputTokens,
                Some(other) => StopReason::Other(other.to_owned()),
            },
            capture,
        }
    }
}

fn append(fields: &mut Map<String, Value>, field: &str, more: &str) {
    match fields.get_mut(field) {
        Some(Value::String(whole)) => whole.push_str(more),
        _ => {
            fields.insert(field.to_owned(), json!(more));
        }
    }
}

fn token_ids(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}
