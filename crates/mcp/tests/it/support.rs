//! Servers of the tests, and short ways to call their tools.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mooring_capability::{Tool, ToolContext, ToolInput, ToolResult, ToolStatus};
use mooring_mcp::{McpConfig, McpFailure, McpServers};
use mooring_model::FunctionOutput;
use mooring_sandbox::NoSandbox;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// The server that comes with the tests.
pub(crate) const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_server.py");

/// A file of a counterpart, where the setup puts it.
pub(crate) fn counterpart(place: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/counterparts").join(place);
    assert!(path.exists(), "{} is missing: run `./scripts/setup --tests`", path.display());
    path.to_str().unwrap().to_owned()
}

/// The reference server of npm.
pub(crate) fn everything_script() -> String {
    counterpart("node_modules/@modelcontextprotocol/server-everything/dist/index.js")
}

/// A section of the configuration file, read.
pub(crate) fn config(toml: &str) -> McpConfig {
    // Starting takes long where many tests run at once.
    let slow = if toml.contains("connect_timeout_s") { "" } else { "connect_timeout_s = 120\n" };
    toml::from_str(&format!("{slow}{toml}")).unwrap()
}

/// The reference server over stdio, with more lines of its section.
pub(crate) fn everything(more: &str) -> McpConfig {
    config(&format!("command = 'node'\nargs = ['{}', 'stdio']\n{more}", everything_script()))
}

/// The misbehaving server with these arguments and more lines of its section.
pub(crate) fn fake(arguments: &[&str], more: &str) -> McpConfig {
    let arguments = [&[FAKE], arguments].concat().join("', '");
    config(&format!("command = '/usr/bin/python3'\nargs = ['{arguments}']\n{more}"))
}

/// What the program would look up in its environment.
pub(crate) fn resolve(name: &str) -> Option<String> {
    match name {
        "PATH" | "HOME" => std::env::var(name).ok(),
        "TOKEN" => Some("s3cret".into()),
        _ => None,
    }
}

/// Connects servers by name.
pub(crate) async fn connect<const N: usize>(
    configs: [(&str, McpConfig); N],
) -> (McpServers, Vec<McpFailure>) {
    rustls::crypto::ring::default_provider().install_default().ok();
    let configs: BTreeMap<_, _> =
        configs.into_iter().map(|(name, config)| (name.to_owned(), config)).collect();
    McpServers::connect(configs, &resolve).await
}

/// Connects one server that has to work.
pub(crate) async fn connect_one(config: McpConfig) -> McpServers {
    let (servers, failures) = connect([("s", config)]).await;
    assert!(failures.is_empty(), "{}", failures[0]);
    servers
}

/// Connects one server that has to fail, and gives the report.
pub(crate) async fn refused(config: McpConfig) -> String {
    let (servers, failures) = connect([("s", config)]).await;
    assert!(all(&servers).is_empty());
    assert_eq!(failures.len(), 1);
    failures[0].to_string()
}

/// The tools of all servers.
pub(crate) fn all(servers: &McpServers) -> Vec<Arc<dyn Tool>> {
    let names: Vec<String> = servers.servers().map(|info| info.name.clone()).collect();
    servers.tools(&names)
}

/// The names of all tools.
pub(crate) fn names(servers: &McpServers) -> Vec<String> {
    all(servers).iter().map(|tool| tool.spec().name).collect()
}

/// A tool by its whole name.
pub(crate) fn tool(servers: &McpServers, name: &str) -> Arc<dyn Tool> {
    let mut tools = all(servers).into_iter();
    let found = tools.find(|tool| tool.spec().name == name);
    found.unwrap_or_else(|| panic!("there is no tool {name}"))
}

/// What the harness gives a tool.
pub(crate) fn context() -> ToolContext {
    ToolContext { session: Arc::new(NoSandbox), key: "run-1/call-1".into(), progress: Arc::new(|_| {}) }
}

/// Calls a tool.
pub(crate) async fn call(servers: &McpServers, name: &str, arguments: Value) -> ToolResult {
    tool(servers, name).call(&context(), &ToolInput::Json(arguments), &Value::Null).await
}

/// Calls a tool that has to do its work, and gives its text.
pub(crate) async fn done(servers: &McpServers, name: &str, arguments: Value) -> String {
    text_of(call(servers, name, arguments).await, ToolStatus::Completed)
}

/// Calls a tool that has to fail, and gives its text.
pub(crate) async fn failed(servers: &McpServers, name: &str, arguments: Value) -> String {
    text_of(call(servers, name, arguments).await, ToolStatus::Failed)
}

pub(crate) fn text_of(result: ToolResult, status: ToolStatus) -> String {
    assert_eq!(result.status, status, "{:?}", result.output);
    match result.output {
        FunctionOutput::Text(text) => text,
        FunctionOutput::Parts(parts) => panic!("{parts:?}"),
    }
}

/// A line of a section that marks a server's processes, and the mark.
pub(crate) fn mark(test: &str) -> (String, String) {
    let value = format!("{test}-{}", std::process::id());
    (format!("env = {{ MOOR_TEST_MARK = '{value}' }}"), format!("MOOR_TEST_MARK={value}"))
}

/// Kills the marked processes.
pub(crate) fn kill(mark: &str) {
    for process in processes_with(mark) {
        let pid = process.file_name().unwrap().to_str().unwrap();
        assert!(std::process::Command::new("kill").args(["-9", pid]).status().unwrap().success());
    }
}

/// The processes that have this text in their environment, and those that ended and were not waited for.
pub(crate) fn processes_with(mark: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let marked = all.filter(|path| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        // One that ends has no environment any more, and is a zombie a moment later.
        let ending = environment.is_empty() && status.contains(&format!("PPid:\t{}\n", std::process::id()));
        ending || environment.windows(mark.len()).any(|window| window == mark.as_bytes())
    });
    marked.collect()
}

/// Waits until no marked process is left: one that was killed takes a moment to go.
pub(crate) async fn gone(mark: &str) {
    let until = Instant::now() + Duration::from_mins(1);
    while !processes_with(mark).is_empty() {
        assert!(Instant::now() < until, "still there: {:?}", processes_with(mark));
        sleep(Duration::from_millis(20)).await;
    }
}
