//! Scripts for models.

use mooring::ScriptModel;
use serde_json::{Value, json};

/// A line in which the model calls tools: names and arguments.
pub(crate) fn calls(calls: &[(&str, Value)]) -> Value {
    let call = |(n, (name, arguments)): (usize, &(&str, Value))| json!({"type": "function_call", "call_id": format!("call_{n}"), "name": name, "arguments": arguments.to_string()});
    calls.iter().enumerate().map(call).collect()
}

/// A line in which it says something.
pub(crate) fn says(text: &str) -> Value {
    json!([{"type": "message", "role": "assistant", "content": text}])
}

pub(crate) fn script(lines: &[Value]) -> ScriptModel {
    named("script", lines)
}

/// A script of its own name: each name counts its answers by itself.
pub(crate) fn named(name: &str, lines: &[Value]) -> ScriptModel {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    ScriptModel::parse(name, &text.join("\n")).unwrap()
}
