//! Nothing is left of a server, however it behaves at its end.

use mooring_mcp::McpServers;
use serde_json::json;

use crate::support::{
    FAKE, config, connect_one, context, done, everything, failed, fake, gone, mark, processes_with, refused,
    tool,
};

/// A server that started a process of its own.
async fn with_child(test: &str) -> (McpServers, String) {
    let (section, mark) = mark(test);
    let servers = connect_one(fake(&[], &section)).await;
    done(&servers, "s__child", json!({})).await;
    assert_eq!(processes_with(&mark).len(), 2);
    (servers, mark)
}

#[tokio::test]
async fn a_drop_ends_the_server_and_its_children() {
    let (servers, mark) = with_child("drop").await;
    let tool = tool(&servers, "s__meta");
    drop(servers);
    gone(&mark).await;
    // A tool that outlives its servers brings none back.
    let input = mooring_capability::ToolInput::Json(json!({}));
    let result = tool.call(&context(), &input, &serde_json::Value::Null).await;
    insta::assert_snapshot!(result.output.text(), @"MCP server `s`, tool `meta`: it is stopped, as the run is over. The call was not made.");
    assert!(processes_with(&mark).is_empty());
}

#[tokio::test]
async fn a_close_ends_the_server_and_its_children() {
    let (servers, mark) = with_child("close").await;
    servers.close().await;
    gone(&mark).await;
}

#[test]
fn the_end_of_the_runtime_ends_the_server_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (servers, mark) = runtime.block_on(with_child("runtime"));
    runtime.shutdown_background();
    drop(servers);
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    // Nobody is left to wait for it, so it may stay as a zombie until this process ends.
    let lives =
        |path: std::path::PathBuf| std::fs::read(path.join("environ")).is_ok_and(|text| !text.is_empty());
    let alive = || processes_with(&mark).into_iter().any(lives);
    while alive() {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_server_that_ignores_its_end_is_killed() {
    let (section, mark) = mark("stubborn");
    let script = format!("trap '' TERM; /usr/bin/python3 {FAKE}; while :; do sleep 1; done");
    let servers =
        connect_one(config(&format!("command = 'sh'\nargs = ['-c', \"{script}\"]\n{section}"))).await;
    assert!(!processes_with(&mark).is_empty());
    servers.close().await;
    gone(&mark).await;
}

#[tokio::test]
async fn a_server_that_reads_no_more_holds_nothing_up() {
    let (section, mark) = mark("deaf");
    let servers = connect_one(fake(&[], &format!("timeout_s = 1\n{section}"))).await;
    for _ in 0..2 {
        // More than a pipe holds, to a server that is busy for ever after the first.
        let text = failed(&servers, "s__hang", json!({"much": "x".repeat(1024 * 1024)})).await;
        assert!(text.contains("no answer within 1 s"), "{text}");
    }
    servers.close().await;
    gone(&mark).await;
}

#[tokio::test]
async fn a_server_that_was_given_up_is_gone() {
    let (section, mark) = mark("silent");
    let script =
        format!("command = 'sh'\nargs = ['-c', 'sleep 600 & sleep 600']\nconnect_timeout_s = 1\n{section}");
    refused(config(&script)).await;
    gone(&mark).await;
}

#[tokio::test]
async fn a_server_that_died_takes_its_children_along() {
    let (servers, mark) = with_child("died").await;
    failed(&servers, "s__die", json!({})).await;
    gone(&mark).await;
}

#[tokio::test]
async fn a_drop_in_mid_call_ends_the_call() {
    let (section, mark) = mark("midcall");
    let servers = connect_one(everything(&section)).await;
    let tool = tool(&servers, "s__trigger-long-running-operation");
    let call = tokio::spawn(async move {
        let input = mooring_capability::ToolInput::Json(json!({"duration": 600, "steps": 1}));
        tool.call(&context(), &input, &serde_json::Value::Null).await
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    drop(servers);
    let text = call.await.unwrap().output.text();
    assert!(text.contains("lost during the call"), "{text}");
    gone(&mark).await;
}
