//! Agents together, from their files to a run's end.

use serde_json::{Value, json};

use crate::moor::{Moor, exec, say};

/// A script's line: the model calls tools by name, each with these arguments.
fn calls(calls: &[(&str, Value)]) -> String {
    let call = |(n, (name, arguments)): (usize, &(&str, Value))| json!({"type": "function_call", "call_id": format!("{name}_{n}"), "name": name, "arguments": arguments.to_string()});
    format!("{}\n", calls.iter().enumerate().map(call).collect::<Value>())
}

fn give(agent: &str, input: &str) -> (String, Value) {
    (agent.to_owned(), json!({"input": input}))
}

#[test]
fn a_conversation_is_handed_over_and_stays_with_the_agent_that_has_it() {
    let moor = Moor::new();
    moor.write(
        "triage.toml",
        "name = \"triage\"\nmodel = \"script:triage.jsonl\"\n[[handoffs]]\nagent = \"agents/billing.toml\"\ndescription = \"Money.\"\n",
    );
    moor.write(
        "triage.jsonl",
        &(exec(0, &["echo seen > note"]) + &calls(&[("transfer_to_billing", json!({}))])),
    );
    moor.write(
        "agents/billing.toml",
        "name = \"billing\"\nmodel = \"script:billing.jsonl\"\n[[handoffs]]\nagent = \"../triage.toml\"\n",
    );
    moor.write("agents/billing.jsonl", &(exec(0, &["cat note"]) + &say("billed") + &say("still here")));
    let ran = moor.run(&["run", "--agent", "triage.toml", "--session", "s", "my bill"]);
    assert_eq!((ran.code, ran.last()["output"].as_str()), (Some(0), Some("billed")), "{}", ran.err);
    let note =
        ran.json().into_iter().find(|event| event["call_id"] == "call_0_0" && event["turn"] == 3).unwrap();
    assert_eq!(note["type"], "tool_requested", "{note}");
    let told = moor.run(&["show", &ran.run()]).out;
    assert!(told.contains("\nbilling goes on\n") && told.contains("│ seen"), "{told}");

    let next = moor.run(&["run", "--session", "s", "and now?"]);
    assert_eq!(next.last()["output"], "still here", "{}", next.err);
    assert_eq!(next.json()[0]["agent"]["name"], "billing");
}

#[test]
fn sub_agents_work_in_copies_of_the_workspace_or_in_their_own() {
    let moor = Moor::new();
    moor.write(
        "lead.toml",
        "name = \"lead\"\nmodel = \"script:lead.jsonl\"\n\
         [[agents]]\nagent = \"forker.toml\"\nsandbox = \"fork\"\n[[agents]]\nagent = \"loner.toml\"\n",
    );
    let (forker, loner) = (give("forker", "change it"), give("loner", "look around"));
    let both = calls(&[(forker.0.as_str(), forker.1), (loner.0.as_str(), loner.1)]);
    moor.write(
        "lead.jsonl",
        &(exec(0, &["echo lead > who; ln -s who link"]) + &both + &exec(1, &["cat who link"]) + &say("end")),
    );
    moor.write("forker.toml", "name = \"forker\"\nmodel = \"script:forker.jsonl\"\n");
    moor.write(
        "forker.jsonl",
        &(exec(0, &["cat link; echo forker > who; cat link"]) + &say("changed my copy")),
    );
    moor.write(
        "loner.toml",
        "name = \"loner\"\nmodel = \"script:loner.jsonl\"\n[manifest.entries]\n\"own.txt\" = {type = \"file\", content = \"mine\"}\n",
    );
    moor.write("loner.jsonl", &(exec(0, &["ls"]) + &say("alone")));
    let ran = moor.run(&["run", "--agent", "lead.toml", "go"]);
    assert_eq!((ran.code, ran.last()["output"].as_str()), (Some(0), Some("end")), "{}", ran.err);
    let run = ran.run();
    let output = |run: &str, turn: u64| {
        let events = moor.events(run);
        let done = events.iter().find(|event| event["type"] == "tool_completed" && event["turn"] == turn);
        done.unwrap_or_else(|| panic!("{events:#?}"))["output"]["output"].as_str().unwrap().to_owned()
    };
    assert!(
        output(&format!("{run}-2-0"), 1).ends_with("lead\nforker\n"),
        "{}",
        output(&format!("{run}-2-0"), 1)
    );
    assert!(output(&format!("{run}-2-1"), 1).ends_with("\nown.txt\n"));
    assert!(output(&run, 3).ends_with("lead\nlead\n"), "the copy's changes stay in the copy");

    let listed = moor.run(&["runs", "--json"]).json();
    let parents: Vec<&Value> = listed.iter().map(|row| &row["parent"]).collect();
    assert_eq!(parents.iter().filter(|parent| parent.as_str() == Some(&run)).count(), 2);
}

#[test]
fn an_approval_of_a_sub_agent_is_asked_answered_and_gone_on_with_in_three_processes() {
    let moor = Moor::new();
    moor.write(
        "lead.toml",
        "name = \"lead\"\nmodel = \"script:lead.jsonl\"\n[[agents]]\nagent = \"payer.toml\"\n",
    );
    let (one, two) = (give("payer", "one"), give("payer", "two"));
    moor.write("lead.jsonl", &(calls(&[(&one.0, one.1), (&two.0, two.1)]) + &say("all paid")));
    moor.write(
        "payer.toml",
        "name = \"payer\"\nmodel = \"script:payer.jsonl\"\n[[policy.rules]]\ntool = \"exec_command\"\naction = \"ask\"\n",
    );
    moor.write("payer.jsonl", &(exec(0, &["echo paid"]) + &say("paid")));
    let ran = moor.run(&["run", "--agent", "lead.toml", "pay"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let run = ran.run();
    let waiting = moor.run(&["approvals", "--json"]).json();
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    let child = waiting[0]["run"].as_str().unwrap();
    let refused = moor.run(&["resume", child]);
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains(&format!("use {run} instead")), "{}", refused.err);

    let allowed = moor.run(&["approve", waiting[0]["id"].as_str().unwrap()]);
    assert_eq!(allowed.out, format!("approved; go on with: moor resume {run}\n"));
    assert_eq!(moor.run(&["resume", &run]).code, Some(3), "one still waits");
    moor.run(&["deny", waiting[1]["id"].as_str().unwrap(), "--reason", "twice"]);
    let last = moor.run(&["resume", &run]);
    assert_eq!((last.code, last.last()["output"].as_str()), (Some(0), Some("all paid")), "{}", last.err);
    let statuses = |child: &str| -> Vec<String> {
        let events = moor.events(child);
        let done = events.iter().filter(|event| event["type"] == "tool_completed");
        done.map(|event| event["status"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(statuses(waiting[0]["run"].as_str().unwrap()), ["completed"]);
    assert_eq!(statuses(waiting[1]["run"].as_str().unwrap()), ["denied"]);
}

#[test]
fn what_is_wrong_with_a_team_is_told_with_the_file() {
    let moor = Moor::new();
    let said = |text: &str| {
        moor.write("lead.toml", text);
        let ran = moor.run(&["run", "--agent", "lead.toml", "--model", "script:s.jsonl", "go"]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        ran.err.replace(&moor.dir.path().display().to_string(), "DIR")
    };
    moor.write("s.jsonl", &say("x"));
    moor.write("twin.toml", "name = \"lead\"\n");
    let told = [
        said("[[agents]]\nagent = \"nowhere.toml\"\n"),
        said("name = \"lead\"\n[[agents]]\nagent = \"twin.toml\"\n"),
        said("[[agents]]\nagent = \"twin.toml\"\nsandbox = \"shared\"\n"),
        said("[[handoffs]]\nagent = \"twin.toml\"\nfilter = \"some\"\n"),
    ];
    insta::assert_snapshot!(told.concat());
}
