//! Conversations that the provider shortens.

use mooring_model::{Item, ModelErrorKind};
use mooring_testkit::{Recorded, Server};
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
    let error = call(&*client("chat/m", &server, 1), conversation.request()).await.1.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Unsupported);
    assert!(error.to_string().contains("Leave `provider` out of [compaction]"), "{error}");
}

/// What Anthropic puts before what it goes on with.
pub(crate) fn compaction_block() -> Item {
    let block = json!({"type": "compaction", "content": "Two tests fail.", "encrypted_content": "EqQB"});
    serde_json::from_value(json!({"type": "anthropic:compaction", "anthropic": block})).unwrap()
}

#[tokio::test]
async fn anthropic_shortens_where_it_is_asked_to_and_gets_its_block_back() {
    let beta = |request: &Recorded| request.header("anthropic-beta").map(str::to_owned);
    let mut conversation = conversation();
    assert_eq!(beta(&sent("anthropic/claude-opus-4-7", &conversation).await), None);
    conversation.items.extend([compaction_block(), Item::assistant("I go on."), Item::user("Do.")]);
    // Also where another agent, which asks for nothing of the kind, goes on with such a conversation.
    let shortened = sent("anthropic/claude-opus-4-7", &conversation).await;
    assert_eq!(beta(&shortened).as_deref(), Some("compact-2026-01-12"));
    assert_eq!(shortened.body.get("context_management"), None);
    let turn = &shortened.body["messages"].as_array().unwrap().iter().rev().nth(1).unwrap()["content"];
    assert_eq!(
        turn[0],
        json!({"type": "compaction", "content": "Two tests fail.", "encrypted_content": "EqQB"})
    );

    conversation.settings.compact_at = Some(100_000);
    let asked = sent("anthropic/claude-opus-4-7", &conversation).await;
    let edit = json!({"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 100_000}});
    assert_eq!(asked.body["context_management"], json!({"edits": [edit]}));
}
