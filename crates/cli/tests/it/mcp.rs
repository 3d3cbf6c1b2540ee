//! Tools of a real MCP server, from the configuration to the model and back.

use serde_json::json;

use crate::moor::{Moor, Ran, repository, say};

fn call(tool: &str, arguments: &serde_json::Value) -> String {
    let call = json!({"type": "function_call", "call_id": "call_0", "name": tool, "arguments": arguments.to_string()});
    format!("{}\n", json!([call]))
}

/// A user whose configuration describes the reference server and one that does not exist.
fn user(policy: &str) -> Moor {
    let moor = Moor::new();
    let server = repository()
        .join("target/counterparts/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    assert!(server.exists(), "{} is missing: run ./scripts/setup --tests", server.display());
    moor.write(
        "home/config.toml",
        &format!(
            "[mcp.everything]\ncommand = \"node\"\nargs = [\"{}\", \"stdio\"]\nconnect_timeout_s = 60\n\
             [mcp.gone]\ncommand = \"/no/such/server\"\n",
            server.display()
        ),
    );
    moor.write(
        "agent.toml",
        &format!(
            "model = \"script:script.jsonl\"\nmcp = [\"everything\", \"gone\"]\ncapabilities = []\n{policy}"
        ),
    );
    let lines = [call("everything__echo", &json!({"message": "ahoy"})), say("echoed")];
    moor.write("script.jsonl", &lines.concat());
    moor
}

/// `moor` with the `PATH` of these tests, which has `node`.
fn run(moor: &Moor, args: &[&str]) -> Ran {
    let path = std::env::var_os("PATH").unwrap();
    moor.command(args).env("PATH", path).output().unwrap().into()
}

#[test]
fn a_server_outside_of_the_sandbox_is_asked_for_first() {
    let moor = user("");
    let ran = run(&moor, &["run", "--agent", "agent.toml", "echo ahoy"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("MCP server `gone`"), "one that fails is told and harms no other: {}", ran.err);
    let approval = &moor.run(&["approvals", "--json"]).json()[0];
    assert_eq!(approval["tool"], "everything__echo");
    assert_eq!(approval["reason"], "it acts outside of a sandbox, and no rule allows it");
    assert_eq!(moor.run(&["approve", approval["id"].as_str().unwrap()]).code, Some(0));
    let resumed = run(&moor, &["resume", &ran.run()]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.err);
    let done = resumed.json().into_iter().find(|event| event["type"] == "tool_completed").unwrap();
    assert!(done["output"]["output"].to_string().contains("ahoy"), "{done}");
    assert_eq!((done["status"].as_str(), done["provenance"].as_str()), (Some("completed"), Some("tool")));
}

#[test]
fn a_rule_can_allow_it() {
    let moor = user("[[policy.rules]]\ntool = \"everything__*\"\naction = \"allow\"\n");
    let ran = run(&moor, &["run", "--agent", "agent.toml", "echo ahoy"]);
    assert_eq!((ran.code, ran.last()["output"].as_str()), (Some(0), Some("echoed")), "{}", ran.err);
}

#[test]
fn an_agent_file_cannot_bring_a_server_along() {
    let moor = user("");
    moor.write("agent.toml", "model = \"script:script.jsonl\"\nmcp = [\"mine\"]\n");
    let ran = run(&moor, &["run", "--agent", "agent.toml", "echo ahoy"]);
    assert_eq!(ran.code, Some(2));
    insta::assert_snapshot!(ran.err, @"error: mcp: the configuration file describes no server 'mine' (it describes: everything, gone). Add [mcp.mine] to it");
}

/// The server asks a person in the middle of a call. It is made with the official Python SDK.
#[test]
fn a_servers_question_is_asked_answered_and_gone_on_with_in_three_processes() {
    let moor = Moor::new();
    let python = repository().join("target/counterparts/venv/bin/python");
    let server = repository().join("crates/mcp/tests/it/asking_server.py");
    moor.write(
        "home/config.toml",
        &format!(
            "[mcp.bank]\ncommand = \"{}\"\nargs = [\"{}\", \"{}\"]\nconnect_timeout_s = 60\n",
            python.display(),
            server.display(),
            moor.path("log").display()
        ),
    );
    moor.write(
        "agent.toml",
        "model = \"script:script.jsonl\"\nmcp = [\"bank\"]\ncapabilities = []\n\
         [[policy.rules]]\ntool = \"bank__pay\"\naction = \"allow\"\n",
    );
    moor.write("script.jsonl", &(call("bank__pay", &json!({"to": "ann"})) + &say("paid")));
    let ran = run(&moor, &["run", "--agent", "agent.toml", "pay ann"]);
    assert_eq!(ran.code, Some(3), "{}\n{}", ran.out, ran.err);
    let waiting = &moor.run(&["approvals", "--json"]).json()[0];
    assert_eq!(waiting["reason"], "bank, tool pay, asks: How much for ann?");
    let id = waiting["id"].as_str().unwrap();

    let without = moor.run(&["approve", id]);
    assert_eq!(without.code, Some(2));
    assert!(without.err.contains("asks for input") && without.err.contains("euros"), "{}", without.err);
    assert_eq!(moor.run(&["approve", id, "--input", "seven"]).code, Some(2));
    assert_eq!(moor.run(&["approve", id, "--input", "{\"euros\": 7}"]).code, Some(0));
    let resumed = run(&moor, &["resume", &ran.run()]);
    assert_eq!((resumed.code, resumed.last()["output"].as_str()), (Some(0), Some("paid")), "{}", resumed.err);
    assert_eq!(fs_err::read_to_string(moor.path("log")).unwrap(), "ann 7\n");
    let done = resumed.json().into_iter().find(|event| event["type"] == "tool_completed").unwrap();
    assert_eq!(done["output"]["output"], "paid 7 to ann");
}
