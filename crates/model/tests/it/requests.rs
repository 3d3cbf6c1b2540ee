//! What goes over each wire: headers and body, for a conversation that holds all that a request can.

use mooring_model::{
    Item, ModelErrorKind, ModelOptions, ModelSpec, ReasoningEffort, Secret, Settings, connect,
};
use mooring_testkit::{Recorded, Reply, Server};
use serde_json::{Value, json};

use crate::support::{
    Conversation, KEY, bare_conversation, call, client, conversation, items, options, typed,
};

/// The request that this conversation makes.
pub(crate) async fn sent(spec: &str, conversation: &Conversation) -> Recorded {
    let server = Server::start([Reply::new(400)]).await.unwrap();
    let (_, outcome) = call(&*client(spec, &server, 1), conversation.request()).await;
    let mut requests = server.requests();
    assert_eq!(requests.len(), 1, "{outcome:?}");
    requests.remove(0)
}

fn shown(request: &Recorded) -> String {
    let headers =
        request.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length"));
    let headers: String =
        headers.map(|(name, value)| format!("{name}: {}\n", value.replace(KEY, "(the key)"))).collect();
    let body = serde_json::to_string_pretty(&request.body).unwrap();
    format!("{} {}\n{headers}\n{body}", request.method, request.path)
}

#[tokio::test]
async fn responses() {
    insta::assert_snapshot!(shown(&sent("openai/gpt-5", &conversation()).await));
}

#[tokio::test]
async fn chat() {
    insta::assert_snapshot!(shown(&sent("chat/Qwen/Qwen3-8B", &conversation()).await));
}

#[tokio::test]
async fn anthropic() {
    insta::assert_snapshot!(shown(&sent("anthropic/claude-sonnet-4-5", &conversation()).await));
}

#[tokio::test]
async fn a_base_url_may_end_as_people_write_it() {
    for (spec, ending, path) in [
        ("anthropic/m", "", "/v1/messages"),
        ("anthropic/m", "/v1/", "/v1/messages"),
        ("anthropic/m", "/proxy", "/proxy/v1/messages"),
        ("openai/m", "/v1/", "/v1/responses"),
        ("chat/m", "/openai/v1", "/openai/v1/chat/completions"),
    ] {
        let server = Server::start([Reply::new(400)]).await.unwrap();
        let options = options(&format!("{}{ending}", server.url()));
        let model = connect(&ModelSpec::parse(spec).unwrap(), &options).unwrap();
        let _ = call(&*model, conversation().request()).await;
        assert_eq!(server.requests()[0].path, path);
    }
}

/// The least that a request holds: nothing is sent that was not asked for.
#[tokio::test]
async fn bare_requests() {
    let mut all = Vec::new();
    for spec in ["openai/gpt-4.1", "openai/gpt-5", "chat/m", "anthropic/claude-opus-5"] {
        all.push(json!({spec: sent(spec, &bare_conversation()).await.body}));
    }
    insta::assert_json_snapshot!(all);
}

/// Who is asked to hold the model to a schema, and in which form.
#[tokio::test]
async fn typed_requests() {
    let mut all = Vec::new();
    let mut asked = Vec::new();
    for spec in ["openai/gpt-5", "chat/m", "anthropic/claude-opus-5", "anthropic/claude-3-5-haiku-latest"] {
        for (tools, conversation) in [("none", bare_conversation()), ("some", conversation())] {
            let body = sent(spec, &Conversation { output: Some(typed()), ..conversation }).await.body;
            let form = [&body["text"], &body["response_format"], &body["output_config"]["format"]];
            let form = form.into_iter().find(|form| !form.is_null()).cloned();
            asked.push((spec, tools, form.is_some()));
            if tools == "none"
                && let Some(form) = form
            {
                all.push(json!({spec: form}));
            }
        }
    }
    let expected = [
        ("openai/gpt-5", "none", true),
        ("openai/gpt-5", "some", true),
        ("chat/m", "none", true),
        ("chat/m", "some", false),
        ("anthropic/claude-opus-5", "none", true),
        ("anthropic/claude-opus-5", "some", true),
        ("anthropic/claude-3-5-haiku-latest", "none", false),
        ("anthropic/claude-3-5-haiku-latest", "some", false),
    ];
    assert_eq!(asked, expected);
    insta::assert_json_snapshot!(all);
}

#[tokio::test]
async fn efforts_of_anthropic_models() {
    let mut said = String::new();
    for model in
        ["claude-3-7-sonnet-latest", "claude-sonnet-4-20250514", "claude-haiku-4-5", "claude-opus-4-6"]
    {
        for effort in [ReasoningEffort::None, ReasoningEffort::Minimal, ReasoningEffort::High] {
            for max_output_tokens in [None, Some(3000), Some(1500)] {
                let mut conversation = conversation();
                conversation.items.truncate(13);
                conversation.settings =
                    Settings { reasoning_effort: Some(effort), max_output_tokens, ..Settings::default() };
                let body = sent(&format!("anthropic/{model}"), &conversation).await.body;
                said += &format!(
                    "{model} {effort:?} max_tokens {}: thinking {}, output_config {}\n",
                    body["max_tokens"], body["thinking"], body["output_config"]
                );
            }
        }
    }
    insta::assert_snapshot!(said);
}

/// A turn that began without thinking, as another model's does, goes on without it.
#[tokio::test]
async fn no_budget_in_the_middle_of_a_turn_without_thinking() {
    let mut conversation = conversation();
    assert_eq!(sent("anthropic/claude-opus-4-5", &conversation).await.body.get("thinking"), None);
    conversation.items.insert(14, Item::user("Now the next."));
    conversation.items.truncate(15);
    assert_eq!(
        sent("anthropic/claude-opus-4-5", &conversation).await.body["thinking"],
        json!({"type": "enabled", "budget_tokens": 2000})
    );
}

/// An answer goes back to its own provider as it came.
#[tokio::test]
async fn reasoning_returns_as_it_came() {
    let cases = [
        ("openai/gpt-5", "responses/tools"),
        ("openai/gpt-oss", "responses/sparse"),
        ("chat/m", "chat/vllm-reasoning"),
        ("anthropic/claude-opus-4-5", "anthropic/thinking-tools"),
        ("anthropic/claude-opus-4-5", "anthropic/server-tool"),
    ];
    let mut all = Vec::new();
    for (spec, fixture) in cases {
        let path = format!("{}/tests/fixtures/{fixture}.sse", env!("CARGO_MANIFEST_DIR"));
        let server =
            Server::start([Reply::stream(std::fs::read(path).unwrap()), Reply::new(400)]).await.unwrap();
        let model = client(spec, &server, 1);
        let mut conversation = conversation();
        conversation.items = vec![Item::user("Fix it.")];
        let answer = call(&*model, conversation.request()).await.1.unwrap();
        conversation.items.extend(answer.items);
        let _ = call(&*model, conversation.request()).await;
        let body = server.requests().remove(1).body;
        let turn = body["input"].as_array().or(body["messages"].as_array()).unwrap();
        all.push(json!({fixture: turn[1..].to_vec()}));
    }
    // Chat has its instructions first, so the user's message stands there too.
    insta::assert_json_snapshot!(all);
}

#[tokio::test]
async fn what_a_wire_cannot_carry_is_refused_and_not_dropped() {
    let cases = [
        ("chat/m", json!({"type": "compaction", "encrypted_content": "gA"})),
        ("anthropic/m", json!({"type": "compaction", "encrypted_content": "gA"})),
        ("openai/m", json!({"type": "anthropic:server_tool_use", "anthropic": {"type": "server_tool_use"}})),
        (
            "anthropic/m",
            json!({"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,x"}]}),
        ),
    ];
    let server = Server::start([]).await.unwrap();
    let mut said = String::new();
    for (spec, item) in cases {
        let mut conversation = conversation();
        conversation.items.extend(items(Value::Array(vec![item])));
        let (events, outcome) = call(&*client(spec, &server, 3), conversation.request()).await;
        let error = outcome.unwrap_err();
        let malformed = error.message.contains("malformed");
        let kind = if malformed { ModelErrorKind::InvalidRequest } else { ModelErrorKind::Unsupported };
        assert_eq!((events, error.kind), (vec![], kind));
        said += &format!("{error}\n");
    }
    assert_eq!(server.requests(), []);
    insta::assert_snapshot!(said);
}

/// OpenAI's Chat Completions take the hint for their cache; other servers may refuse what they do not know.
#[tokio::test]
async fn a_cache_key_goes_to_those_who_know_it() {
    let conversation = conversation();
    assert_eq!(sent("openai/m", &conversation).await.body["prompt_cache_key"], json!("run-7"));
    for other in ["chat/m", "anthropic/m"] {
        assert_eq!(sent(other, &conversation).await.body.get("prompt_cache_key"), None, "{other}");
    }
    // The server stands in for OpenAI's by being the proxy to it.
    let server = Server::start([Reply::new(400)]).await.unwrap();
    let at_openai = ModelOptions {
        proxy: Some(Secret::new(server.url())),
        tries: 1,
        ..options("http://api.openai.com/v1")
    };
    let model = connect(&ModelSpec::parse("chat/m").unwrap(), &at_openai).unwrap();
    let _ = call(&*model, conversation.request()).await;
    assert_eq!(server.requests()[0].body["prompt_cache_key"], json!("run-7"));
}
