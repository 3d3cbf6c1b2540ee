//! Servers that die: what the model is told, and how often they are restarted.

use std::time::Duration;

use mooring_capability::ToolStatus;
use serde_json::json;

use crate::support::{call, connect_one, done, everything, failed, fake, gone, kill, mark, text_of};

#[tokio::test]
async fn a_call_whose_server_dies_is_in_doubt_and_the_server_is_restarted() {
    let servers = connect_one(fake(&[], "effect = { reader = 'pure' }")).await;
    let result = call(&servers, "s__die", json!({})).await;
    insta::assert_json_snapshot!(result.details, @r#"
    {
      "mcp": {
        "server": "s",
        "tool": "die",
        "outcome_unknown": true,
        "stderr": "the disk is full[31m"
      }
    }
    "#);
    insta::assert_snapshot!(text_of(result, ToolStatus::Failed), @"MCP server `s`, tool `die`: it was lost during the call: it ended (exit status: 3). The call may have taken effect: find out before you repeat it.");
    assert_eq!(done(&servers, "s__reader", json!({})).await, "called reader");
}

#[tokio::test]
async fn the_reference_server_is_killed_in_mid_call_and_restarted() {
    let (section, mark) = mark("midcall");
    let servers = connect_one(everything(&section)).await;
    let killed = async {
        moment().await;
        kill(&mark);
    };
    let long = failed(&servers, "s__trigger-long-running-operation", json!({"duration": 600, "steps": 1}));
    let (text, ()) = tokio::join!(long, killed);
    assert!(text.contains("it ended (signal: 9 (SIGKILL))"), "{text}");
    assert!(text.contains("may have taken effect"), "{text}");
    assert_eq!(done(&servers, "s__echo", json!({"message": "again"})).await, "Echo: again");
    servers.close().await;
    gone(&mark).await;
}

#[tokio::test]
async fn a_server_that_keeps_dying_is_restarted_three_times() {
    let directory = tempfile::tempdir().unwrap();
    let starts = directory.path().join("starts");
    let arguments = ["--answer", "0", "--start", starts.to_str().unwrap(), "100"];
    let servers = connect_one(fake(&arguments, "effect = { meta = 'pure' }")).await;
    let mut texts = Vec::new();
    for _ in 0..6 {
        texts.push(failed(&servers, "s__meta", json!({})).await);
    }
    insta::assert_snapshot!(texts.join("\n"));
    assert_eq!(std::fs::read_to_string(starts).unwrap().lines().count(), 4);
}

#[tokio::test]
async fn a_server_that_starts_no_more_is_off() {
    let directory = tempfile::tempdir().unwrap();
    let starts = directory.path().join("starts");
    let servers = connect_one(fake(&["--start", starts.to_str().unwrap(), "2"], "")).await;
    failed(&servers, "s__die", json!({})).await;
    let result = call(&servers, "s__meta", json!({})).await;
    assert_eq!(result.details["mcp"]["stderr"], "this server starts no more");
    insta::assert_snapshot!(text_of(result, ToolStatus::Failed), @"MCP server `s`, tool `meta`: it is off for the rest of the run, after 3 restarts: it ended before it answered (exit status: 1). The call was not made.");
    assert_eq!(std::fs::read_to_string(&starts).unwrap().lines().count(), 4);
}

#[tokio::test]
async fn a_server_that_answers_between_its_deaths_is_restarted_each_time() {
    let servers = connect_one(fake(&["--answer", "1"], "")).await;
    for _ in 0..6 {
        done(&servers, "s__meta", json!({})).await;
        failed(&servers, "s__meta", json!({})).await;
    }
}

#[tokio::test]
async fn calls_that_lose_their_server_together_share_one_restart() {
    let directory = tempfile::tempdir().unwrap();
    let starts = directory.path().join("starts");
    let (section, mark) = mark("together");
    let servers = connect_one(fake(&["--start", starts.to_str().unwrap(), "100"], &section)).await;
    let hanging = || failed(&servers, "s__hang", json!({}));
    let killed = async {
        moment().await;
        kill(&mark);
    };
    let (first, second, ()) = tokio::join!(hanging(), hanging(), killed);
    assert!(first.contains("was lost during the call") && second.contains("was lost during the call"));
    let meta = || done(&servers, "s__meta", json!({}));
    tokio::join!(meta(), meta(), meta());
    assert_eq!(std::fs::read_to_string(&starts).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn a_message_without_a_bound_ends_the_server() {
    let servers = connect_one(fake(&[], "")).await;
    let text = failed(&servers, "s__flood", json!({"bytes": 20 * 1024 * 1024})).await;
    assert!(text.contains("it sent a message of more than 16 MiB and was ended"), "{text}");
    assert_eq!(done(&servers, "s__flood", json!({"bytes": 3})).await, "xxx");
}

/// Lets a call get under way. What is tested is the same where it does not.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}
