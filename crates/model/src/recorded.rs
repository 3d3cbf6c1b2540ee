//! Recorded streams, cut anywhere: what comes of them must not depend on how the network delivers them. This needs
//! the decoders themselves, since a socket would join the pieces again.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::anthropic::Anthropic;
use crate::chat::Chat;
use crate::responses::Responses;
use crate::sse::SseParser;
use crate::wire::{Protocol, decode};
use crate::{ModelEvent, ModelRequest, ModelResponse, Settings, ToolKind, ToolSpec};

fn read<'a>(
    protocol: &dyn Protocol,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<ModelEvent>, Option<ModelResponse>) {
    let tools = [ToolSpec {
        name: "apply_patch".into(),
        description: String::new(),
        kind: ToolKind::Custom { syntax: "lark".into(), definition: String::new() },
    }];
    let settings = Settings::default();
    let request = ModelRequest {
        instructions: "",
        items: &[],
        tools: &tools,
        settings: &settings,
        output: None,
        ordinal: 3,
    };
    let mut decoder = protocol.decoder(&request);
    let (mut sse, mut shown) = (SseParser::new(1 << 20, 1 << 20), Vec::new());
    for chunk in chunks {
        match decode(chunk, &mut sse, &mut *decoder, &mut shown) {
            Ok(None) => {}
            Ok(response) => return (shown, response),
            Err(_) => return (shown, None),
        }
    }
    let response = decoder.end();
    (shown, response)
}

fn fixtures(folder: &str) -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn same_at_every_cut(protocol: &dyn Protocol, folder: &str) {
    for path in fixtures(folder) {
        let bytes = std::fs::read(&path).unwrap();
        let whole = read(protocol, [bytes.as_slice()]);
        assert!(whole.1.is_some(), "{} gives no response", path.display());
        // Pieces of one byte cut everywhere at once; the others cut everywhere in turn.
        for size in 1..=96 {
            assert_eq!(read(protocol, bytes.chunks(size)), whole, "{} in pieces of {size}", path.display());
        }
    }
}

#[test]
fn responses_streams_read_the_same_at_every_cut() {
    same_at_every_cut(&Responses { model: "m".into() }, "responses");
}

#[test]
fn chat_streams_read_the_same_at_every_cut() {
    same_at_every_cut(&Chat { model: "m".into(), at_openai: false }, "chat");
}

#[test]
fn anthropic_streams_read_the_same_at_every_cut() {
    same_at_every_cut(&Anthropic { model: "m".into() }, "anthropic");
}

/// Puts something else in the place that `path` leads to.
fn spoil(value: &mut Value, path: &[usize], other: &Value) {
    let children: Vec<&mut Value> = match value {
        Value::Object(object) => object.values_mut().collect(),
        Value::Array(array) => array.iter_mut().collect(),
        _ => Vec::new(),
    };
    let count = children.len();
    match path {
        [step, rest @ ..] if count > 0 => spoil(children.into_iter().nth(step % count).unwrap(), rest, other),
        _ => *value = other.clone(),
    }
}

/// The pieces of calls in some order that keeps each call's own.
fn interleaved() -> impl Strategy<Value = (Vec<Vec<String>>, Vec<usize>)> {
    let call = prop::collection::vec("[a-z\"\\\\{}: é]{0,6}", 1..5);
    let order = prop::collection::vec(0..4_usize, 0..40);
    (prop::collection::vec(call, 1..4), order)
}

proptest! {
    /// A server can send anything at all; it ends in an answer or an error.
    #[test]
    fn no_event_brings_a_reader_down(
        file in 0..6_usize,
        event in 0..40_usize,
        path in prop::collection::vec(0..12_usize, 0..6),
        other in prop::sample::select(vec![
            json!(null), json!(7), json!(-1.5), json!("x"), json!([]), json!([null]), json!({}), json!({"type": 3}),
            json!([{"text": 1}]), json!(true),
        ]),
    ) {
        let protocols: [(&str, Box<dyn Protocol>); 3] = [
            ("responses", Box::new(Responses { model: "m".into() })),
            ("chat", Box::new(Chat { model: "m".into(), at_openai: false })),
            ("anthropic", Box::new(Anthropic { model: "m".into() })),
        ];
        for (folder, protocol) in protocols {
            let files = fixtures(folder);
            let text = std::fs::read_to_string(&files[file % files.len()]).unwrap();
            let mut lines: Vec<_> = text.split(['\n', '\r']).map(str::to_owned).collect();
            let mut data: Vec<_> = lines.iter_mut().filter(|line| line.starts_with("data: {")).collect();
            let count = data.len();
            let line = &mut *data[event % count];
            let mut value: Value = serde_json::from_str(&line[6..]).unwrap();
            spoil(&mut value, &path, &other);
            *line = format!("data: {value}");
            let _ = read(&*protocol, [lines.join("\n").as_bytes()]);
        }
    }

    #[test]
    fn pieces_of_chat_calls_find_their_call((calls, order) in interleaved(), named_late in any::<bool>()) {
        let mut next = vec![0; calls.len()];
        let mut stream = String::new();
        // What the order leaves over comes at the end.
        let rest = (0..calls.len()).flat_map(|at| std::iter::repeat_n(at, calls[at].len()));
        for at in order.iter().map(|at| at % calls.len()).chain(rest) {
            let Some(piece) = calls[at].get(next[at]) else { continue };
            let first = next[at] == 0;
            next[at] += 1;
            let mut call = json!({"index": at, "function": {"arguments": piece}});
            if first || named_late {
                call["id"] = format!("c{at}").into();
                call["function"]["name"] = "f".into();
            }
            stream += &json!({"choices": [{"delta": {"tool_calls": [call]}}]}).to_string();
            stream.insert_str(stream.rfind("{\"choices\"").unwrap(), "data: ");
            stream += "\n\n";
        }
        stream += "data: [DONE]\n\n";
        let chat = Chat { model: "m".into(), at_openai: false };
        let items = read(&chat, [stream.as_bytes()]).1.unwrap().items;
        let mut got: Vec<_> = items
            .into_iter()
            .map(|item| match item {
                crate::Item::FunctionCall { call_id, arguments, .. } => (call_id, arguments),
                other => panic!("{other:?}"),
            })
            .collect();
        got.sort();
        let expected: Vec<_> = calls.iter().enumerate().map(|(at, call)| (format!("c{at}"), call.concat())).collect();
        prop_assert_eq!(got, expected);
    }
}
