//! What becomes of the parts of a result that no model can take.

use mooring_capability::ToolStatus;
use serde_json::json;

use crate::support::{call, connect_one, fake};

#[tokio::test]
async fn what_cannot_be_shown_is_named() {
    let servers = connect_one(fake(&[], "")).await;
    let mut texts = Vec::new();
    for content in [
        json!({"content": []}),
        json!({"content": [], "structuredContent": {"answer": 42}}),
        json!({"content": [{"type": "text", "text": "42"}], "structuredContent": {"answer": 42}}),
        json!({"content": [{"type": "text", "text": "it broke"}], "isError": true}),
        json!({"content": [{"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"}]}),
        json!({"content": [{"type": "image", "data": "%%%", "mimeType": "image/png"}]}),
        json!({"content": [{"type": "image", "data": "A".repeat(1 << 20), "mimeType": "image/png"}]}),
        json!({"content": [{"type": "audio", "data": "aGVsbG8=", "mimeType": "audio/wav"}]}),
        json!({"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}}]}),
        json!({"content": [{"type": "resource_link", "name": "a", "uri": "file:///a"}]}),
        json!({"content": [{"type": "hologram", "data": "x"}]}),
    ] {
        let result = call(&servers, "s__content", content).await;
        let sign = if result.status == ToolStatus::Completed { "done" } else { "failed" };
        texts.push(format!("{sign}: {}", result.output.text()));
    }
    insta::assert_snapshot!(texts.join("\n"));
}
