//! Tool calls on the wires that have no items and no custom tools: Chat Completions and Anthropic Messages.

use serde_json::{Map, Value, json};

use crate::{Item, ModelRequest, ToolKind, ToolSpec};

/// The one argument of a custom tool that is offered as a function.
const INPUT: &str = "input";
/// Where malformed arguments go on a wire that takes nothing but an object.
const MALFORMED: &str = "malformed_arguments";

/// A tool's parameters as a JSON Schema.
pub(crate) fn parameters(tool: &ToolSpec) -> Value {
    match &tool.kind {
        ToolKind::Function { parameters, .. } => parameters.clone(),
        ToolKind::Custom { syntax, definition } => json!({
            "type": "object",
            "properties": {
                INPUT: {
                    "type": "string",
                    "description": format!("The whole input, after this {syntax} grammar:\n{definition}"),
                },
            },
            "required": [INPUT],
            "additionalProperties": false,
        }),
    }
}

/// The names of the custom tools of a request.
pub(crate) fn custom_tools(request: &ModelRequest<'_>) -> Vec<String> {
    let custom = request.tools.iter().filter(|tool| matches!(tool.kind, ToolKind::Custom { .. }));
    custom.map(|tool| tool.name.clone()).collect()
}

/// The item of a call that came as a function call. A custom tool's call becomes one again; where its arguments are
/// not as asked for, they are the input as they came, so that the tool can say what is wrong with them.
pub(crate) fn call(custom: &[String], call_id: String, name: String, arguments: String) -> Item {
    let extra = Map::new();
    if !custom.contains(&name) {
        return Item::FunctionCall { call_id, name, arguments, extra };
    }
    let input = match serde_json::from_str(&arguments) {
        Ok(Value::String(input)) => input,
        Ok(Value::Object(mut object)) => match object.remove(INPUT) {
            Some(Value::String(input)) => input,
            _ => arguments,
        },
        _ => arguments,
    };
    Item::CustomToolCall { call_id, name, input, extra }
}

/// The arguments of a custom tool's call, as the function that it was offered as.
pub(crate) fn custom_arguments(input: &str) -> Value {
    json!({ INPUT: input })
}

/// Arguments as an object, for a wire or a server that takes nothing else. A model's malformed arguments stay
/// readable to it.
pub(crate) fn arguments_object(arguments: &str) -> Value {
    if arguments.trim().is_empty() {
        return json!({});
    }
    match serde_json::from_str(arguments) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ => json!({ MALFORMED: arguments }),
    }
}
