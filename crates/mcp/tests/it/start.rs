//! Servers that cannot be started, and that they harm no other.

use serde_json::json;

use crate::support::{config, connect, connect_one, done, everything, fake, names, refused};

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    insta::assert_snapshot!(refused(config("command = 'sleep'\nargs = ['600']\nconnect_timeout_s = 1")).await, @r#"
    MCP server `s`: it gave no answer within 1 s
    Check that `command` or `url` is that of an MCP server; raise `connect_timeout_s` if it is slow.
    "#);
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_reported_with_its_last_words() {
    let script = r#"command = "sh"
        args = ["-c", "seq 1 20 >&2; printf 'no such \\033[1mdatabase\n' >&2; exit 7"]"#;
    insta::assert_snapshot!(refused(config(script)).await, @r#"
    MCP server `s`: it ended before it answered (exit status: 7). It said last:
      12
      13
      14
      15
      16
      17
      18
      19
      20
      no such [1mdatabase
    Run its command by hand to see why, and correct `args` and `env`.
    "#);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_set_up_is_reported() {
    let (_, failures) = connect([
        ("absent", config("command = 'no-such-mcp-server'")),
        ("directory", config("command = 'sh'\ncwd = '/nowhere'")),
        ("header", config("url = 'http://127.0.0.1:1'\nheaders = { 'a b' = 'c' }")),
        ("not-http", config("url = 'ftp://127.0.0.1/'")),
        ("reached", config("url = 'http://127.0.0.1:1/mcp'")),
        ("talker", config("command = 'echo'\nargs = ['hello']")),
        ("variable", config("command = 'sh'\nenv = { A = { from_env = 'UNSET' } }")),
    ])
    .await;
    let all: Vec<_> = failures.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[tokio::test]
async fn one_server_that_fails_harms_no_other() {
    let (servers, failures) = connect([
        ("bad", config("command = 'false'")),
        ("good", everything("tools.allow = ['echo']")),
        ("silent", config("command = 'sleep'\nargs = ['600']\nconnect_timeout_s = 1")),
    ])
    .await;
    let failed: Vec<_> = failures.iter().map(|failure| failure.server.as_str()).collect();
    assert_eq!(failed, ["bad", "silent"]);
    assert_eq!(names(&servers), ["good__echo"]);
    assert_eq!(done(&servers, "good__echo", json!({"message": "alone"})).await, "Echo: alone");
}

#[tokio::test]
async fn a_server_gets_the_environment_that_it_is_given_and_no_other() {
    let servers = connect_one(fake(&[], "env = { PLAIN = 'text', SECRET = { from_env = 'TOKEN' } }")).await;
    let environment = done(&servers, "s__environment", json!({})).await;
    let environment: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&environment).unwrap();
    assert_eq!(environment["PLAIN"], "text");
    assert_eq!(environment["SECRET"], "s3cret");
    // Python itself sets the last one where there is no locale.
    let known = ["PATH", "HOME", "PLAIN", "SECRET", "LC_CTYPE"];
    assert!(environment.keys().all(|name| known.contains(&name.as_str())), "{environment:?}");
}
