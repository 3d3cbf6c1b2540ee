//! Long conversations, from the agent file to what people are told.

use serde_json::{Value, json};

use crate::moor::{Moor, exec, say};

/// A script's line that a provider counted.
fn counted(line: &str, input: u64) -> String {
    let output: Value = serde_json::from_str(line).unwrap();
    format!("{}\n", json!({"output": output, "usage": {"input_tokens": input, "output_tokens": 100}}))
}

#[test]
fn a_conversation_is_shortened_and_what_still_runs_is_carried_over() {
    let moor = Moor::new();
    moor.write(
        "agent.toml",
        "model = \"script:work.jsonl\"\n[compaction]\nat_tokens = 60000\nkeep_turns = 1\nmodel = \"script:notes.jsonl\"\n",
    );
    let long = format!("seq 1 {}", 20_000);
    let lines = [
        counted(
            &exec(0, &["sleep 300"]).replace("sleep 300\\\"", "sleep 300\\\",\\\"yield_time_ms\\\":250"),
            5_000,
        ),
        counted(&exec(1, &[&long, &long, &long]), 8_000),
        counted(&exec(2, &["true"]), 70_000),
        say("done"),
    ];
    moor.write("work.jsonl", &lines.concat());
    moor.write("notes.jsonl", &say("A server was started; numbers were counted."));
    let ran = moor.run(&["run", "--agent", "agent.toml", "count, and keep the server"]);
    assert_eq!((ran.code, ran.last()["output"].as_str()), (Some(0), Some("done")), "{}", ran.err);
    let swap = ran.json().into_iter().find(|event| event["type"] == "compacted").unwrap();
    let summary =
        swap["items"].as_array().unwrap().last().unwrap()["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(summary.contains("numbers were counted.") && summary.contains(": sleep 300"), "{summary}");
    assert!(summary.contains(&format!("moor show {} --full", ran.run())), "{summary}");
    let told = moor.run(&["show", &ran.run()]).out;
    assert!(told.contains("shortened ·") && told.contains("numbers were counted."), "{told}");
    // All of it is still there.
    assert!(moor.run(&["show", &ran.run(), "--full"]).out.contains("\n  │ 19999"));
}

#[test]
fn a_provider_that_cannot_shorten_is_told_before_anything_starts() {
    let moor = Moor::new();
    moor.write("agent.toml", "model = \"chat/m\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[compaction]\nat_tokens = 1000\nprovider = true\n");
    let ran = moor.run(&["run", "--agent", "agent.toml", "go"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("compaction.provider: chat/m"), "{}", ran.err);
}
