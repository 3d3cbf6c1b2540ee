//! Schemas as providers enforce them.
//!
//! A provider that holds its sampler to a schema takes a part of JSON Schema only: every property is required, and
//! nothing else is allowed. A schema is narrowed to that where it can be; where it cannot, as where it allows properties
//! that it does not name, there is no strict form. A constraint on values that a provider does not take is left out of
//! its form: the answer is checked against the schema as its author wrote it in any case.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How deep a schema may be nested, and how many schemas may be in it.
const DEPTH: usize = 10;
const SCHEMAS: usize = 5000;

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputSchema {
    /// A JSON Schema.
    pub schema: Value,
    /// Whether the provider is asked to hold the model to it, where it can.
    pub strict: bool,
}

/// Who enforces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
}

impl OutputSchema {
    /// The schema in the form that a provider can enforce; `None` where there is none, or it is not to be enforced.
    pub(crate) fn strict_form(&self, dialect: Dialect) -> Option<Value> {
        // An answer is an object at every provider.
        if !self.strict || self.schema["type"] != "object" {
            return None;
        }
        // Anthropic takes no schema that refers to itself.
        if dialect == Dialect::Anthropic && endless(&self.schema, &self.schema, 0, &mut SCHEMAS.clone()) {
            return None;
        }
        let mut narrowing = Narrowing { dialect, left: SCHEMAS };
        narrowing.schema(self.schema.as_object()?, 0)
    }
}

/// Whether a schema, with what it refers to in its place, comes to no end.
fn endless(schema: &Value, root: &Value, depth: usize, left: &mut usize) -> bool {
    let Some(fewer) = left.checked_sub(1).filter(|_| depth <= 8 * DEPTH) else { return true };
    *left = fewer;
    match schema {
        Value::Object(fields) => fields.iter().any(|(keyword, value)| match value {
            Value::String(place) if keyword == "$ref" => {
                let target = place.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
                target.is_none_or(|target| endless(target, root, depth + 1, left))
            }
            value => endless(value, root, depth + 1, left),
        }),
        Value::Array(schemas) => schemas.iter().any(|schema| endless(schema, root, depth + 1, left)),
        _ => false,
    }
}

struct Narrowing {
    dialect: Dialect,
    /// How many more schemas there may be.
    left: usize,
}

impl Narrowing {
    fn schema(&mut self, schema: &Map<String, Value>, depth: usize) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        if depth > DEPTH {
            return None;
        }
        let mut strict = Map::new();
        let mut optional = Vec::new();
        for (keyword, value) in schema {
            match keyword.as_str() {
                "type" | "enum" | "const" | "$ref" | "description" | "title" => {
                    strict.insert(keyword.clone(), value.clone());
                }
                "properties" | "$defs" | "definitions" => {
                    strict.insert(keyword.clone(), self.named(value, depth)?);
                }
                "items" => {
                    strict.insert("items".into(), self.schema(value.as_object()?, depth + 1)?);
                }
                // That a value fits only one of them is left to the check.
                "anyOf" | "oneOf" => {
                    if strict.contains_key("anyOf") || depth == 0 {
                        return None;
                    }
                    let mut any = Vec::new();
                    for schema in value.as_array()? {
                        any.push(self.schema(schema.as_object()?, depth + 1)?);
                    }
                    strict.insert("anyOf".into(), any.into());
                }
                "required" | "$schema" | "$id" | "$comment" | "default" | "examples" | "deprecated"
                | "readOnly" | "writeOnly" => {}
                "additionalProperties" if *value == Value::Bool(false) => {}
                "pattern" | "format" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum"
                | "multipleOf" | "minItems" | "maxItems" | "minLength" | "maxLength" => {
                    optional.push((keyword, value));
                }
                // Whatever else is said might not be enforced, or refuse the request.
                _ => return None,
            }
        }
        for (keyword, value) in optional {
            if self.takes(keyword, value) {
                strict.insert(keyword.clone(), value.clone());
            }
        }
        let is_object = match &strict.get("type") {
            Some(Value::String(one)) => one == "object",
            Some(Value::Array(several)) => several.iter().any(|one| one == "object"),
            _ => false,
        };
        if is_object {
            let names: Vec<Value> = match strict.get("properties") {
                Some(Value::Object(properties)) => properties.keys().cloned().map(Value::from).collect(),
                _ => Vec::new(),
            };
            strict.entry("properties").or_insert_with(|| json!({}));
            strict.insert("required".into(), names.into());
            strict.insert("additionalProperties".into(), false.into());
        } else if strict.contains_key("properties") {
            return None;
        }
        let says =
            ["type", "enum", "const", "$ref", "anyOf"].iter().any(|keyword| strict.contains_key(*keyword));
        // A reference stands alone.
        let alone = !strict.contains_key("$ref") || strict.len() == 1;
        (says && alone).then_some(Value::Object(strict))
    }

    fn named(&mut self, schemas: &Value, depth: usize) -> Option<Value> {
        let mut strict = Map::new();
        for (name, schema) in schemas.as_object()? {
            strict.insert(name.clone(), self.schema(schema.as_object()?, depth + 1)?);
        }
        Some(Value::Object(strict))
    }

    /// Whether the provider takes a constraint. Left out, it is only checked afterwards.
    fn takes(&self, keyword: &str, value: &Value) -> bool {
        let format = || {
            const FORMATS: &[&str] =
                &["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];
            value.as_str().is_some_and(|format| FORMATS.contains(&format))
        };
        match (self.dialect, keyword) {
            (_, "format") => format(),
            (Dialect::OpenAi, "minLength" | "maxLength") => false,
            (Dialect::OpenAi, _) => true,
            (Dialect::Anthropic, "minItems") => *value == 0 || *value == 1,
            (Dialect::Anthropic, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(schema: Value, dialect: Dialect) -> Option<Value> {
        OutputSchema { schema, strict: true }.strict_form(dialect)
    }

    #[test]
    fn a_schema_is_narrowed_to_what_providers_enforce() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "pattern": "^a", "format": "uuid", "default": null},
                "kind": {"oneOf": [{"const": "a"}, {"$ref": "#/$defs/b"}]},
                "list": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2},
            },
            "required": ["name"],
            "$defs": {"b": {"type": ["object", "null"], "properties": {"x": {"type": "number"}}}},
        });
        let openai = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^a", "format": "uuid"},
                "kind": {"anyOf": [{"const": "a"}, {"$ref": "#/$defs/b"}]},
                "list": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2},
            },
            "$defs": {"b": {
                "type": ["object", "null"],
                "properties": {"x": {"type": "number"}},
                "required": ["x"],
                "additionalProperties": false,
            }},
            "required": ["name", "kind", "list"],
            "additionalProperties": false,
        });
        assert_eq!(strict(schema.clone(), Dialect::OpenAi), Some(openai.clone()));
        let mut anthropic = openai;
        anthropic["properties"]["name"] = json!({"type": "string", "format": "uuid"});
        anthropic["properties"]["list"] = json!({"type": "array", "items": {"type": "integer"}});
        assert_eq!(strict(schema, Dialect::Anthropic), Some(anthropic));
    }

    #[test]
    fn what_cannot_be_narrowed_has_no_strict_form() {
        let with = |schema: Value| json!({"type": "object", "properties": {"x": schema}});
        for schema in [
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "object", "anyOf": [{"type": "object"}]}),
            with(json!({"type": "object", "additionalProperties": true})),
            with(json!({"type": "object", "additionalProperties": {"type": "string"}})),
            with(json!({"type": "object", "patternProperties": {"a": {"type": "string"}}})),
            with(json!({"not": {"type": "string"}})),
            with(json!({"allOf": [{"type": "string"}, {"minLength": 1}]})),
            with(json!(true)),
            with(json!({})),
            with(json!({"$ref": "#", "description": "both"})),
        ] {
            assert_eq!(strict(schema.clone(), Dialect::OpenAi), None, "{schema}");
        }
        let tree =
            json!({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}});
        assert!(strict(tree.clone(), Dialect::OpenAi).is_some());
        assert_eq!(strict(tree, Dialect::Anthropic), None);
        let off = OutputSchema { schema: with(json!({"type": "null"})), strict: false };
        assert_eq!(off.strict_form(Dialect::OpenAi), None);
    }
}
