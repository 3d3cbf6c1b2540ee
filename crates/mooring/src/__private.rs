//! What `#[tool]` writes refers to this. Not for use by hand.

pub use mooring_capability::BoxFuture;
pub use schemars;
pub use serde;
pub use serde_json::Value;

use mooring_capability::{ToolInput, ToolResult};
use mooring_model::{ToolKind, ToolSpec};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;

/// The schema of a type, as models get it.
pub fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        // Not every provider follows references.
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Value::Object(fields) = &mut schema {
        // The type's name says nothing to a model.
        fields.remove("title");
    }
    schema
}

/// What a model gets to know of a tool with these arguments.
pub fn spec<T: JsonSchema>(name: &str, description: &str) -> ToolSpec {
    let mut parameters = schema::<T>();
    if let Value::Object(fields) = &mut parameters {
        fields.entry("properties").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    let kind = ToolKind::Function { parameters, strict: false };
    ToolSpec { name: name.to_owned(), description: description.to_owned(), kind }
}

/// A call's arguments, or what to tell the model.
///
/// # Errors
/// The result to give, where they do not fit.
pub fn arguments<T: DeserializeOwned>(tool: &str, input: &ToolInput) -> Result<T, ToolResult> {
    let read = match input {
        ToolInput::Json(value) => T::deserialize(value),
        ToolInput::Text(text) => serde_json::from_str(text),
    };
    read.map_err(|error| {
        ToolResult::failed(format!(
            "The arguments of {tool} do not fit: {error}. Call it again with arguments that do."
        ))
    })
}
