//! OpenAI's Responses API, and every server that speaks Open Responses.
//!
//! Nothing is stored at the provider: each call carries the whole conversation, and reasoning travels encrypted in
//! its items. Items are ours already, so they go out as they came but for what this API refuses.

use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::key_header;
use crate::sse::SseEvent;
use crate::strict::Dialect;
use crate::wire::{self, Decoder, Protocol, protocol, text};
use crate::{
    Capture, Content, Item, ModelError, ModelErrorKind, ModelEvent, ModelRequest, ModelResponse,
    OutputSchema, Role, Secret, StopReason, TokenLogprob, ToolKind, ToolSpec, Usage, fault,
};

/// Families that do not reason; they refuse a request that asks for encrypted reasoning.
const NOT_REASONING: &[&str] = &["gpt-3.5", "gpt-4", "chatgpt-", "gpt-5-chat"];

/// A model over this API.
pub(crate) struct Responses {
    pub(crate) model: String,
}

impl Protocol for Responses {
    fn path(&self) -> &'static str {
        "/responses"
    }

    fn headers(&self, key: Option<&Secret>) -> Result<Vec<(HeaderName, HeaderValue)>, ModelError> {
        key.map(|key| key_header("authorization", &format!("Bearer {}", key.expose()))).into_iter().collect()
    }

    fn body(&self, request: &ModelRequest<'_>) -> Result<Value, ModelError> {
        let settings = request.settings;
        let mut include = Vec::new();
        if !NOT_REASONING.iter().any(|family| self.model.starts_with(family)) {
            include.push("reasoning.encrypted_content");
        }
        if settings.top_logprobs.is_some() {
            include.push("message.output_text.logprobs");
        }
        // What the provider has shortened stands in its own item, and all before that is in it.
        let last = request.items.iter().rposition(is_compaction).unwrap_or(0);
        let items = &request.items[last..];
        // Reasoning that nothing came of, as where an answer was cut, is refused.
        let useful = |at: &usize| {
            let next = items[*at..].iter().find(|item| !matches!(item, Item::Reasoning { .. }));
            !matches!(items[*at], Item::Reasoning { .. }) || next.is_some_and(is_from_model)
        };
        let input = (0..items.len()).filter(useful).filter_map(|at| input(&items[at]).transpose());
        let mut body = json!({
            "model": self.model,
            "input": input.collect::<Result<Vec<_>, _>>()?,
            "stream": true,
            "store": false,
        });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        set("include", (!include.is_empty()).then(|| json!(include)));
        set("instructions", (!request.instructions.is_empty()).then(|| request.instructions.into()));
        set("tools", (!request.tools.is_empty()).then(|| request.tools.iter().map(tool).collect()));
        set("temperature", settings.temperature.map(Value::from));
        set("top_p", settings.top_p.map(Value::from));
        set("max_output_tokens", settings.max_output_tokens.map(Value::from));
        // A summary is the only part of its reasoning that OpenAI shows.
        set(
            "reasoning",
            settings.reasoning_effort.map(|effort| json!({"effort": effort, "summary": "auto"})),
        );
        set(
            "parallel_tool_calls",
            settings.parallel_tool_calls.filter(|_| !request.tools.is_empty()).map(Value::from),
        );
        set("top_logprobs", settings.top_logprobs.map(Value::from));
        set(
            "context_management",
            settings.compact_at.map(|tokens| json!([{"type": "compaction", "compact_threshold": tokens}])),
        );
        set("text", request.output.and_then(format));
        set("prompt_cache_key", settings.cache_key.clone().map(Value::from));
        Ok(body)
    }

    fn decoder(&self, _: &ModelRequest<'_>) -> Box<dyn Decoder> {
        Box::new(Reader::default())
    }
}

/// How the answer is held to a schema.
fn format(output: &OutputSchema) -> Option<Value> {
    let schema = output.strict_form(Dialect::OpenAi)?;
    Some(json!({"format": {"type": "json_schema", "name": "output", "schema": schema, "strict": true}}))
}

fn tool(tool: &ToolSpec) -> Value {
    match &tool.kind {
        ToolKind::Function { parameters, strict } => json!({
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": parameters,
            "strict": strict,
        }),
        ToolKind::Custom { syntax, definition } => json!({
            "type": "custom",
            "name": tool.name,
            "description": tool.description,
            "format": {"type": "grammar", "syntax": syntax, "definition": definition},
        }),
    }
}

fn is_compaction(item: &Item) -> bool {
    matches!(item, Item::Other(object) if object.get("type").is_some_and(|kind| kind == "compaction"))
}

fn is_from_model(item: &Item) -> bool {
    match item {
        Item::Message { role, .. } => *role == Role::Assistant,
        Item::FunctionCall { .. } | Item::CustomToolCall { .. } | Item::Reasoning { .. } | Item::Other(_) => {
            true
        }
        Item::FunctionCallOutput { .. } | Item::CustomToolCallOutput { .. } => false,
    }
}

/// An item as this API takes it; `None` for another provider's reasoning.
fn input(item: &Item) -> Result<Option<Value>, ModelError> {
    let mut value = match item {
        Item::Reasoning { body } => {
            let has = |field: &str| body.get(field).is_some_and(|value| !matches!(value, Value::Null));
            let readable =
                body.get("content").and_then(Value::as_array).is_some_and(|parts| !parts.is_empty());
            // What is neither encrypted nor readable is only a reference to what was not stored.
            if has("anthropic") || has("chat") || !(has("encrypted_content") || readable) {
                return Ok(None);
            }
            let mut body = body.clone();
            // This API gives it and refuses it.
            body.remove("status");
            serde_json::to_value(Item::Reasoning { body })
        }
        // Text that this API did not write itself has no id, and goes in its short form.
        Item::Message { role: Role::Assistant, extra, .. } if !extra.contains_key("id") => {
            return Ok(Some(json!({"type": "message", "role": "assistant", "content": item.text()})));
        }
        Item::Other(object) if object.contains_key("anthropic") => {
            return Err(ModelError::new(
                ModelErrorKind::Unsupported,
                "",
                format!(
                    "an item `{}` of Anthropic's cannot be sent to this API",
                    text(&Value::Object(object.clone()), "type")
                ),
            )
            .hint("Go on with the provider that made it"));
        }
        item => serde_json::to_value(item),
    }
    .map_err(|error| ModelError::new(ModelErrorKind::InvalidRequest, "", error.to_string()))?;
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    Ok(Some(value))
}

/// Reads an answer. The last event holds the whole response and is the truth; what came before is for showing, and
/// for servers that leave `output` empty there.
#[derive(Default)]
struct Reader {
    done: Vec<Value>,
    reasoned: bool,
}

impl Decoder for Reader {
    fn event(
        &mut self,
        event: &SseEvent,
        shown: &mut Vec<ModelEvent>,
    ) -> Result<Option<ModelResponse>, ModelError> {
        if event.data == "[DONE]" {
            return Ok(None);
        }
        let mut data = wire::json(event)?;
        let kind = match text(&data, "type") {
            "" => event.name.clone(),
            kind => kind.to_owned(),
        };
        let delta = || text(&data, "delta").to_owned();
        match kind.as_str() {
            "response.output_text.delta" | "response.refusal.delta" => {
                shown.push(ModelEvent::TextDelta(delta()));
            }
            "response.reasoning_summary_part.added" if std::mem::replace(&mut self.reasoned, true) => {
                shown.push(ModelEvent::ReasoningDelta("\n\n".into()));
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                shown.push(ModelEvent::ReasoningDelta(delta()));
            }
            "response.output_item.added" => {
                let item = &data["item"];
                if matches!(text(item, "type"), "function_call" | "custom_tool_call") {
                    shown.push(ModelEvent::ToolCallStarted { name: text(item, "name").to_owned() });
                }
            }
            "response.output_item.done" => self.done.push(data["item"].take()),
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                return self.whole(data["response"].take()).map(Some);
            }
            "error" => return Err(fault::from_object(&data, None)),
            // An error without a type, as servers of other APIs send it.
            _ if data.get("error").is_some_and(|error| !error.is_null()) => {
                return Err(fault::from_object(&data, None));
            }
            // Events that repeat or announce, and those that are not known yet.
            _ => {}
        }
        Ok(None)
    }

    fn end(&mut self) -> Option<ModelResponse> {
        None
    }
}

impl Reader {
    fn whole(&mut self, mut response: Value) -> Result<ModelResponse, ModelError> {
        if !response.is_object() {
            return Err(protocol("the last event holds no response"));
        }
        let status = text(&response, "status");
        if matches!(status, "failed" | "cancelled") {
            let mut error = if response["error"].is_object() {
                fault::from_object(&response, None)
            } else {
                ModelError::new(
                    ModelErrorKind::Provider,
                    "",
                    format!("the response {status} without an explanation"),
                )
            };
            error.request_id = response["id"].as_str().map(str::to_owned);
            return Err(error);
        }
        let mut output = match response["output"].take() {
            Value::Array(output) if !output.is_empty() => output,
            _ => std::mem::take(&mut self.done),
        };
        let mut capture = Capture::default();
        for item in &mut output {
            capture.logprobs.extend(take_logprobs(item));
        }
        let items = output.into_iter().map(parse_item).collect::<Result<Vec<_>, _>>()?;
        let stop_reason = match response["incomplete_details"]["reason"].as_str() {
            Some("max_output_tokens") => StopReason::MaxOutputTokens,
            Some("content_filter") => StopReason::Refusal,
            Some(other) => StopReason::Other(other.to_owned()),
            None if items.iter().any(refuses) => StopReason::Refusal,
            None => StopReason::Stop,
        };
        let usage = match response["usage"].take() {
            Value::Null => WireUsage::default(),
            usage => serde_json::from_value(usage)
                .map_err(|error| protocol(&format!("the usage of the response is malformed: {error}")))?,
        };
        Ok(ModelResponse {
            id: response["id"].as_str().map(str::to_owned),
            model: text(&response, "model").to_owned(),
            items,
            usage: usage.into(),
            stop_reason,
            capture,
        })
    }
}

/// An item of an answer. A message with a part that is not known yet is kept as it came; a call that lacks what a
/// call needs is refused, since it could not be answered.
fn parse_item(value: Value) -> Result<Item, ModelError> {
    match serde_json::from_value(value.clone()) {
        Ok(item) => Ok(item),
        Err(error) => match value {
            Value::Object(object) if object.get("type").is_some_and(|kind| kind == "message") => {
                Ok(Item::Other(object))
            }
            _ => Err(protocol(&format!("an item of the response is malformed: {error}"))),
        },
    }
}

fn refuses(item: &Item) -> bool {
    let Item::Message { content, .. } = item else { return false };
    content.iter().any(|part| matches!(part, Content::Refusal { .. }))
}

/// The log-probabilities of a message, out of it: they belong to the capture, and are not to be sent back.
fn take_logprobs(item: &mut Value) -> Vec<TokenLogprob> {
    let parts = item.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten();
    let taken = parts.filter_map(|part| part.as_object_mut()?.remove("logprobs"));
    taken.flat_map(|logprobs| parse_logprobs(&logprobs)).collect()
}

/// Log-probabilities in the form of both of OpenAI's APIs.
pub(crate) fn parse_logprobs(logprobs: &Value) -> Vec<TokenLogprob> {
    let tokens = logprobs.as_array().into_iter().flatten();
    tokens
        .filter_map(|token| {
            let logprob = token.get("logprob")?.as_f64()?;
            Some(TokenLogprob { token: text(token, "token").to_owned(), id: None, logprob })
        })
        .collect()
}

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
