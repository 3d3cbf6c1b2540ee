//! Schemas against texts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use mooring_schema::Schema;
use serde_json::{Value, json};

fn errors(schema: &Value, text: &str) -> Vec<String> {
    Schema::new(schema).unwrap().errors(text)
}

#[test]
fn a_text_is_held_against_the_schema() {
    let schema = json!({
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}, "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}}},
        "required": ["n"],
        "additionalProperties": false,
        "$defs": {"tag": {"type": "string", "pattern": "^[a-z]+$"}},
    });
    assert_eq!(errors(&schema, r#"{"n": 1, "tags": ["a"]}"#), Vec::<String>::new());
    assert_eq!(
        errors(&schema, r#"{"n": 0, "tags": ["a", "B"], "more": true}"#),
        [
            "/n: 0 is less than the minimum of 1",
            r#"/tags/1: "B" does not match "^[a-z]+$""#,
            "Additional properties are not allowed ('more' was unexpected)",
        ]
    );
    assert_eq!(errors(&schema, "{}"), [r#""n" is a required property"#]);
    assert_eq!(errors(&schema, "```json\n{}\n```"), ["it is not JSON: expected value at line 1 column 1"]);
}

#[test]
fn what_is_told_has_limits() {
    let all = vec!["x".repeat(1000); 100];
    let told = errors(&json!({"items": {"type": "integer"}}), &json!(all).to_string());
    assert_eq!(told.len(), 10);
    assert!(told.iter().all(|error| error.chars().count() <= 300));
}

#[test]
fn a_schema_that_cannot_be_used_is_refused() {
    for schema in [
        json!({"type": "objekt"}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"pattern": "(?=a)"}),
        json!(7),
    ] {
        let error = Schema::new(&schema).unwrap_err();
        assert!(error.to_string().starts_with("it is no JSON Schema that can be used: "), "{error}");
    }
}
