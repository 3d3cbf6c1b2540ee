//! Reads a stream of message events.

use serde_json::{Map, Value};

use crate::sse::SseEvent;
use crate::wire::{self, Decoder, protocol, text};
use crate::wire_calls;
use crate::{Capture, Content, Item, ModelError, ModelEvent, ModelResponse, Role, StopReason, Usage, fault};

/// Reads one answer.
pub(super) struct Reader {
    custom: Vec<String>,
    id: Option<String>,
    model: String,
    blocks: Vec<Open>,
    stop: Option<String>,
    /// The provider's counts, each as it was last given: they are totals.
    usage: Map<String, Value>,
}

/// A content block, with the arguments of a call as they come: text, parsed by whoever runs the call.
struct Open {
    index: u64,
    block: Value,
    arguments: String,
}

impl Reader {
    /// A reader of an answer where these tools are custom ones.
    pub(super) fn new(custom: Vec<String>) -> Self {
        Self { custom, id: None, model: String::new(), blocks: Vec::new(), stop: None, usage: Map::new() }
    }
}

impl Decoder for Reader {
    fn event(
        &mut self,
        event: &SseEvent,
        shown: &mut Vec<ModelEvent>,
    ) -> Result<Option<ModelResponse>, ModelError> {
        let mut data = wire::json(event)?;
        match text(&data, "type") {
            "message_start" => {
                let message = &data["message"];
                self.id = message["id"].as_str().map(str::to_owned);
                text(message, "model").clone_into(&mut self.model);
                self.count(&message["usage"]);
            }
            "content_block_start" => {
                let index = data["index"].as_u64().unwrap_or_default();
                let block = data["content_block"].take();
                if !block.is_object() {
                    return Err(protocol(&format!("the content block {index} is no object")));
                }
                match text(&block, "type") {
                    "tool_use" => {
                        shown.push(ModelEvent::ToolCallStarted { name: text(&block, "name").to_owned() });
                    }
                    "text" if !text(&block, "text").is_empty() => {
                        shown.push(ModelEvent::TextDelta(text(&block, "text").to_owned()));
                    }
                    _ => {}
                }
                self.blocks.push(Open { index, block, arguments: String::new() });
            }
            "content_block_delta" => self.delta(&data, shown)?,
            "message_delta" => {
                if let Some(stop) = data["delta"]["stop_reason"].as_str() {
                    self.stop = Some(stop.to_owned());
                }
                self.count(&data["usage"]);
            }
            "message_stop" => return self.whole().map(Some),
            "error" => return Err(fault::from_object(&data, None)),
            // `ping`, `content_block_stop`, and what is not known yet.
            _ => {}
        }
        Ok(None)
    }

    fn end(&mut self) -> Option<ModelResponse> {
        None
    }
}

impl Reader {
    fn count(&mut self, usage: &Value) {
        for (name, value) in usage.as_object().into_iter().flatten() {
            if !value.is_null() {
                self.usage.insert(name.clone(), value.clone());
            }
        }
    }

    fn delta(&mut self, data: &Value, shown: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        let index = data["index"].as_u64().unwrap_or_default();
        let Some(block) = self.blocks.iter_mut().rfind(|block| block.index == index) else {
            return Err(protocol(&format!("a delta belongs to block {index}, which never began")));
        };
        let delta = &data["delta"];
        let mut append = |field: &str| {
            let more = text(delta, field).to_owned();
            match block.block.get_mut(field) {
                Some(Value::String(whole)) => whole.push_str(&more),
                _ => block.block[field] = more.clone().into(),
            }
            more
        };
        match text(delta, "type") {
            "text_delta" => shown.push(ModelEvent::TextDelta(append("text"))),
            "thinking_delta" => shown.push(ModelEvent::ReasoningDelta(append("thinking"))),
            "signature_delta" => {
                append("signature");
            }
            "compaction_delta" => {
                for field in ["content", "encrypted_content"] {
                    // None of a text means that shortening failed, which an empty one does not.
                    if delta[field].is_string() {
                        append(field);
                    }
                }
            }
            "input_json_delta" => block.arguments.push_str(text(delta, "partial_json")),
            "citations_delta" => match block.block.get_mut("citations") {
                Some(Value::Array(citations)) => citations.push(delta["citation"].clone()),
                _ => block.block["citations"] = Value::Array(vec![delta["citation"].clone()]),
            },
            _ => {}
        }
        Ok(())
    }

    fn whole(&mut self) -> Result<ModelResponse, ModelError> {
        let Some(stop) = self.stop.take() else {
            return Err(protocol("the message stopped without a reason to stop"));
        };
        let blocks = std::mem::take(&mut self.blocks);
        // What shortening the conversation took stands apart from the answer's own counts, and costs as much.
        let iterations = self.usage.get("iterations").and_then(Value::as_array).into_iter().flatten();
        let shortening: Vec<&Value> = iterations.filter(|part| part["type"] == super::COMPACTION).collect();
        let count = |name: &str| {
            let more = shortening.iter().filter_map(|part| part[name].as_u64()).sum::<u64>();
            self.usage.get(name).and_then(Value::as_u64).unwrap_or_default() + more
        };
        let (read, written) = (count("cache_read_input_tokens"), count("cache_creation_input_tokens"));
        let thinking =
            self.usage.get("output_tokens_details").and_then(|details| details["thinking_tokens"].as_u64());
        Ok(ModelResponse {
            id: self.id.take(),
            model: std::mem::take(&mut self.model),
            items: blocks.into_iter().map(|block| item(&self.custom, block)).collect(),
            usage: Usage {
                // The provider counts what it read apart from the cache; ours includes it.
                input_tokens: count("input_tokens") + read + written,
                cached_input_tokens: read,
                cache_write_tokens: written,
                output_tokens: count("output_tokens"),
                reasoning_tokens: thinking.unwrap_or_default(),
            },
            stop_reason: match stop.as_str() {
                "end_turn" | "tool_use" | "stop_sequence" => StopReason::Stop,
                // Cut either way.
                "max_tokens" | "model_context_window_exceeded" => StopReason::MaxOutputTokens,
                "refusal" => StopReason::Refusal,
                _ => StopReason::Other(stop),
            },
            capture: Capture::default(),
        })
    }
}

fn item(custom: &[String], open: Open) -> Item {
    let Open { mut block, arguments, .. } = open;
    let field = |name: &str| text(&block, name).to_owned();
    match text(&block, "type") {
        "text" => {
            let mut extra = Map::new();
            if let Some(citations) = block.get("citations").filter(|citations| !citations.is_null()) {
                extra.insert("citations".to_owned(), citations.clone());
            }
            let content = vec![Content::OutputText { text: field("text"), extra }];
            Item::Message { role: Role::Assistant, content, extra: Map::new() }
        }
        "tool_use" => {
            // A call without arguments streams none.
            let arguments = if arguments.is_empty() { block["input"].to_string() } else { arguments };
            wire_calls::call(custom, field("id"), field("name"), arguments)
        }
        "thinking" | "redacted_thinking" => {
            Item::Reasoning { body: Map::from_iter([("anthropic".to_owned(), block)]) }
        }
        kind => {
            let kind = Value::String(format!("anthropic:{kind}"));
            // A tool that the provider runs: its call goes back whole.
            if !arguments.is_empty() {
                block["input"] = wire_calls::arguments_object(&arguments);
            }
            Item::Other(Map::from_iter([("type".to_owned(), kind), ("anthropic".to_owned(), block)]))
        }
    }
}
