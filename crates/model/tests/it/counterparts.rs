//! Software that others wrote: the official Python SDKs read our requests and the recorded streams, and aimock, a
//! mock of all three APIs, answers our clients. Where they are not installed these tests fail and say how to get
//! them: a check that was skipped would look like one that passed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mooring_model::{FunctionOutput, Item, ModelResponse, ModelSpec, Settings, StopReason, connect};
use mooring_testkit::{Reply, Server};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::compaction::{compaction_block, compaction_item};
use crate::requests::sent;
use crate::support::{Conversation, bare_conversation as bare, call, client, conversation, options, typed};

/// A file of a counterpart: named by a variable, or where the setup puts it.
fn counterpart(variable: &str, place: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/counterparts");
    let path = std::env::var_os(variable).map_or_else(|| root.join(place), PathBuf::from);
    assert!(path.exists(), "{} is missing: run `./scripts/setup --tests`, or set {variable}", path.display());
    path
}

/// What the check of the SDKs prints.
async fn sdk_check(arguments: &[&str], input: &Value) -> Value {
    let python = counterpart("MOOR_TEST_PYTHON", "venv/bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk_check.py");
    let mut child = Command::new(python)
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("NO_PROXY", "*")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_sdks_would_send_the_same_requests() {
    let mut full = conversation();
    // Neither is part of OpenAI's API: vLLM adds the one, and several servers the other.
    full.settings.return_token_ids = false;
    full.items.retain(|item| !matches!(item, Item::Reasoning { body } if body.contains_key("chat")));
    full.output = Some(typed());
    let mut bodies = Map::new();
    for (protocol, specs) in [
        ("responses", ["openai/gpt-5", "openai/gpt-4.1"]),
        ("chat", ["chat/m", "chat/gpt-5"]),
        ("anthropic", ["anthropic/claude-sonnet-4-5", "anthropic/claude-opus-5"]),
    ] {
        let mut of_protocol = Vec::new();
        for spec in specs {
            if protocol == "anthropic" {
                // Newer models refuse both, so the SDK lost them. Older models take them, and the API speaks for itself.
                full.settings.temperature = None;
                full.settings.top_p = None;
            }
            of_protocol.push(sent(spec, &full).await.body);
            of_protocol.push(sent(spec, &bare()).await.body);
            let typed = Conversation { output: Some(typed()), ..bare() };
            let typed = sent(spec, &typed).await.body;
            assert!(typed.to_string().contains("json_schema"), "{typed}");
            of_protocol.push(typed);
            let mut shortened = full.clone();
            shortened.settings.compact_at = Some(100_000);
            shortened.items.push(match protocol {
                "responses" => compaction_item(),
                "anthropic" => compaction_block(),
                _ => continue,
            });
            shortened.items.push(Item::user("Go on."));
            of_protocol.push(sent(spec, &shortened).await.body);
        }
        bodies.insert(protocol.to_owned(), of_protocol.into());
    }
    assert_eq!(sdk_check(&["bodies"], &bodies.into()).await, json!(22));
}

/// What the check prints of a response, from ours.
fn as_checked(response: &ModelResponse) -> Value {
    let mut calls = Vec::new();
    let mut text = String::new();
    for item in &response.items {
        match item {
            Item::FunctionCall { call_id, name, arguments, .. } => {
                calls.push(json!([call_id, name, serde_json::from_str::<Value>(arguments).unwrap()]));
            }
            Item::CustomToolCall { call_id, name, input, .. } => {
                calls.push(json!([call_id, name, {"input": input}]));
            }
            item => text += &item.text(),
        }
    }
    json!({
        "text": text,
        "calls": calls,
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
    })
}

/// The fixtures are what the SDKs take for a stream of their API, and they read the same in it as we do.
#[tokio::test]
async fn the_sdks_read_the_same_in_every_stream() {
    let streams = [
        ("openai/m", "responses", ["text", "tools", "incomplete", "refusal"].as_slice()),
        ("chat/m", "chat", &["openai-text", "openai-tools", "vllm-reasoning", "filtered"]),
        ("anthropic/m", "anthropic", &["text", "thinking-tools", "refusal", "server-tool", "compaction"]),
    ];
    for (spec, protocol, fixtures) in streams {
        let (mut servers, mut ours) = (Vec::new(), Vec::new());
        for fixture in fixtures {
            let path = format!("{}/tests/fixtures/{protocol}/{fixture}.sse", env!("CARGO_MANIFEST_DIR"));
            let bytes = std::fs::read(path).unwrap();
            let server = Server::start([Reply::stream(bytes.clone()), Reply::stream(bytes)]).await.unwrap();
            let response = call(&*client(spec, &server, 1), conversation().request()).await.1.unwrap();
            ours.push(as_checked(&response));
            servers.push(server);
        }
        let urls: Vec<_> = servers.iter().map(Server::url).collect();
        let arguments: Vec<_> =
            ["streams", protocol].into_iter().chain(urls.iter().map(String::as_str)).collect();
        assert_eq!(Value::Array(ours), sdk_check(&arguments, &Value::Null).await, "{fixtures:?}");
    }
}

/// aimock on a free port, with fixtures from this folder; it ends with the test.
async fn aimock() -> (Child, String) {
    let program = counterpart("MOOR_TEST_AIMOCK", "node_modules/.bin/llmock");
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/aimock");
    let mut child = Command::new(program)
        .args(["-p", "0", "-h", "127.0.0.1", "--strict", "-f", fixtures])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let line = lines.next_line().await.unwrap().expect("aimock ended at once");
            if let Some((_, url)) = line.split_once("listening on ") {
                return url.to_owned();
            }
        }
    });
    let url = url.await.expect("aimock did not start");
    // It stops when nobody reads what it says.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, url)
}

#[tokio::test]
async fn a_round_trip_of_a_tool_call_with_aimock() {
    let (_child, url) = aimock().await;
    for (spec, base) in [
        ("openai/gpt-5", format!("{url}/v1")),
        ("chat/gpt-5", format!("{url}/v1")),
        ("anthropic/claude-opus-4-5", url),
    ] {
        let model = connect(&ModelSpec::parse(spec).unwrap(), &options(&base)).unwrap();
        let mut conversation = conversation();
        conversation.settings = Settings::default();
        conversation.items = vec![Item::user("Please list the files.")];
        let (_, outcome) = call(&*model, conversation.request()).await;
        let response = outcome.unwrap_or_else(|error| panic!("{spec}: {error}"));
        assert_eq!(response.stop_reason, StopReason::Stop);
        assert_eq!(response.items.iter().map(Item::text).collect::<String>(), "I look.", "{spec}");
        let thought: String = response.items.iter().map(Item::reasoning_text).collect();
        assert_eq!(thought, "They want a list.", "{spec}");
        let calls: Vec<_> = response
            .items
            .iter()
            .filter_map(|item| match item {
                Item::FunctionCall { call_id, name, arguments, .. } => {
                    Some((call_id.clone(), name.as_str(), serde_json::from_str::<Value>(arguments).unwrap()))
                }
                _ => None,
            })
            .collect();
        let [(one, "exec_command", first), (two, "exec_command", second)] = &calls[..] else {
            panic!("{spec}: {response:?}")
        };
        assert_eq!((first, second), (&json!({"cmd": "ls src"}), &json!({"cmd": "ls tests", "note": "é🙂"})));
        let outputs = [(one.clone(), "a.rs"), (two.clone(), "b.rs")];
        conversation.items.extend(response.items);
        conversation.items.extend(outputs.map(|(call_id, text)| Item::FunctionCallOutput {
            call_id,
            output: FunctionOutput::Text(text.into()),
            extra: Map::new(),
        }));
        // The second answer is only given to one who sends the outputs of both calls in the right place.
        let response =
            call(&*model, conversation.request()).await.1.unwrap_or_else(|error| panic!("{spec}: {error}"));
        assert_eq!(response.items.iter().map(Item::text).collect::<String>(), "Two files.", "{spec}");
    }
}
