//! Items: what a conversation with a model is made of.

use serde::{Deserialize, Serialize};
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

/// The fields that a known item names; everything else is `extra`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Known {
    Message {
        role: Role,
        #[serde(deserialize_with = "text_or_parts")]
        content: Vec<Content>,
        #[serde(flatten)]
        extra: Map<String, Value>,
    },
    FunctionCall {
        call_id: String,
        name: String,
        arguments: String,
        #[serde(flatten)]
        extra: Map<String, Value>,
    },
    FunctionCallOutput {
        call_id: String,
        output: FunctionOutput,
        #[serde(flatten)]
        extra: Map<String, Value>,
    },
    CustomToolCall {
        call_id: String,
        name: String,
        input: String,
        #[serde(flatten)]
        extra: Map<String, Value>,
    },
    CustomToolCallOutput {
        call_id: String,
        output: FunctionOutput,
        #[serde(flatten)]
        extra: Map<String, Value>,
    },
    Reasoning {
        #[serde(flatten)]
        body: Map<String, Value>,
    },
}

/// `content` may be a bare string; that is one text part.
fn text_or_parts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Content>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Parts(Vec<Content>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Text(text) => vec![Content::InputText { text }],
        Either::Parts(parts) => parts,
    })
}

impl From<Known> for Item {
    fn from(known: Known) -> Self {
        match known {
            Known::Message { role, content, extra } => Self::Message { role, content, extra },
            Known::FunctionCall { call_id, name, arguments, extra } => {
                Self::FunctionCall { call_id, name, arguments, extra }
            }
            Known::FunctionCallOutput { call_id, output, extra } => {
                Self::FunctionCallOutput { call_id, output, extra }
            }
            Known::CustomToolCall { call_id, name, input, extra } => {
                Self::CustomToolCall { call_id, name, input, extra }
            }
            Known::CustomToolCallOutput { call_id, output, extra } => {
                Self::CustomToolCallOutput { call_id, output, extra }
            }
            Known::Reasoning { body } => Self::Reasoning { body },
        }
    }
}

impl Serialize for Item {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = match self.clone() {
            Self::Message { role, content, extra } => Known::Message { role, content, extra },
            Self::FunctionCall { call_id, name, arguments, extra } => {
                Known::FunctionCall { call_id, name, arguments, extra }
            }
            Self::FunctionCallOutput { call_id, output, extra } => {
                Known::FunctionCallOutput { call_id, output, extra }
            }
            Self::CustomToolCall { call_id, name, input, extra } => {
                Known::CustomToolCall { call_id, name, input, extra }
            }
            Self::CustomToolCallOutput { call_id, output, extra } => {
                Known::CustomToolCallOutput { call_id, output, extra }
            }
            Self::Reasoning { body } => Known::Reasoning { body },
            Self::Other(object) => return object.serialize(serializer),
        };
        known.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut object = Map::deserialize(deserializer)?;
        // A message may come without `type`, as the APIs allow on input.
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            None if object.contains_key("role") => {
                object.insert("type".into(), "message".into());
                "message".into()
            }
            _ => return Err(D::Error::missing_field("type")),
        };
        match kind.as_str() {
            "message"
            | "function_call"
            | "function_call_output"
            | "custom_tool_call"
            | "custom_tool_call_output"
            | "reasoning" => {
                let known: Known = serde_json::from_value(Value::Object(object)).map_err(D::Error::custom)?;
                Ok(known.into())
            }
            _ => Ok(Self::Other(object)),
        }
    }
}
