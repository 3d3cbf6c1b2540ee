//! A model that answers from a file: for demonstrations without a key, for tests, for measuring everything else.
//!
//! The file is JSONL. Each line is one response: the `output` array of an Open Responses response, or
//! `{"output": […], "usage": {…}}`. Blank lines are skipped. It is read and checked whole before the first call, so
//! that a mistake on its last line does not end a run half way. A call is answered by its ordinal and not by a
//! cursor kept here: a resumed run goes on where it was, and two runs can share one script.

use std::collections::HashSet;
use std::path::Path;

use futures::stream;
use serde::Deserialize;

use crate::responses::WireUsage;
use crate::{
    Capture, Content, Item, ModelClient, ModelError, ModelErrorKind, ModelEvent, ModelRequest, ModelResponse,
    ModelStream, Role, StopReason, Usage,
};

/// A model with its answers written down.
#[derive(Debug)]
pub struct ScriptModel {
    name: String,
    responses: Vec<ModelResponse>,
}

impl ScriptModel {
    /// Reads and checks a script.
    ///
    /// # Errors
    /// [`ModelErrorKind::Script`] where the file cannot be read, holds no response, or a line is malformed; names
    /// file, line and column.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let name = format!("script:{}", path.display());
        let text = fs_err::read_to_string(path).map_err(|error| {
            ModelError::new(ModelErrorKind::Script, &name, error.to_string())
                .hint("Give the path of a JSONL file with one response a line")
        })?;
        Self::read(name, &path.display().to_string(), &text)
    }

    /// Checks a script that the program holds itself, in the same form; `name` is what [`ModelClient::name`] gives.
    ///
    /// # Errors
    /// [`ModelErrorKind::Script`] where it holds no response, or a line is malformed; names line and column.
    pub fn parse(name: impl Into<String>, script: &str) -> Result<Self, ModelError> {
        Self::read(name.into(), "script", script)
    }

    fn read(name: String, place: &str, text: &str) -> Result<Self, ModelError> {
        let mut responses = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let response = parse_line(line, &name).map_err(|(column, message)| {
                let place = format!("{place}:{}:{column}", index + 1);
                ModelError::new(ModelErrorKind::Script, &name, format!("{place}: {message}")).hint(
                    "A line is the `output` array of one response, or {\"output\": […], \"usage\": {…}}",
                )
            })?;
            responses.push(response);
        }
        if responses.is_empty() {
            let message = format!("{place}:1:1: the script holds no response");
            return Err(ModelError::new(ModelErrorKind::Script, name, message)
                .hint("Write one response a line: [{\"type\": \"message\", \"role\": \"assistant\", \"content\": \"Hello\"}]"));
        }
        Ok(Self { name, responses })
    }

    /// A script from responses made by the program itself; `name` is what [`ModelClient::name`] gives.
    pub fn from_responses(name: impl Into<String>, responses: Vec<ModelResponse>) -> Self {
        Self { name: name.into(), responses }
    }

    fn answer(&self, ordinal: u64) -> Result<ModelResponse, ModelError> {
        let found = usize::try_from(ordinal).ok().and_then(|index| self.responses.get(index));
        found.cloned().ok_or_else(|| {
            let message = format!(
                "the script ends after {} responses, and the run asks for number {}",
                self.responses.len(),
                ordinal.saturating_add(1)
            );
            ModelError::new(ModelErrorKind::Script, &self.name, message)
                .hint("Add a line with the next response; the last one of a run calls no tool")
        })
    }
}

impl ModelClient for ScriptModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        let events = match self.answer(request.ordinal) {
            Ok(response) => {
                let mut events: Vec<_> = response.items.iter().filter_map(shown).map(Ok).collect();
                events.push(Ok(ModelEvent::Completed(Box::new(response))));
                events
            }
            Err(error) => vec![Err(error)],
        };
        Box::pin(stream::iter(events))
    }
}

/// What a person sees of an item while it comes.
fn shown(item: &Item) -> Option<ModelEvent> {
    match item {
        Item::Message { .. } => Some(ModelEvent::TextDelta(item.text())),
        Item::FunctionCall { name, .. } | Item::CustomToolCall { name, .. } => {
            Some(ModelEvent::ToolCallStarted { name: name.clone() })
        }
        Item::Reasoning { .. } => {
            Some(item.reasoning_text()).filter(|text| !text.is_empty()).map(ModelEvent::ReasoningDelta)
        }
        Item::FunctionCallOutput { .. } | Item::CustomToolCallOutput { .. } | Item::Other(_) => None,
    }
}

/// The longer form of a line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an array of items, or an object with `output`")]
struct Line {
    output: Vec<Item>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

/// A response, or the column and what is wrong there.
fn parse_line(line: &str, model: &str) -> Result<ModelResponse, (usize, String)> {
    let malformed = |error: serde_json::Error| {
        // serde_json adds ` at line 1 column N`; the line is ours to say.
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        (error.column().max(1), message.to_owned())
    };
    let line = if line.trim_start().starts_with('[') {
        Line { output: serde_json::from_str(line).map_err(malformed)?, usage: None }
    } else {
        serde_json::from_str::<Line>(line).map_err(malformed)?
    };
    let items: Vec<Item> = line.output.into_iter().map(as_output).collect();
    check(&items).map_err(|message| (1, message))?;
    Ok(ModelResponse {
        id: None,
        model: model.to_owned(),
        items,
        usage: line.usage.map(Usage::from).unwrap_or_default(),
        stop_reason: StopReason::Stop,
        capture: Capture::default(),
    })
}

/// A bare string is read as text for the model; in an assistant's message it is text from it.
fn as_output(item: Item) -> Item {
    match item {
        Item::Message { role: Role::Assistant, content, extra } => {
            let content = content.into_iter().map(|part| match part {
                Content::InputText { text } => Content::OutputText { text, extra: serde_json::Map::new() },
                other => other,
            });
            Item::Message { role: Role::Assistant, content: content.collect(), extra }
        }
        other => other,
    }
}

/// What a model cannot have said, and what could not be answered.
fn check(items: &[Item]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let number = index + 1;
        match item {
            Item::FunctionCall { call_id, name, .. } | Item::CustomToolCall { call_id, name, .. } => {
                if call_id.is_empty() || name.is_empty() {
                    return Err(format!("item {number}: a tool call needs a `call_id` and a `name`"));
                }
                if !seen.insert(call_id) {
                    return Err(format!("item {number}: the call id `{call_id}` is there twice"));
                }
            }
            Item::Message { role: Role::Assistant, .. } | Item::Reasoning { .. } | Item::Other(_) => {}
            Item::Message { .. } => {
                return Err(format!("item {number}: a message of a response has the role `assistant`"));
            }
            Item::FunctionCallOutput { .. } | Item::CustomToolCallOutput { .. } => {
                return Err(format!(
                    "item {number}: a model calls tools; their outputs come from the sandbox"
                ));
            }
        }
    }
    Ok(())
}
