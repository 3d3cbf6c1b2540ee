//! Conversations that the provider shortens.

use mooring_model::{Item, ModelErrorKind};
use mooring_testkit::Server;
use serde_json::json;

use crate::requests::sent;
use crate::support::{call, client, conversation};

/// What OpenAI puts in the place of what came before.
pub(crate) fn compaction_item() -> Item {
    serde_json::from_value(json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"}))
        .unwrap()
}

#[tokio::test]
async fn what_the_provider_has_shortened_is_not_sent_again() {
    let mut conversation = conversation();
    conversation.settings.compact_at = Some(100_000);
    let whole = sent("openai/gpt-5", &conversation).await.body;
    assert_eq!(whole["context_management"], json!([{"type": "compaction", "compact_threshold": 100_000}]));
    conversation.items.extend([compaction_item(), Item::user("one"), compaction_item(), Item::user("two")]);
    let body = sent("openai/gpt-5", &conversation).await.body;
    let last = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "two"}]});
    let verbatim = json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"});
    assert_eq!(body["input"], json!([verbatim, last]));
}

#[tokio::test]
async fn an_api_that_shortens_nothing_refuses_to_be_asked_for_it() {
    let server = Server::start([]).await.unwrap();
    let mut conversation = conversation();
    conversation.settings.compact_at = Some(100_000);
    for spec in ["chat/m", "anthropic/claude-opus-4-5"] {
        let error = call(&*client(spec, &server, 1), conversation.request()).await.1.unwrap_err();
        assert_eq!(error.kind, ModelErrorKind::Unsupported, "{spec}");
        assert!(error.to_string().contains("Leave `provider` out of [compaction]"), "{error}");
    }
}
