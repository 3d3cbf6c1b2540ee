//! What a workspace says about itself reaches the model, as untrusted content.

use serde_json::json;

use crate::moor::{Moor, exec, say};

fn workspace(moor: &Moor) {
    moor.write("project/AGENTS.md", "Use tabs.\n```\nnot the end\n");
    moor.write(
        "project/skills/greet/SKILL.md",
        "---\nname: greet\ndescription: How to greet people here.\n---\nSay ahoy.\n",
    );
    moor.write("project/skills/broken/SKILL.md", "no front matter");
    moor.write("m.yaml", "entries:\n  skills: {type: local_dir, src: project/skills}\n  AGENTS.md: {type: local_file, src: project/AGENTS.md}\n");
}

#[test]
fn guidance_and_skills_come_before_the_first_answer() {
    let moor = Moor::new();
    workspace(&moor);
    moor.write("agent.toml", "model = \"script:s.jsonl\"\nmanifest = \"m.yaml\"\ncapabilities = [\"filesystem\", \"shell\", \"skills\"]\n");
    let load = json!([{"type": "function_call", "call_id": "c", "name": "load_skill", "arguments": "{\"name\": \"greet\"}"}]);
    moor.write("s.jsonl", &format!("{load}\n{}", say("ahoy")));
    let ran = moor.run(&["run", "--agent", "agent.toml", "greet"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let events = ran.json();
    let context = events.iter().find(|event| event["type"] == "context_added").unwrap();
    assert_eq!(context["sources"], json!(["AGENTS.md", "skills/greet/SKILL.md"]));
    assert_eq!(context["problems"].as_array().unwrap().len(), 1, "{context}");
    let text = context["items"][0]["content"][0]["text"].as_str().unwrap();
    assert!(
        text.contains("Use tabs.")
            && text.contains("How to greet people here.")
            && !text.contains("Say ahoy.")
    );
    let asked = events.iter().find(|event| event["type"] == "model_requested").unwrap();
    assert_eq!(asked["items"], 2, "the user's words and the workspace's");
    let mut listed = moor.run(&["runs", "--json"]).json();
    assert_eq!(listed.remove(0)["input"], "greet", "what the user asked is what listings show");
    let loaded = events.iter().find(|event| event["type"] == "tool_completed").unwrap();
    assert!(loaded["output"]["output"].as_str().unwrap().contains("Say ahoy."), "{loaded}");
    let shown = moor.run(&["show", &ran.run()]).out;
    assert!(shown.contains("the workspace says: AGENTS.md, skills/greet/SKILL.md"), "{shown}");
}

#[test]
fn an_agent_can_do_without() {
    let moor = Moor::new();
    workspace(&moor);
    moor.write("agent.toml", "model = \"script:s.jsonl\"\nmanifest = \"m.yaml\"\nguidance = false\n");
    moor.write("s.jsonl", &say("hello"));
    let ran = moor.run(&["run", "--agent", "agent.toml", "greet"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.out.contains("context_added"));
}

#[test]
fn long_output_is_kept_in_the_workspace() {
    let moor = Moor::new();
    moor.write("s.jsonl", &[exec(0, &["seq 1 20000"]), say("counted")].concat());
    let ran = moor.run(&["run", "--model", "script:s.jsonl", "--workspace", "ws", "count"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let done = ran.json().into_iter().find(|event| event["type"] == "tool_completed").unwrap();
    let text = done["output"]["output"].as_str().unwrap();
    let line = text.lines().find(|line| line.starts_with("Full output: ")).unwrap();
    let file = line["Full output: ".len()..].split(' ').next().unwrap();
    let whole = fs_err::read_to_string(moor.path("ws").join(file)).unwrap();
    let numbers: Vec<u32> = whole.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=20_000).collect::<Vec<_>>());
    assert!(text.len() < 60_000);
}
