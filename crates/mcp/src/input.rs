//! A call that a server cannot go on with before a person has answered (`input_required`, protocol 2026-07-28).
//!
//! The protocol keeps no connection for it: the server says what it must know and hands over its own state, and the
//! call is made again with both. So the question can wait in the approvals inbox for as long as it takes, and be
//! answered from any process.

use std::collections::BTreeMap;

use mooring_capability::Question;
use rmcp::model::{CallToolRequestParams, InputRequest, InputRequiredResult};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The longest question that is shown, in bytes.
const LONGEST: usize = 8 * 1024;

/// What goes back to the server with the answer.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    /// The ids of its questions.
    ids: Vec<String>,
    /// Its own state, verbatim.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

/// The question to a person, or why it is none that a person could answer.
pub(crate) fn question(server: &str, tool: &str, required: InputRequiredResult) -> Result<Question, String> {
    let mut messages = Vec::new();
    let mut schemas = Map::new();
    let mut ids = Vec::new();
    for (id, request) in required.input_requests.unwrap_or_default() {
        let InputRequest::Elicitation(asked) = request else {
            return Err(
                "it asks for a model's answer or for directories of this machine, which is not offered"
                    .into(),
            );
        };
        let asked = serde_json::to_value(&asked.params)
            .map_err(|error| format!("its question cannot be read: {error}"))?;
        let mut message = asked["message"].as_str().unwrap_or_default().to_owned();
        if let Some(url) = asked["url"].as_str() {
            message += &format!(" (open {url}, then answer)");
        }
        message.truncate(message.floor_char_boundary(LONGEST));
        messages.push(message);
        if asked["requestedSchema"].is_object() {
            schemas.insert(id.clone(), asked["requestedSchema"].clone());
        }
        ids.push(id);
    }
    if ids.is_empty() {
        return Err("it asks for input and does not say for what".into());
    }
    // One question is answered by its content alone; several by an object with the content of each.
    let schema = match (ids.len(), schemas.len()) {
        (_, 0) => Value::Null,
        (1, _) => schemas.into_iter().next().map(|(_, schema)| schema).unwrap_or_default(),
        _ => json!({"type": "object", "required": schemas.keys().collect::<Vec<_>>(), "properties": schemas}),
    };
    Ok(Question {
        message: format!("{server}, tool {tool}, asks: {}", messages.join("; ")),
        schema,
        state: json!(Asked { ids, state: required.request_state }),
    })
}

/// Puts a person's answer into the call that is made again. `prepared` is what the harness gives back.
pub(crate) fn answer(params: CallToolRequestParams, prepared: &Value) -> CallToolRequestParams {
    let Ok(asked) = serde_json::from_value::<Asked>(prepared["state"].clone()) else { return params };
    let answer = &prepared["answer"];
    let response = |id: &String| {
        let content = if asked.ids.len() == 1 { &answer["content"] } else { &answer["content"][id] };
        let mut response = json!({"action": answer["action"]});
        if answer["action"] == "accept" && !content.is_null() {
            response["content"] = content.clone();
        }
        (id.clone(), response)
    };
    let responses: BTreeMap<String, Value> = asked.ids.iter().map(response).collect();
    let params = params.with_input_responses(responses);
    match asked.state {
        Some(state) => params.with_request_state(state),
        None => params,
    }
}
