//! A server of PyPI, made with the Python SDK: it speaks the stateless protocol.

use std::process::Command;

use mooring_capability::Effect;
use serde_json::json;

use crate::support::{config, connect_one, counterpart, done, failed, tool};

#[tokio::test]
async fn the_stateless_protocol_is_spoken_with_the_git_server() {
    let repository = tempfile::tempdir().unwrap();
    let path = repository.path().to_str().unwrap();
    assert!(Command::new("git").args(["init", "-q", path]).status().unwrap().success());
    std::fs::write(repository.path().join("new.txt"), "new").unwrap();
    let python = counterpart("venv/bin/python");
    let section = format!("command = '{python}'\nargs = ['-m', 'mcp_server_git']\ntrust_annotations = true");
    let servers = connect_one(config(&section)).await;
    assert_eq!(servers.servers().next().unwrap().protocol, "2026-07-28");

    assert_eq!(tool(&servers, "s__git_status").effect(), Effect::Pure);
    assert_eq!(tool(&servers, "s__git_commit").effect(), Effect::AtMostOnce);
    let status = done(&servers, "s__git_status", json!({"repo_path": path})).await;
    assert!(status.contains("new.txt"), "{status}");
    done(&servers, "s__git_add", json!({"repo_path": path, "files": ["new.txt"]})).await;
    let staged = done(&servers, "s__git_diff_staged", json!({"repo_path": path})).await;
    assert!(staged.contains("+new"), "{staged}");
    let error = failed(&servers, "s__git_status", json!({"repo_path": "/nowhere"})).await;
    assert!(error.contains("/nowhere"), "{error}");
    servers.close().await;
}
