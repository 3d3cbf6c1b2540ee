//! Chat Completions, at any base URL: vLLM, SGLang, Ollama, llama.cpp, and OpenAI itself.
//!
//! The protocol has messages, not items. Reasoning, text and calls that follow each other are one assistant message;
//! on the way back they become items again. Servers differ in what they leave out, so little is demanded of them.

mod read;

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::http::key_header;
use crate::strict::Dialect;
use crate::wire::{Decoder, Protocol};
use crate::wire_calls::{arguments_object, custom_arguments, custom_tools, parameters};
use crate::{
    Content, FunctionOutput, Item, ModelError, ModelErrorKind, ModelRequest, OutputSchema, Role, Secret,
    ToolKind, ToolSpec,
};

/// A model over this API.
pub(crate) struct Chat {
    pub(crate) model: String,
    /// It is OpenAI's own, which renamed a setting that others know by its old name alone.
    pub(crate) at_openai: bool,
}

impl Protocol for Chat {
    fn path(&self) -> &'static str {
        "/chat/completions"
    }

    fn headers(&self, key: Option<&Secret>) -> Result<Vec<(HeaderName, HeaderValue)>, ModelError> {
        let key = key.filter(|key| !key.expose().is_empty());
        key.map(|key| key_header("authorization", &format!("Bearer {}", key.expose()))).into_iter().collect()
    }

    fn body(&self, request: &ModelRequest<'_>) -> Result<Value, ModelError> {
        let settings = request.settings;
        crate::wire::cannot_compact(settings)?;
        let mut body = json!({
            "model": self.model,
            "messages": messages(request)?,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        let limit = if self.at_openai { "max_completion_tokens" } else { "max_tokens" };
        set("tools", (!request.tools.is_empty()).then(|| request.tools.iter().map(tool).collect()));
        set("temperature", settings.temperature.map(Value::from));
        set("top_p", settings.top_p.map(Value::from));
        set(limit, settings.max_output_tokens.map(Value::from));
        set("reasoning_effort", settings.reasoning_effort.map(|effort| json!(effort)));
        set(
            "parallel_tool_calls",
            settings.parallel_tool_calls.filter(|_| !request.tools.is_empty()).map(Value::from),
        );
        // Servers that hold the sampler to a schema cannot call tools then; OpenAI's own can.
        let output = request.output.filter(|_| self.at_openai || request.tools.is_empty());
        set("response_format", output.and_then(format));
        set("seed", settings.seed.map(Value::from));
        set("logprobs", settings.top_logprobs.map(|_| true.into()));
        set("top_logprobs", settings.top_logprobs.map(Value::from));
        // Others may refuse what they do not know, and it is only a hint.
        set("prompt_cache_key", settings.cache_key.clone().filter(|_| self.at_openai).map(Value::from));
        set("return_token_ids", settings.return_token_ids.then_some(Value::Bool(true)));
        Ok(body)
    }

    fn decoder(&self, request: &ModelRequest<'_>) -> Box<dyn Decoder> {
        Box::new(read::Reader::new(custom_tools(request), request.ordinal))
    }
}

/// How the answer is held to a schema.
fn format(output: &OutputSchema) -> Option<Value> {
    let schema = output.strict_form(Dialect::OpenAi)?;
    let form = json!({"name": "output", "schema": schema, "strict": true});
    Some(json!({"type": "json_schema", "json_schema": form}))
}

fn tool(tool: &ToolSpec) -> Value {
    let mut function = json!({
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters(tool),
    });
    // Servers other than OpenAI's may not know the field, so it is left out where it says nothing.
    if matches!(tool.kind, ToolKind::Function { strict: true, .. }) {
        function["strict"] = true.into();
    }
    json!({"type": "function", "function": function})
}

fn messages(request: &ModelRequest<'_>) -> Result<Vec<Value>, ModelError> {
    let mut writer = Writer::default();
    if !request.instructions.is_empty() {
        writer.messages.push(json!({"role": "system", "content": request.instructions}));
    }
    for item in request.items {
        writer.item(item)?;
    }
    writer.end_turn();
    Ok(writer.messages)
}

/// Writes items as messages.
#[derive(Default)]
struct Writer {
    messages: Vec<Value>,
    /// The assistant's message so far.
    assistant: Map<String, Value>,
    /// Images of tools' outputs so far: tool messages carry none, so they follow in a message of the user's.
    images: Vec<Value>,
}

impl Writer {
    fn item(&mut self, item: &Item) -> Result<(), ModelError> {
        match item {
            Item::Message { role: Role::Assistant, .. } => {
                self.flush_images();
                // Text after calls stays in their message, since the calls' outputs must follow it at once.
                if self.assistant.contains_key("content") && !self.assistant.contains_key("tool_calls") {
                    self.flush_assistant();
                }
                let text = item.text();
                match self.assistant.get_mut("content") {
                    Some(Value::String(content)) => *content = format!("{content}\n\n{text}"),
                    _ => {
                        self.assistant.insert("content".into(), text.into());
                    }
                }
            }
            Item::Message { role, content, .. } => {
                self.end_turn();
                let role = if *role == Role::User { "user" } else { "system" };
                self.messages.push(json!({"role": role, "content": parts(content)}));
            }
            Item::FunctionCall { call_id, name, arguments, .. } => {
                self.call(call_id, name, &arguments_object(arguments), arguments);
            }
            Item::CustomToolCall { call_id, name, input, .. } => {
                let arguments = custom_arguments(input);
                self.call(call_id, name, &arguments, &arguments.to_string());
            }
            Item::FunctionCallOutput { call_id, output, .. }
            | Item::CustomToolCallOutput { call_id, output, .. } => {
                self.output(call_id, output);
            }
            Item::Reasoning { body } => {
                // Another provider's reasoning means nothing to this one.
                if let Some(Value::Object(fields)) = body.get("chat") {
                    self.flush_images();
                    if self.assistant.contains_key("content") || self.assistant.contains_key("tool_calls") {
                        self.flush_assistant();
                    }
                    self.assistant.extend(fields.clone());
                }
            }
            Item::Other(object) => {
                let kind = object.get("type").and_then(Value::as_str).unwrap_or("unknown");
                let message = format!("an item `{kind}` cannot be sent over Chat Completions");
                return Err(ModelError::new(ModelErrorKind::Unsupported, "", message)
                    .hint("Go on with the provider that made it"));
            }
        }
        Ok(())
    }

    fn call(&mut self, id: &str, name: &str, object: &Value, arguments: &str) {
        self.flush_images();
        // As it was written where it is an object; servers parse it, and refuse the whole request for one bad call.
        let verbatim = serde_json::from_str::<Value>(arguments).is_ok_and(|parsed| parsed.is_object());
        let arguments = if verbatim { arguments.to_owned() } else { object.to_string() };
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        match self.assistant.get_mut("tool_calls") {
            Some(Value::Array(calls)) => calls.push(call),
            _ => {
                self.assistant.insert("tool_calls".into(), json!([call]));
            }
        }
    }

    fn output(&mut self, call_id: &str, output: &FunctionOutput) {
        self.flush_assistant();
        // Outputs follow their calls at once, even where something was said meanwhile.
        let after = self
            .messages
            .iter()
            .rposition(|message| message["role"] == "tool" || message.get("tool_calls").is_some());
        let at = after.map_or(self.messages.len(), |after| after + 1);
        self.messages.insert(at, json!({"role": "tool", "tool_call_id": call_id, "content": output.text()}));
        let FunctionOutput::Parts(content) = output else { return };
        let images: Vec<_> = content.iter().filter_map(image).collect();
        if !images.is_empty() {
            self.images.push(
                json!({"type": "text", "text": format!("From the output of the tool call {call_id}:")}),
            );
            self.images.extend(images);
        }
    }

    fn end_turn(&mut self) {
        self.flush_assistant();
        self.flush_images();
    }

    fn flush_assistant(&mut self) {
        if self.assistant.is_empty() {
            return;
        }
        // A message without calls needs a text, if an empty one: an answer may be cut while the model thinks.
        let content = if self.assistant.contains_key("tool_calls") { Value::Null } else { "".into() };
        let mut message =
            Map::from_iter([("role".to_owned(), "assistant".into()), ("content".into(), content)]);
        message.append(&mut self.assistant);
        self.messages.push(Value::Object(message));
    }

    fn flush_images(&mut self) {
        if !self.images.is_empty() {
            let content = std::mem::take(&mut self.images);
            self.messages.push(json!({"role": "user", "content": content}));
        }
    }
}

/// A message's content: a string where it is nothing but text, since some servers take nothing else.
fn parts(content: &[Content]) -> Value {
    let text = |part: &Content| match part {
        Content::InputText { text } | Content::OutputText { text, .. } => Some(text.clone()),
        Content::Refusal { refusal } => Some(refusal.clone()),
        Content::InputImage { .. } => None,
    };
    if let Some(texts) = content.iter().map(text).collect::<Option<Vec<_>>>() {
        return texts.join("\n").into();
    }
    let part = |part| image(part).or_else(|| Some(json!({"type": "text", "text": text(part)?})));
    content.iter().filter_map(part).collect()
}

fn image(part: &Content) -> Option<Value> {
    let Content::InputImage { image_url, detail } = part else { return None };
    let mut image = json!({"url": image_url});
    if let Some(detail) = detail {
        image["detail"] = detail.as_str().into();
    }
    Some(json!({"type": "image_url", "image_url": image}))
}
