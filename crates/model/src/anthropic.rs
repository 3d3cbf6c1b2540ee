//! Anthropic's Messages API.
//!
//! Turns alternate, and the outputs of one assistant turn all stand in the one user message after it. Thinking goes
//! back as it came, signature included. Everything up to the last message is marked for the provider's cache, since
//! the next call of a run begins with it.

mod read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::http::key_header;
use crate::strict::Dialect;
use crate::wire::{Decoder, Protocol};
use crate::wire_calls::{arguments_object, custom_arguments, custom_tools, parameters};
use crate::{
    Content, FunctionOutput, Item, ModelError, ModelErrorKind, ModelRequest, OutputSchema, ReasoningEffort,
    Role, Secret, ToolSpec,
};

/// This API wants a limit. Every current model allows this one.
const MAX_TOKENS: u64 = 32_000;
/// What a request for a shortened conversation is allowed by, and the kind of the block that comes back.
const COMPACT_BETA: &str = "compact-2026-01-12";
const COMPACTION: &str = "compaction";
/// The smallest budget for thinking that the API takes.
const LEAST_BUDGET: u64 = 1024;

/// A model over this API.
pub(crate) struct Anthropic {
    pub(crate) model: String,
}

impl Protocol for Anthropic {
    fn path(&self) -> &'static str {
        "/v1/messages"
    }

    fn headers(&self, key: Option<&Secret>) -> Result<Vec<(HeaderName, HeaderValue)>, ModelError> {
        let mut headers =
            vec![(HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"))];
        if let Some(key) = key {
            headers.push(key_header("x-api-key", key.expose())?);
        }
        Ok(headers)
    }

    fn header_of(&self, request: &ModelRequest<'_>) -> Option<(HeaderName, HeaderValue)> {
        let beta = (HeaderName::from_static("anthropic-beta"), HeaderValue::from_static(COMPACT_BETA));
        let shortened = request.settings.compact_at.is_some() || request.items.iter().any(is_compaction);
        shortened.then_some(beta)
    }

    fn body(&self, request: &ModelRequest<'_>) -> Result<Value, ModelError> {
        let settings = request.settings;
        let max_tokens = settings.max_output_tokens.unwrap_or(MAX_TOKENS);
        let first = request.items.iter().take_while(|item| is_system(item)).count();
        let (system, items) = request.items.split_at(first);
        let messages = messages(items)?;
        let unthought = continues_without_thinking(&messages);
        let mut body = json!({
            "model": self.model,
            "max_tokens": max_tokens,
            "messages": messages,
            "stream": true,
        });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        let system = std::iter::once(request.instructions.to_owned()).chain(system.iter().map(Item::text));
        let mut system: Vec<_> =
            system.filter(|text| !text.is_empty()).map(|text| text_block(&text)).collect();
        mark_for_cache(system.last_mut());
        set("system", (!system.is_empty()).then(|| system.into()));
        let mut tools: Vec<_> = request.tools.iter().map(tool).collect();
        mark_for_cache(tools.last_mut());
        set("tools", (!tools.is_empty()).then(|| tools.into()));
        set("temperature", settings.temperature.map(Value::from));
        set("top_p", settings.top_p.map(Value::from));
        let one_at_a_time = settings.parallel_tool_calls == Some(false) && !request.tools.is_empty();
        set("tool_choice", one_at_a_time.then(|| json!({"type": "auto", "disable_parallel_tool_use": true})));
        set(
            "context_management",
            settings.compact_at.map(|tokens| {
                let trigger = json!({"type": "input_tokens", "value": tokens});
                json!({"edits": [{"type": "compact_20260112", "trigger": trigger}]})
            }),
        );
        let mut output_config = Map::new();
        if let Some(effort) = settings.reasoning_effort {
            let (thinking, effort) = thinking(&self.model, effort, max_tokens);
            set("thinking", thinking.filter(|thinking| thinking["type"] != "enabled" || !unthought));
            output_config.extend(effort.map(|effort| ("effort".to_owned(), effort.into())));
        }
        if let Some(schema) = request.output.filter(|_| may_hold(&self.model)).and_then(strict_form) {
            output_config.insert("format".into(), json!({"type": "json_schema", "schema": schema}));
        }
        set("output_config", (!output_config.is_empty()).then(|| output_config.into()));
        Ok(body)
    }

    fn decoder(&self, request: &ModelRequest<'_>) -> Box<dyn Decoder> {
        Box::new(read::Reader::new(custom_tools(request)))
    }
}

/// What the provider shortened. All before it stays in the request, and the provider leaves it out: a block may also say
/// that shortening failed.
fn is_compaction(item: &Item) -> bool {
    matches!(item, Item::Other(object) if object.get("anthropic").is_some_and(|block| block["type"] == COMPACTION))
}

fn tool(tool: &ToolSpec) -> Value {
    json!({"name": tool.name, "description": tool.description, "input_schema": parameters(tool)})
}

fn strict_form(output: &OutputSchema) -> Option<Value> {
    output.strict_form(Dialect::Anthropic)
}

/// Whether a model can be held to a schema: those before 4.1 refuse the request.
fn may_hold(model: &str) -> bool {
    !model.starts_with("claude-3") && !["-4-0", "-4-2025"].iter().any(|generation| model.contains(generation))
}

/// `thinking` and the effort in `output_config` for an effort. Models up to the 4.5 generation take a budget of tokens and refuse
/// an effort; later ones think as they see fit, take an effort, and refuse a budget.
fn thinking(model: &str, effort: ReasoningEffort, max_tokens: u64) -> (Option<Value>, Option<&'static str>) {
    let by_budget = model.starts_with("claude-3")
        || ["-4-0", "-4-1", "-4-5", "-4-2025"].iter().any(|generation| model.contains(generation));
    let (budget, effort) = match effort {
        ReasoningEffort::None => return (Some(json!({"type": "disabled"})), None),
        ReasoningEffort::Minimal => (LEAST_BUDGET, "low"),
        ReasoningEffort::Low => (4096, "low"),
        ReasoningEffort::Medium => (10_240, "medium"),
        ReasoningEffort::High => (24_576, "high"),
    };
    if !by_budget {
        return (Some(json!({"type": "adaptive"})), Some(effort));
    }
    // The answer needs room below the same limit. Without any, there is no thinking.
    let budget = budget.min(max_tokens / 2);
    ((budget >= LEAST_BUDGET).then(|| json!({"type": "enabled", "budget_tokens": budget})), None)
}

/// Whether the answer goes on with a turn that called tools without thinking, as another model's may. The API takes
/// no budget for thinking in the middle of one.
fn continues_without_thinking(messages: &[Value]) -> bool {
    let [.., model, user] = messages else { return false };
    user["content"][0]["type"] == "tool_result" && !is_thinking(&model["content"][0])
}

fn is_system(item: &Item) -> bool {
    matches!(item, Item::Message { role: Role::System | Role::Developer, .. })
}

fn messages(items: &[Item]) -> Result<Vec<Value>, ModelError> {
    let mut turns: Vec<Turn> = Vec::new();
    for item in items {
        let (by_model, blocks) = blocks(item)?;
        if !by_model && !blocks.is_empty() {
            trim_thinking(&mut turns);
        }
        match turns.last_mut() {
            Some(turn) if turn.by_model == by_model => turn.blocks.extend(blocks),
            _ if blocks.is_empty() => {}
            _ => turns.push(Turn { by_model, blocks }),
        }
    }
    trim_thinking(&mut turns);
    let mut messages: Vec<_> = turns.into_iter().map(Turn::into_message).collect();
    mark_for_cache(messages.last_mut().and_then(|message| message["content"].as_array_mut()?.last_mut()));
    Ok(messages)
}

/// Takes away thinking that nothing came of, as where an answer was cut: the API refuses it at the end of a turn.
fn trim_thinking(turns: &mut Vec<Turn>) {
    let Some(turn) = turns.last_mut().filter(|turn| turn.by_model) else { return };
    while turn.blocks.pop_if(|block| is_thinking(block)).is_some() {}
    if turn.blocks.is_empty() {
        turns.pop();
    }
}

fn is_thinking(block: &Value) -> bool {
    matches!(block["type"].as_str(), Some("thinking" | "redacted_thinking"))
}

/// A message on its way.
struct Turn {
    by_model: bool,
    blocks: Vec<Value>,
}

impl Turn {
    fn into_message(mut self) -> Value {
        // Results of calls must come before anything else that was said meanwhile. The sort keeps their order.
        self.blocks.sort_by_key(|block| !self.by_model && block["type"] != "tool_result");
        json!({"role": if self.by_model { "assistant" } else { "user" }, "content": self.blocks})
    }
}

/// An item as blocks of a turn of the model's (`true`) or the user's.
fn blocks(item: &Item) -> Result<(bool, Vec<Value>), ModelError> {
    Ok(match item {
        Item::Message { role: Role::Assistant, .. } => (
            true,
            Some(item.text())
                .filter(|text| !text.is_empty())
                .map(|text| text_block(&text))
                .into_iter()
                .collect(),
        ),
        // In the middle of a conversation this API has no place for it but the user's turn.
        _ if is_system(item) => (false, vec![text_block(&format!("<system>\n{}\n</system>", item.text()))]),
        Item::Message { content, .. } => (false, parts(content)?),
        Item::FunctionCall { call_id, name, arguments, .. } => {
            (true, vec![tool_use(call_id, name, &arguments_object(arguments))])
        }
        Item::CustomToolCall { call_id, name, input, .. } => {
            (true, vec![tool_use(call_id, name, &custom_arguments(input))])
        }
        Item::FunctionCallOutput { call_id, output, .. }
        | Item::CustomToolCallOutput { call_id, output, .. } => {
            let content = match output {
                FunctionOutput::Text(text) => json!(text),
                FunctionOutput::Parts(content) => json!(parts(content)?),
            };
            (
                false,
                vec![json!({"type": "tool_result", "tool_use_id": tool_use_id(call_id), "content": content})],
            )
        }
        // Another provider's reasoning means nothing to this one.
        Item::Reasoning { body } => (true, body.get("anthropic").cloned().into_iter().collect()),
        Item::Other(object) => match object.get("anthropic") {
            Some(block) => (true, vec![block.clone()]),
            None => {
                let kind = object.get("type").and_then(Value::as_str).unwrap_or("unknown");
                let message = format!("an item `{kind}` cannot be sent to Anthropic");
                return Err(ModelError::new(ModelErrorKind::Unsupported, "", message)
                    .hint("Go on with the provider that made it"));
            }
        },
    })
}

fn tool_use(id: &str, name: &str, input: &Value) -> Value {
    json!({"type": "tool_use", "id": tool_use_id(id), "name": name, "input": input})
}

/// Other providers' ids hold characters that this API refuses.
fn tool_use_id(call_id: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    call_id.chars().map(allowed).collect()
}

fn text_block(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// Parts as blocks. Empty text is left out, since the API refuses it.
fn parts(content: &[Content]) -> Result<Vec<Value>, ModelError> {
    let mut blocks = Vec::new();
    for part in content {
        match part {
            Content::InputText { text }
            | Content::OutputText { text, .. }
            | Content::Refusal { refusal: text } => {
                if !text.is_empty() {
                    blocks.push(text_block(text));
                }
            }
            Content::InputImage { image_url, .. } => {
                blocks.push(json!({"type": "image", "source": image_source(image_url)?}));
            }
        }
    }
    Ok(blocks)
}

fn image_source(url: &str) -> Result<Value, ModelError> {
    let Some(data) = url.strip_prefix("data:") else { return Ok(json!({"type": "url", "url": url})) };
    let parsed = data.split_once(";base64,").filter(|(_, data)| STANDARD.decode(data).is_ok());
    let Some((media_type, data)) = parsed else {
        return Err(ModelError::new(ModelErrorKind::InvalidRequest, "", "an image's data URL is malformed")
            .hint("Write it as data:image/png;base64,…"));
    };
    Ok(json!({"type": "base64", "media_type": media_type, "data": data}))
}

/// Marks a block as the end of what the provider should keep.
fn mark_for_cache(block: Option<&mut Value>) {
    if let Some(block) = block {
        block["cache_control"] = json!({"type": "ephemeral"});
    }
}
