//! JSON Schema: whether a text holds what a schema asks for.
//!
//! A crate of its own, since the validator behind it is heavy and moves fast: nothing else knows it. A schema is taken
//! as it stands: what it refers to must be in it, and its patterns are those of a matcher that takes linear time, so
//! that no text can stall a run.

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

/// How many errors are told of one text. A model that reads them mends what it can and is told of the rest.
const MOST_ERRORS: usize = 10;
/// How many characters of one error are told: it quotes what it is about.
const ERROR_WIDTH: usize = 300;

/// A schema that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no JSON Schema that can be used: {reason}. What it refers to must be in it, and its patterns must do \
     without look-around and back-references"
)]
pub struct SchemaError {
    /// What is wrong, and where.
    pub reason: String,
}

/// A schema to hold texts against.
#[derive(Debug)]
pub struct Schema(Validator);

impl Schema {
    /// A schema, checked whole.
    ///
    /// # Errors
    /// [`SchemaError`] where it is no schema, refers to something outside of it, or has a pattern that cannot be
    /// matched in linear time.
    pub fn new(schema: &Value) -> Result<Self, SchemaError> {
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        let built = options.build(schema);
        built.map(Self).map_err(|error| SchemaError { reason: told(&error) })
    }

    /// What is wrong with a text; nothing where it is JSON that the schema allows.
    pub fn errors(&self, text: &str) -> Vec<String> {
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => return vec![format!("it is not JSON: {error}")],
        };
        self.0.iter_errors(&value).take(MOST_ERRORS).map(|error| told(&error)).collect()
    }
}

/// An error with its place.
fn told(error: &ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let text = if place.is_empty() { error.to_string() } else { format!("{place}: {error}") };
    text.chars().take(ERROR_WIDTH).collect()
}
