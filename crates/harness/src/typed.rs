//! Typed output: an answer that must be JSON after a schema.
//!
//! The schema is in the instructions and in the request, so that a provider that can hold the model to it does. What
//! comes back is checked here whatever the provider promised, and what is wrong with it goes back to the model a few
//! times before the run fails.

use mooring_model::{Item, OutputSchema};
use mooring_schema::{Schema, SchemaError};
use serde::{Deserialize, Serialize};

/// What an agent's last answer must look like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypedOutput {
    /// The schema, and whether providers are asked to enforce it.
    #[serde(flatten)]
    pub form: OutputSchema,
    /// How often in a row the model may mend its answer.
    pub repairs: u64,
}

impl TypedOutput {
    /// How often a model may mend its answer where nobody says.
    pub const REPAIRS: u64 = 2;

    /// An output after this schema, with the usual number of repairs.
    pub fn new(form: OutputSchema) -> Self {
        Self { form, repairs: Self::REPAIRS }
    }

    /// Whether the schema can be used.
    ///
    /// # Errors
    /// [`SchemaError`] where it cannot.
    pub fn usable(&self) -> Result<(), SchemaError> {
        Schema::new(&self.form.schema).map(drop)
    }

    /// Instructions that ask for it; the same where they do already.
    pub(crate) fn instruct(&self, instructions: String) -> String {
        let ask = format!(
            "# Your last answer\n\nAnswer with JSON after this JSON Schema, and with nothing else: no words around it, \
             no code fence.\n\n{}",
            self.form.schema
        );
        match instructions.trim_end() {
            "" => ask,
            told if told.ends_with(&ask) => instructions,
            told => format!("{told}\n\n{ask}"),
        }
    }

    /// What is wrong with an answer.
    pub(crate) fn errors(&self, answer: &str) -> Vec<String> {
        match Schema::new(&self.form.schema) {
            Ok(schema) => schema.errors(answer),
            Err(error) => vec![error.to_string()],
        }
    }

    /// What the model is told of its answer.
    pub(crate) fn repair(errors: &[String]) -> Item {
        let errors: Vec<String> = errors.iter().map(|error| format!("- {error}")).collect();
        let errors = errors.join("\n");
        Item::user(format!(
            "Your answer is not as the JSON Schema in your instructions wants it:\n\n{errors}\n\nAnswer again, whole, with \
             the JSON alone."
        ))
    }
}
