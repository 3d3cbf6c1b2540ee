//! Items: what a conversation with a model is made of.

use serde::de::{DeserializeOwned, Error};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person or program that uses the agent.
    User,
    /// The model.
    Assistant,
    /// Instructions above the user's.
    System,
    /// Instructions above the user's, in OpenAI's newer word.
    Developer,
}

/// A part of a message or of a tool's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Text that goes to the model.
    InputText {
        /// The text.
        text: String,
    },
    /// An image that goes to the model.
    InputImage {
        /// An `https:` or `data:` URL.
        image_url: String,
        /// `auto`, `low` or `high`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// Text that came from the model.
    OutputText {
        /// The text.
        text: String,
        /// Citations and whatever else came with it, verbatim.
        #[serde(flatten)]
        extra: Map<String, Value>,
    },
    /// The model declined.
    Refusal {
        /// Its words.
        refusal: String,
    },
}

/// What a tool gave back: text, or parts where it is more than text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FunctionOutput {
    /// Plain text.
    Text(String),
    /// Text and images.
    Parts(Vec<Content>),
}

impl FunctionOutput {
    /// All of its text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => {
                let texts = parts.iter().filter_map(|part| match part {
                    Content::InputText { text } | Content::OutputText { text, .. } => Some(text.as_str()),
                    Content::InputImage { .. } | Content::Refusal { .. } => None,
                });
                texts.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// One item of a conversation, in the wire form of Open Responses.
///
/// `extra` holds every field that came and is not named here, so that an item goes back to its provider as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `message`: text of a person, the model, or the system.
    Message {
        /// Who wrote it.
        role: Role,
        /// Its parts.
        content: Vec<Content>,
        /// `id`, `status` and the like.
        extra: Map<String, Value>,
    },
    /// `function_call`: the model calls a tool with JSON arguments.
    FunctionCall {
        /// Ties the call to its output.
        call_id: String,
        /// The tool.
        name: String,
        /// JSON, as the model wrote it; it may be malformed.
        arguments: String,
        /// `id`, `status` and the like.
        extra: Map<String, Value>,
    },
    /// `function_call_output`: what the tool gave.
    FunctionCallOutput {
        /// Of which call.
        call_id: String,
        /// What it gave.
        output: FunctionOutput,
        /// `id`, `status` and the like.
        extra: Map<String, Value>,
    },
    /// `custom_tool_call`: the model calls a tool with free text.
    CustomToolCall {
        /// Ties the call to its output.
        call_id: String,
        /// The tool.
        name: String,
        /// The text.
        input: String,
        /// `id`, `status` and the like.
        extra: Map<String, Value>,
    },
    /// `custom_tool_call_output`: what the tool gave.
    CustomToolCallOutput {
        /// Of which call.
        call_id: String,
        /// What it gave.
        output: FunctionOutput,
        /// `id`, `status` and the like.
        extra: Map<String, Value>,
    },
    /// `reasoning`: what the model thought, in readable form where the provider shows it. `body` is the whole item
    /// but for its `type`: `summary`, `content`, `encrypted_content`. A thinking block of Anthropic's lies under
    /// `anthropic` as it came, signature included, and only that provider gets it back. Likewise the fields
    /// that a Chat Completions server adds (`reasoning_content`, `reasoning`) under `chat`.
    Reasoning {
        /// All of its fields.
        body: Map<String, Value>,
    },
    /// An item that this version does not know, verbatim with its `type`.
    Other(Map<String, Value>),
}

/// What a person says.
impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Self::user(text)
    }
}

/// What a person says.
impl From<String> for Item {
    fn from(text: String) -> Self {
        Self::user(text)
    }
}

impl Item {
    /// A user's text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::Message {
            role: Role::User,
            content: vec![Content::InputText { text: text.into() }],
            extra: Map::new(),
        }
    }

    /// A model's text.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::Message {
            role: Role::Assistant,
            content: vec![Content::OutputText { text: text.into(), extra: Map::new() }],
            extra: Map::new(),
        }
    }

    /// The text of a message; empty for other items.
    pub fn text(&self) -> String {
        let Self::Message { content, .. } = self else { return String::new() };
        let texts = content.iter().filter_map(|part| match part {
            Content::InputText { text } | Content::OutputText { text, .. } => Some(text.as_str()),
            Content::Refusal { refusal } => Some(refusal.as_str()),
            Content::InputImage { .. } => None,
        });
        texts.collect::<Vec<_>>().join("")
    }

    /// What of the model's reasoning can be read; empty where the provider hides it, and for other items.
    pub fn reasoning_text(&self) -> String {
        let Self::Reasoning { body } = self else { return String::new() };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let parts = |key: &str| {
            let parts = body.get(key).and_then(Value::as_array).into_iter().flatten();
            parts.filter_map(|part| text(&part["text"])).collect::<Vec<_>>().join("\n\n")
        };
        let readable = [
            body.get("anthropic").and_then(|block| text(&block["thinking"])).unwrap_or_default(),
            body.get("chat")
                .and_then(|fields| fields.as_object()?.values().find_map(text))
                .unwrap_or_default(),
            parts("content"),
            parts("summary"),
        ];
        readable.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let extra = match self {
            Self::Message { role, content, extra } => {
                map.serialize_entry("type", "message")?;
                map.serialize_entry("role", role)?;
                map.serialize_entry("content", content)?;
                extra
            }
            Self::FunctionCall { call_id, name, arguments, extra } => {
                map.serialize_entry("type", "function_call")?;
                map.serialize_entry("call_id", call_id)?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("arguments", arguments)?;
                extra
            }
            Self::FunctionCallOutput { call_id, output, extra } => {
                map.serialize_entry("type", "function_call_output")?;
                map.serialize_entry("call_id", call_id)?;
                map.serialize_entry("output", output)?;
                extra
            }
            Self::CustomToolCall { call_id, name, input, extra } => {
                map.serialize_entry("type", "custom_tool_call")?;
                map.serialize_entry("call_id", call_id)?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("input", input)?;
                extra
            }
            Self::CustomToolCallOutput { call_id, output, extra } => {
                map.serialize_entry("type", "custom_tool_call_output")?;
                map.serialize_entry("call_id", call_id)?;
                map.serialize_entry("output", output)?;
                extra
            }
            Self::Reasoning { body } => {
                map.serialize_entry("type", "reasoning")?;
                body
            }
            Self::Other(object) => object,
        };
        for (name, value) in extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut extra = Map::deserialize(deserializer)?;
        let kind = match extra.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            // A message may come without `type`, as the APIs allow on input.
            None if extra.contains_key("role") => "message".to_owned(),
            _ => return Err(D::Error::missing_field("type")),
        };
        Ok(match kind.as_str() {
            "message" => Self::Message {
                role: take(&mut extra, "role")?,
                content: take::<TextOrParts, _>(&mut extra, "content")?.parts(),
                extra: untyped(extra),
            },
            "function_call" => Self::FunctionCall {
                call_id: take(&mut extra, "call_id")?,
                name: take(&mut extra, "name")?,
                arguments: take(&mut extra, "arguments")?,
                extra: untyped(extra),
            },
            "function_call_output" => Self::FunctionCallOutput {
                call_id: take(&mut extra, "call_id")?,
                output: take(&mut extra, "output")?,
                extra: untyped(extra),
            },
            "custom_tool_call" => Self::CustomToolCall {
                call_id: take(&mut extra, "call_id")?,
                name: take(&mut extra, "name")?,
                input: take(&mut extra, "input")?,
                extra: untyped(extra),
            },
            "custom_tool_call_output" => Self::CustomToolCallOutput {
                call_id: take(&mut extra, "call_id")?,
                output: take(&mut extra, "output")?,
                extra: untyped(extra),
            },
            "reasoning" => Self::Reasoning { body: untyped(extra) },
            _ => Self::Other(extra),
        })
    }
}

/// A field that the item must have.
fn take<T: DeserializeOwned, E: Error>(object: &mut Map<String, Value>, name: &'static str) -> Result<T, E> {
    let value = object.shift_remove(name).ok_or_else(|| E::missing_field(name))?;
    T::deserialize(value).map_err(|error| E::custom(format!("{name}: {error}")))
}

/// What is left of the object, but for its `type`.
fn untyped(mut object: Map<String, Value>) -> Map<String, Value> {
    object.shift_remove("type");
    object
}

/// `content` may be a bare string; that is one text part.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrParts {
    Text(String),
    Parts(Vec<Content>),
}

impl TextOrParts {
    fn parts(self) -> Vec<Content> {
        match self {
            Self::Text(text) => vec![Content::InputText { text }],
            Self::Parts(parts) => parts,
        }
    }
}
