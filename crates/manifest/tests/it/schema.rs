//! The JSON Schema describes what we read.

use std::fs;
use std::path::Path;

use mooring_manifest::Manifest;
use serde_json::Value;

/// Follows references and alternatives as far as needed to see which keys a schema knows.
fn conforms(schema: &Value, root: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(Value::String(reference)) = schema.get("$ref") {
        let target =
            root.pointer(reference.trim_start_matches('#')).ok_or(format!("{at}: {reference} is missing"))?;
        return conforms(target, root, value, at);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(Value::Array(choices)) = schema.get(choice) {
            let fitting = choices.iter().filter(|choice| conforms(choice, root, value, at).is_ok()).count();
            return if fitting == 1 || (choice == "anyOf" && fitting > 0) {
                Ok(())
            } else {
                Err(format!("{at}: {fitting} alternatives fit {value}"))
            };
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{at}: not {}", schema["const"]));
    }
    if let Some(kind) = schema.get("type") {
        let name = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = kind == name || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == name));
        if !fits {
            return Err(format!("{at}: {name} instead of {kind}"));
        }
    }
    if let Some(Value::Array(keys)) = schema.get("required")
        && let Some(missing) = keys.iter().find(|key| value.get(key.as_str().unwrap()).is_none())
    {
        return Err(format!("{at}: {missing} is missing"));
    }
    if let Value::Object(map) = value {
        for (key, value) in map {
            let at = format!("{at}/{key}");
            let known = schema.pointer(&format!("/properties/{key}"));
            match known.or(schema.get("additionalProperties")) {
                Some(Value::Bool(false)) => return Err(format!("{at}: unknown")),
                Some(schema) => conforms(schema, root, value, &at)?,
                None => {}
            }
        }
    }
    if let (Value::Array(items), Some(schema)) = (value, schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            conforms(schema, root, item, &format!("{at}/{index}"))?;
        }
    }
    Ok(())
}

#[test]
fn everything_that_the_sdk_writes_conforms() {
    let schema = Manifest::schema();
    let valid = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/valid");
    for file in fs::read_dir(valid).unwrap() {
        let path = file.unwrap().path();
        let value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        conforms(&schema, &schema, &value, "").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn wrong_manifests_do_not_conform() {
    let schema = Manifest::schema();
    for text in [
        r#"{"entriez": {}}"#,
        r#"{"version": 2}"#,
        r#"{"entries": {"a": {"type": "symlink"}}}"#,
        r#"{"entries": {"a": {"type": "file"}}}"#,
        r#"{"entries": {"a": {"type": "file", "content": "", "mode": "0600"}}}"#,
        r#"{"entries": {"a": {"type": "dir", "children": {"b": {"type": "file", "content": 1}}}}}"#,
        r#"{"environment": {"A": "1"}}"#,
        r#"{"users": [{}]}"#,
    ] {
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(conforms(&schema, &schema, &value, "").is_err(), "{text}");
    }
}

#[test]
fn the_schema_is_as_reviewed() {
    insta::assert_json_snapshot!(Manifest::schema());
}
