//! Whatever a conversation holds, what is written of it keeps the rules of its protocol, and nothing said is lost.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::anthropic::Anthropic;
use crate::chat::Chat;
use crate::responses::Responses;
use crate::wire::Protocol;
use crate::{Content, FunctionOutput, Item, ModelRequest, Settings};

/// What a model said in one response, and what came of it.
#[derive(Debug, Clone)]
struct Turn {
    thought: Option<&'static str>,
    text: bool,
    /// For each call whether it is of a custom tool.
    calls: Vec<bool>,
    /// Sorts the outputs.
    order: Vec<u8>,
    image: bool,
    said_before_the_outputs: bool,
    said_after_them: bool,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let thought = prop::option::of(prop::sample::select(vec!["anthropic", "chat", "encrypted_content"]));
    let calls = prop::collection::vec(any::<bool>(), 0..4);
    let said = any::<(bool, bool, bool, bool)>();
    let turn = (thought, calls, prop::collection::vec(any::<u8>(), 4), said).prop_map(
        |(thought, calls, order, said)| {
            let (text, image, said_before_the_outputs, said_after_them) = said;
            Turn { thought, text, calls, order, image, said_before_the_outputs, said_after_them }
        },
    );
    prop::collection::vec(turn, 0..6)
}

/// The items of these turns, and every text in them.
fn items(turns: &[Turn]) -> (Vec<Item>, Vec<String>) {
    let mut items = vec![Item::user("t-first")];
    for (number, turn) in turns.iter().enumerate() {
        if let Some(field) = turn.thought {
            let thought = match field {
                "anthropic" => json!({"type": "thinking", "thinking": "hm", "signature": "s"}),
                "chat" => json!({"reasoning_content": "hm"}),
                _ => json!("gA"),
            };
            items.push(Item::Reasoning { body: Map::from_iter([(field.to_owned(), thought)]) });
        }
        if turn.text {
            items.push(Item::assistant(format!("t-answer-{number}")));
        }
        let mut outputs = Vec::new();
        for (index, custom) in turn.calls.iter().enumerate() {
            let (call_id, name) = (format!("c-{number}-{index}"), "x".to_owned());
            let mut parts = vec![Content::InputText { text: format!("t-output-{number}-{index}") }];
            if turn.image {
                parts.push(Content::InputImage {
                    image_url: "data:image/png;base64,AA==".into(),
                    detail: None,
                });
            }
            let (id, extra, output) = (call_id.clone(), Map::new(), FunctionOutput::Parts(parts));
            if *custom {
                items.push(Item::CustomToolCall {
                    call_id,
                    name,
                    input: "t-input".into(),
                    extra: Map::new(),
                });
                outputs.push(Item::CustomToolCallOutput { call_id: id, output, extra });
            } else {
                items.push(Item::FunctionCall { call_id, name, arguments: "{}".into(), extra: Map::new() });
                outputs.push(Item::FunctionCallOutput { call_id: id, output, extra });
            }
        }
        if turn.said_before_the_outputs {
            items.push(Item::user(format!("t-meanwhile-{number}")));
        }
        let mut order = turn.order.iter();
        outputs.sort_by_cached_key(|_| order.next().copied());
        items.extend(outputs);
        if turn.said_after_them {
            items.push(Item::user(format!("t-after-{number}")));
        }
    }
    let texts = items.iter().flat_map(|item| match item {
        Item::FunctionCallOutput { output, .. } | Item::CustomToolCallOutput { output, .. } => {
            vec![output.text()]
        }
        item => vec![item.text()],
    });
    let texts = texts.filter(|text| !text.is_empty()).collect();
    (items, texts)
}

fn body(protocol: &dyn Protocol, items: &[Item]) -> Value {
    let settings = Settings::default();
    let request =
        ModelRequest { instructions: "i", items, tools: &[], settings: &settings, output: None, ordinal: 0 };
    protocol.body(&request).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn ids<'a>(blocks: impl IntoIterator<Item = &'a Value>, field: &str) -> Vec<String> {
    let mut ids: Vec<_> =
        blocks.into_iter().filter_map(|block| block[field].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

proptest! {
    #[test]
    fn anthropics_turns_alternate_and_results_answer_calls_at_once(turns in turns()) {
        let (items, texts) = items(&turns);
        let body = body(&Anthropic { model: "m".into() }, &items);
        let messages = list(&body["messages"]);
        for (at, message) in messages.iter().enumerate() {
            let blocks = list(&message["content"]);
            prop_assert!(!blocks.is_empty());
            prop_assert_eq!(&message["role"], if at % 2 == 0 { "user" } else { "assistant" });
            let results = blocks.iter().take_while(|block| block["type"] == "tool_result");
            let before = at.checked_sub(1).map_or(&[][..], |before| list(&messages[before]["content"]));
            if message["role"] == "user" {
                let calls = before.iter().filter(|block| block["type"] == "tool_use");
                prop_assert_eq!(ids(results, "tool_use_id"), ids(calls, "id"));
            }
            let last = at + 1 == messages.len();
            for (index, block) in blocks.iter().enumerate() {
                let ends = index + 1 == blocks.len();
                prop_assert_eq!(block.get("cache_control").is_some(), last && ends);
                prop_assert!(!ends || block["type"] != "thinking");
            }
        }
        let all = body.to_string();
        for text in texts {
            prop_assert_eq!(all.matches(&format!("\"{text}\"")).count(), 1, "{}", text);
        }
    }

    #[test]
    fn no_reasoning_stands_alone_in_responses(turns in turns()) {
        let (items, texts) = items(&turns);
        let body = body(&Responses { model: "m".into() }, &items);
        let input = list(&body["input"]);
        for pair in input.windows(2).filter(|pair| pair[0]["type"] == "reasoning") {
            let kind = pair[1]["type"].as_str().unwrap();
            prop_assert!(kind.ends_with("_call") || kind == "reasoning" || pair[1]["role"] == "assistant");
        }
        prop_assert!(input.last().is_none_or(|last| last["type"] != "reasoning"));
        let all = body.to_string();
        for text in texts {
            prop_assert_eq!(all.matches(&format!("\"{text}\"")).count(), 1, "{}", text);
        }
    }

    #[test]
    fn chats_outputs_follow_their_calls_at_once(turns in turns()) {
        let (items, texts) = items(&turns);
        let body = body(&Chat { model: "m".into(), at_openai: false }, &items);
        let messages = list(&body["messages"]);
        let is_tool = |message: &&Value| message["role"] == "tool";
        for (at, message) in messages.iter().enumerate() {
            let calls = list(&message["tool_calls"]);
            let outputs = messages[at + 1..].iter().take_while(is_tool);
            if message["role"] == "assistant" {
                prop_assert_eq!(ids(outputs, "tool_call_id"), ids(calls, "id"));
                prop_assert!(!calls.is_empty() || message["content"].is_string());
            }
        }
        let answered: usize = messages.iter().filter(is_tool).count();
        prop_assert_eq!(answered, turns.iter().map(|turn| turn.calls.len()).sum::<usize>());
        let all = body.to_string();
        for text in texts {
            prop_assert_eq!(all.matches(&text).count(), 1, "{}", text);
        }
    }
}
