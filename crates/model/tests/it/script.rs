//! Scripted models.

use mooring_model::{
    Capture, Content, Item, ModelErrorKind, ModelEvent, ModelResponse, ModelSpec, ScriptModel, StopReason,
    Usage,
};
use serde_json::Map;

use crate::support::{bare, call};

fn script(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("play.jsonl");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// The error of opening this text, with the folder's random name taken out.
fn refused(text: &str) -> String {
    let (folder, path) = script(text);
    let error = ScriptModel::open(path).unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Script);
    error.to_string().replace(&folder.path().display().to_string(), "DIR")
}

const CALL: &str =
    r#"{"type":"function_call","call_id":"c1","name":"exec_command","arguments":"{\"cmd\":\"ls\"}"}"#;

#[tokio::test]
async fn each_call_is_answered_by_the_line_of_its_ordinal() {
    let (_folder, path) = script(&format!(
        "[{{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[{{\"type\":\"summary_text\",\"text\":\"Look first.\"}}]}},{CALL}]\n\
         \n\
         {{\"output\":[{{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"Done.\"}}],\
           \"usage\":{{\"input_tokens\":10,\"input_tokens_details\":{{\"cached_tokens\":4}},\"output_tokens\":3,\
           \"output_tokens_details\":{{\"reasoning_tokens\":1}},\"total_tokens\":13}}}}\n"
    ));
    let model =
        mooring_model::connect(&ModelSpec::Script(path), &mooring_model::ModelOptions::default()).unwrap();

    // The second first: nothing depends on the order of calls.
    let (events, outcome) = call(&*model, bare(1)).await;
    assert_eq!(events, [ModelEvent::TextDelta("Done.".into())]);
    assert_eq!(
        outcome.unwrap(),
        ModelResponse {
            id: None,
            model: model.name().into(),
            items: vec![Item::Message {
                role: mooring_model::Role::Assistant,
                content: vec![Content::OutputText { text: "Done.".into(), extra: Map::new() }],
                extra: Map::new(),
            }],
            usage: Usage {
                input_tokens: 10,
                cached_input_tokens: 4,
                cache_write_tokens: 0,
                output_tokens: 3,
                reasoning_tokens: 1
            },
            stop_reason: StopReason::Stop,
            capture: Capture::default(),
        }
    );

    let (events, outcome) = call(&*model, bare(0)).await;
    assert_eq!(
        events,
        [
            ModelEvent::ReasoningDelta("Look first.".into()),
            ModelEvent::ToolCallStarted { name: "exec_command".into() }
        ]
    );
    assert_eq!(outcome.unwrap().items.len(), 2);
}

#[tokio::test]
async fn the_end_of_the_script_is_an_error_that_says_what_to_add() {
    let (folder, path) = script("[]\n[]\n");
    let model = ScriptModel::open(path).unwrap();
    let (events, outcome) = call(&model, bare(2)).await;
    assert_eq!(events, []);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Script);
    assert!(!error.retryable());
    insta::assert_snapshot!(error.to_string().replace(&folder.path().display().to_string(), "DIR"));
}

#[tokio::test]
async fn responses_made_by_a_program_are_played_as_they_are() {
    let response = ModelResponse {
        id: Some("r".into()),
        model: "m".into(),
        items: vec![Item::assistant("Hi")],
        usage: Usage::default(),
        stop_reason: StopReason::MaxOutputTokens,
        capture: Capture::default(),
    };
    let model = ScriptModel::from_responses("bench", vec![response.clone()]);
    assert_eq!(call(&model, bare(0)).await.1.unwrap(), response);
    assert_eq!(call(&model, bare(u64::MAX)).await.1.unwrap_err().kind, ModelErrorKind::Script);
}

#[test]
fn malformed_scripts_are_refused_when_opened() {
    let cases = [
        ("nothing in it", " \n\n".to_owned()),
        ("not JSON, on the third line", format!("[]\n\n[{CALL}\n")),
        ("a string", "\"hello\"\n".into()),
        ("an unknown field", r#"{"output":[],"usgae":{}}"#.into()),
        ("no output", r#"{"usage":{}}"#.into()),
        ("a call without an id", r#"[{"type":"function_call","name":"x","arguments":"{}"}]"#.into()),
        (
            "a call with an empty id",
            CALL.replace("c1", "").replace('{', "[{").replace("[{\\\"cmd", "{\\\"cmd") + "]",
        ),
        ("one id twice", format!("[{CALL},{CALL}]")),
        ("an item without a type", r#"[{"call_id":"c"}]"#.into()),
        ("a user's message", r#"[{"type":"message","role":"user","content":"x"}]"#.into()),
        ("an output", r#"[{"type":"function_call_output","call_id":"c","output":"x"}]"#.into()),
        ("usage of words", r#"{"output":[],"usage":{"input_tokens":"many"}}"#.into()),
    ];
    let said = cases.iter().map(|(what, text)| format!("{what}\n  {}\n", refused(text)));
    insta::assert_snapshot!(said.collect::<String>());
}

#[test]
fn a_script_that_is_not_there_is_named() {
    let error = ScriptModel::open("/nowhere/play.jsonl").unwrap_err();
    insta::assert_snapshot!(error);
}
