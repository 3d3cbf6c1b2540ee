//! The reference server over streamable HTTP on this machine, and servers that only look like one.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::{config, connect_one, done, everything_script, failed, names, refused};

/// Starts the reference server on a port, 0 for any, and gives the port.
async fn serve(port: u16) -> (Child, u16) {
    let loopback = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/loopback.cjs");
    let mut child = Command::new("node")
        .args(["-r", loopback, &everything_script(), "streamableHttp"])
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(port) = line.strip_prefix("loopback ") {
            let port = port.parse().unwrap();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (child, port);
        }
    }
    panic!("the server ended: {:?}", child.wait().await);
}

fn section(port: u16, more: &str) -> mooring_mcp::McpConfig {
    config(&format!(
        "url = 'http://127.0.0.1:{port}/mcp'\nheaders = {{ X-Token = {{ from_env = 'TOKEN' }} }}\n{more}"
    ))
}

#[tokio::test]
async fn its_tools_are_listed_and_called_over_http() {
    let (_child, port) = serve(0).await;
    let servers = connect_one(section(port, "tools.allow = ['echo', 'get-sum']")).await;
    assert_eq!(servers.servers().next().unwrap().protocol, "2025-11-25");
    assert_eq!(names(&servers), ["s__echo", "s__get-sum"]);
    assert_eq!(done(&servers, "s__echo", json!({"message": "ahoy"})).await, "Echo: ahoy");
    let error = failed(&servers, "s__get-sum", json!({"a": "two"})).await;
    assert!(error.contains("expected number"), "{error}");
    servers.close().await;
}

#[tokio::test]
async fn a_call_over_its_deadline_fails_over_http() {
    let (_child, port) = serve(0).await;
    let servers = connect_one(section(port, "timeout_s = 1")).await;
    let text =
        failed(&servers, "s__trigger-long-running-operation", json!({"duration": 600, "steps": 1})).await;
    assert!(text.contains("no answer within 1 s"), "{text}");
    assert_eq!(done(&servers, "s__echo", json!({"message": "on"})).await, "Echo: on");
}

#[tokio::test]
async fn a_server_that_was_started_anew_is_greeted_anew() {
    let (mut child, port) = serve(0).await;
    let servers = connect_one(section(port, "timeout_s = 20")).await;
    assert_eq!(done(&servers, "s__echo", json!({"message": "one"})).await, "Echo: one");
    child.kill().await.unwrap();
    let text = failed(&servers, "s__echo", json!({"message": "two"})).await;
    assert!(text.contains("was lost during the call"), "{text}");
    let (_child, _) = serve(port).await;
    assert_eq!(done(&servers, "s__echo", json!({"message": "three"})).await, "Echo: three");
}

/// Answers every request with these bytes.
async fn answer(bytes: &'static str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 8192];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    if stream.write_all(bytes.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn what_is_no_server_for_us_is_reported() {
    let mut all = String::new();
    for bytes in [
        "",
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    ] {
        let port = answer(bytes).await;
        let report = refused(section(port, "connect_timeout_s = 1")).await;
        all += &report.replace(&port.to_string(), "PORT");
        all += "\n\n";
    }
    insta::assert_snapshot!(all);
}
