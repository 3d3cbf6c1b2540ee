//! A server that asks a person in the middle of a call: made with the official Python SDK, by the stateless protocol.

use mooring_capability::{Question, ToolResult};
use mooring_mcp::McpServers;
use serde_json::{Value, json};

use crate::support::{config, connect_one, context, counterpart, tool};

async fn asking(log: &std::path::Path) -> McpServers {
    let python = counterpart("venv/bin/python");
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/asking_server.py");
    let servers =
        connect_one(config(&format!("command = '{python}'\nargs = ['{server}', '{}']", log.display()))).await;
    assert_eq!(servers.servers().next().unwrap().protocol, "2026-07-28");
    servers
}

async fn pay(servers: &McpServers, prepared: &Value) -> ToolResult {
    let input = mooring_capability::ToolInput::Json(json!({"to": "ann"}));
    tool(servers, "s__pay").call(&context(), &input, prepared).await
}

fn asked(result: ToolResult) -> Question {
    *result.question.unwrap_or_else(|| panic!("it did not ask: {:?}", result.output))
}

#[tokio::test]
async fn a_question_waits_outside_of_the_server_and_its_answer_reaches_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let first = asking(&log).await;
    let question = asked(pay(&first, &Value::Null).await);
    assert_eq!(question.message, "s, tool pay, asks: How much for ann?");
    assert_eq!(question.schema["properties"]["euros"]["type"], "integer");
    first.close().await;
    assert!(!log.exists());

    // The server that asked is gone; the question lies in the journal; another server gets the answer.
    let second = asking(&log).await;
    let answer = json!({"state": question.state, "answer": {"action": "accept", "content": {"euros": 7}}});
    let result = pay(&second, &answer).await;
    assert_eq!((result.output.text().as_str(), result.question), ("paid 7 to ann", None));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "ann 7\n");
    second.close().await;
}

#[tokio::test]
async fn a_question_that_is_declined_or_answered_wrongly_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let servers = asking(&log).await;
    let question = asked(pay(&servers, &Value::Null).await);
    for answer in [
        json!({"action": "decline", "content": null}),
        json!({"action": "accept", "content": {"euros": "many"}}),
    ] {
        let result = pay(&servers, &json!({"state": question.state, "answer": answer})).await;
        assert_eq!(result.status, mooring_capability::ToolStatus::Failed, "{:?}", result.output);
    }
    assert!(!log.exists());
    servers.close().await;
}
