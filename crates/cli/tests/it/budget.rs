//! Budgets from the files to the end of a run: prices, tenants, accounts.

use serde_json::{Value, json};

use crate::moor::{Moor, exec};

/// A script's line that a provider counted: 1,000 tokens read and 100 produced.
fn counted(line: &str) -> String {
    let output: Value = serde_json::from_str(line).unwrap();
    let usage = json!({"input_tokens": 1_000, "output_tokens": 100});
    format!("{}\n", json!({"output": output, "usage": usage}))
}

fn busy(moor: &Moor) {
    let lines: String = (0..20).map(|turn| counted(exec(turn, &["true"]).trim())).collect();
    moor.write("busy.jsonl", &lines);
}

#[test]
fn money_is_limited_where_the_price_is_known() {
    let moor = Moor::new();
    busy(&moor);
    moor.write("agent.toml", "model = \"script:busy.jsonl\"\n[limits]\nmax_cost = 0.01\n");
    let refused = moor.run(&["run", "--agent", "agent.toml", "go"]);
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("max_cost needs to know what script:"), "{}", refused.err);
    moor.write("home/config.toml", "[prices.\"script:*\"]\ninput = 1\noutput = 10\n");
    let ran = moor.run(&["run", "--agent", "agent.toml", "go"]);
    assert_eq!(
        (ran.code, &ran.last()["error"]["code"]),
        (Some(1), &json!("budget_exhausted")),
        "{}",
        ran.err
    );
    // $0.002 a turn.
    assert!(ran.last()["turns"].as_u64().unwrap() <= 5, "{}", ran.last());
    let told = moor.run(&["show", &ran.run()]).out;
    assert!(
        told.contains("budget_exhausted: the run used $0.0") && told.contains("Raise max_cost"),
        "{told}"
    );
}

#[test]
fn runs_of_a_tenant_share_an_account_across_processes() {
    let moor = Moor::new();
    busy(&moor);
    moor.write("home/config.toml", "tenant = \"acme\"\n[tenants.acme]\nmax_tokens = 20000\nper = \"month\"\n[tenants.other]\nmax_turns = 2\n");
    moor.write("agent.toml", "model = \"script:busy.jsonl\"\n[limits]\nmax_tokens = 12000\n");
    let ran = moor.run(&["run", "--agent", "agent.toml", "go"]);
    let first = moor.run(&["budget", "--json"]).json();
    let acme = first.iter().find(|line| line["account"].as_str().unwrap().starts_with("acme 20")).unwrap();
    let used = acme["used"]["max_tokens"].as_u64().unwrap();
    let usage = &ran.last()["usage"];
    assert_eq!(used, usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap());
    assert_eq!((&acme["limit"]["max_tokens"], &acme["runs"]), (&json!(20_000), &json!([])));
    // The second gets what is left, and says who has it.
    let ran = moor.run(&["run", "--agent", "agent.toml", "go"]);
    let message = ran.last()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("what the tenant 'acme' had left"), "{message}");
    let granted = ran.json().into_iter().find(|event| event["type"] == "budget_granted").unwrap();
    assert_eq!(granted["granted"]["max_tokens"], 20_000 - used);
    // Another tenant, by name.
    let ran = moor.run(&["run", "--agent", "agent.toml", "--tenant", "other", "go"]);
    assert_eq!(ran.last()["turns"], 2, "{}", ran.last());
    let unknown = moor.run(&["run", "--agent", "agent.toml", "--tenant", "nobody", "go"]);
    assert!(unknown.err.contains("there is no tenant 'nobody' (there are: acme, other)"), "{}", unknown.err);
}

#[test]
fn what_a_killed_run_set_aside_is_given_back_by_name() {
    let moor = Moor::new();
    moor.write("home/config.toml", "[tenants.acme]\nmax_tokens = 20000\n");
    moor.write("agent.toml", "model = \"script:slow.jsonl\"\ntenant = \"acme\"\n");
    moor.write("slow.jsonl", &counted(exec(0, &["sleep 60"]).trim()));
    let mut command = moor.command(&["run", "--agent", "agent.toml", "--json", "go"]);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let run = loop {
        let lines = moor.run(&["budget", "--json"]).json();
        if let Some(run) = lines.iter().find_map(|line| line["runs"][0]["run"].as_str())
            && moor.events(run).iter().any(|event| event["type"] == "tool_requested")
        {
            break run.to_owned();
        }
    };
    let busy = moor.run(&["budget", "--settle", &run]);
    assert!(busy.err.contains("is being driven"), "{}", busy.err);
    child.kill().unwrap();
    child.wait().unwrap();
    let settled = moor.run(&["budget", "--settle", &run, "--json"]);
    let line = settled.json().remove(0);
    assert_eq!((&line["used"]["max_tokens"], &line["reserved"]), (&json!(1_100), &json!({})), "{line}");
    let again = moor.run(&["budget", "--settle", &run]);
    assert_eq!(again.code, Some(2), "{}", again.out);
}

#[test]
fn a_limit_that_is_misspelt_is_refused() {
    let moor = Moor::new();
    moor.write("home/config.toml", "[tenants.acme]\nmax_tokes = 20000\n");
    let refused = moor.run(&["budget"]);
    assert!(refused.err.contains("max_tokes"), "{}", refused.err);
}
