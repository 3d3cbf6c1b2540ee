//! What an agent file says about checks: guardrails, and the schema of the answer.

use std::path::{Path, PathBuf};

use mooring_harness::{GuardrailSpec, Policy, Rule, TypedOutput, glob};
use mooring_model::OutputSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::agent_file::{AgentFile, directory};
use crate::command_error::CommandError;

/// What rules may call a sandbox.
const SANDBOXES: [&str; 3] = ["local", "docker", "none"];

/// A JSON Schema by path or in place.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected the path of a JSON Schema, or the schema itself as a table")]
pub(crate) enum SchemaField {
    /// Relative to the agent file.
    Path(PathBuf),
    /// In place.
    Inline(toml::Table),
}

/// Refuses guardrails that cannot be as they are written.
pub(crate) fn refuse_guardrails(guardrails: &[GuardrailSpec], path: &Path) -> Result<(), CommandError> {
    let problem = |spec: &GuardrailSpec| {
        let nothing = spec.pattern.is_none() && spec.agent.is_none();
        let looks = || format!("guardrail '{}' needs a `pattern` or an `agent` to look with", spec.name);
        spec.problem().or_else(|| nothing.then(looks))
    };
    match guardrails.iter().find_map(problem) {
        None => Ok(()),
        Some(problem) => Err(CommandError::input(format!("{}: guardrails: {problem}", path.display()))),
    }
}

/// Refuses rules that could never match: a misspelt word would allow what it was to forbid.
pub(crate) fn refuse_rules(policy: &Policy, path: &Path) -> Result<(), CommandError> {
    for (number, rule) in (1..).zip(&policy.rules) {
        for (field, pattern, words) in
            [("sandbox", &rule.sandbox, &SANDBOXES[..]), ("read", &rule.read, &Rule::READ[..])]
        {
            let Some(pattern) = pattern else { continue };
            if !words.iter().any(|word| glob(pattern, word)) {
                return Err(CommandError::input(format!(
                    "{}: rule {number} of the policy never matches: {field} is {}, and not '{pattern}'",
                    path.display(),
                    words.join(", ")
                )));
            }
        }
    }
    Ok(())
}

/// What the agent's answer must look like.
pub(crate) fn typed_output(file: &AgentFile, path: &Path) -> Result<Option<TypedOutput>, CommandError> {
    let wrong = |reason: &dyn std::fmt::Display| {
        CommandError::input(format!("{}: output_schema: {reason}", path.display()))
    };
    let schema: Value = match &file.output_schema {
        None if file.output_repairs.is_some() || file.output_strict.is_some() => {
            return Err(wrong(&"output_repairs and output_strict are about a schema, and there is none"));
        }
        None => return Ok(None),
        Some(SchemaField::Inline(table)) => serde_json::to_value(table).map_err(|error| wrong(&error))?,
        Some(SchemaField::Path(schema)) => {
            let schema = directory(path)?.join(schema);
            let text = fs_err::read_to_string(&schema).map_err(|error| wrong(&error))?;
            serde_json::from_str(&text)
                .map_err(|error| wrong(&format!("{} is not JSON: {error}", schema.display())))?
        }
    };
    let form = OutputSchema { schema, strict: file.output_strict.unwrap_or(true) };
    let typed = TypedOutput { form, repairs: file.output_repairs.unwrap_or(TypedOutput::REPAIRS) };
    typed.usable().map_err(|error| wrong(&error))?;
    Ok(Some(typed))
}
