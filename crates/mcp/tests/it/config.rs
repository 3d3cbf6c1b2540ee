//! What users may write in `[mcp.NAME]`, and what they are told where they err.

use std::time::Duration;

use mooring_capability::Effect;
use mooring_mcp::{McpConfig, McpReference, McpTransport, McpValue, ToolFilter};

fn read(toml: &str) -> Result<McpConfig, String> {
    toml::from_str(toml).map_err(|error: toml::de::Error| error.message().to_owned())
}

#[test]
fn a_program_is_read_with_all_that_can_be_said_of_it() {
    let config = read(
        r#"
        command = "server"
        args = ["--quiet"]
        env = { PLAIN = "text", TOKEN = { from_env = "MY_TOKEN" } }
        cwd = "/tools"
        tools = { allow = ["get_*"], deny = ["get_env"] }
        timeout_s = 5
        connect_timeout_s = 3
        effect = { "*" = "idempotent" }
        trust_annotations = true
        "#,
    );
    let reference = McpValue::Reference(McpReference { from_env: "MY_TOKEN".into() });
    let env = [("PLAIN".to_owned(), McpValue::Text("text".into())), ("TOKEN".to_owned(), reference)];
    let expected = McpConfig {
        transport: McpTransport::Stdio {
            command: "server".into(),
            args: vec!["--quiet".into()],
            env: env.into(),
            cwd: Some("/tools".into()),
        },
        tools: ToolFilter { allow: Some(vec!["get_*".into()]), deny: vec!["get_env".into()] },
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(3),
        effect: [("*".to_owned(), Effect::Idempotent)].into(),
        trust_annotations: true,
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn a_url_is_read_and_the_rest_has_defaults() {
    let config = read("url = 'https://example.com/mcp'");
    let expected = McpConfig {
        transport: McpTransport::Http { url: "https://example.com/mcp".into(), headers: [].into() },
        tools: ToolFilter::default(),
        timeout: Duration::from_mins(1),
        connect_timeout: Duration::from_secs(15),
        effect: [].into(),
        trust_annotations: false,
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn an_error_says_what_may_be_written() {
    let errors: Vec<_> = [
        "args = ['x']",
        "command = 'x'\nurl = 'http://x'",
        "url = 'http://x'\nenv = {}",
        "command = 'x'\nheaders = {}",
        "command = 'x'\ncomand = 'y'",
        "command = './x'",
        "command = 'x'\ncwd = 'y'",
        "command = 'x'\ntimeout_s = 0",
        "command = 'x'\nenv = { A = 1 }",
        "command = 'x'\nenv = { A = { from_file = 'y' } }",
        "command = 'x'\neffect = { a = 'none' }",
        "command = 'x'\ntools = { only = ['a'] }",
    ]
    .iter()
    .map(|toml| read(toml).unwrap_err())
    .collect();
    insta::assert_snapshot!(errors.join("\n"));
}
