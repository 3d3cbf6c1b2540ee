//! Recorded streams of each protocol: what a person is shown, and the whole response.

use mooring_testkit::{Reply, Server};

use crate::support::{call, client, conversation};

async fn read(spec: &str, fixture: &str) -> String {
    let path = format!("{}/tests/fixtures/{fixture}.sse", env!("CARGO_MANIFEST_DIR"));
    let server = Server::start([Reply::stream(std::fs::read(path).unwrap())]).await.unwrap();
    let model = client(spec, &server, 1);
    let conversation = conversation();
    let (events, outcome) = call(&*model, conversation.request()).await;
    let events: String = events.iter().map(|event| format!("{event:?}\n")).collect();
    format!("{events}\n{}", serde_json::to_string_pretty(&outcome.unwrap()).unwrap())
}

macro_rules! recorded {
    ($($test:ident: $spec:literal, $fixture:literal;)*) => {$(
        #[tokio::test]
        async fn $test() {
            insta::assert_snapshot!(read($spec, $fixture).await);
        }
    )*};
}

recorded! {
    responses_text: "openai/m", "responses/text";
    responses_reasoning_and_calls: "openai/m", "responses/tools";
    responses_cut_by_the_token_limit: "openai/m", "responses/incomplete";
    responses_refusal: "openai/m", "responses/refusal";
    responses_with_nothing_in_the_last_event: "openai/m", "responses/sparse";
    chat_text_from_openai: "chat/m", "chat/openai-text";
    chat_calls_from_openai: "chat/m", "chat/openai-tools";
    chat_reasoning_and_tokens_from_vllm: "chat/m", "chat/vllm-reasoning";
    chat_calls_from_ollama: "chat/m", "chat/ollama-tools";
    chat_from_a_loose_server: "chat/m", "chat/loose";
    chat_refusal: "chat/m", "chat/filtered";
    anthropic_text: "anthropic/m", "anthropic/text";
    anthropic_thinking_and_calls: "anthropic/m", "anthropic/thinking-tools";
    anthropic_refusal: "anthropic/m", "anthropic/refusal";
    anthropic_cut_in_a_call: "anthropic/m", "anthropic/cut-in-a-call";
    anthropic_shortened_by_the_provider: "anthropic/m", "anthropic/compaction";
    anthropic_tool_run_by_the_provider: "anthropic/m", "anthropic/server-tool";
}
