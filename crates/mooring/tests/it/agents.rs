//! Agents: what fits together, and how they work together.

use std::collections::BTreeMap;

use mooring::{Agent, Limits, Prices, Run, Runtime, Status, tool};
use serde_json::json;

use crate::words::{calls, says, script};

/// Reads a page.
#[tool(effect = "pure")]
async fn page(number: u32) -> String {
    format!("page {number}")
}

fn problem(builder: mooring::AgentBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_told_before_anything_starts() {
    let model = || script(&[says("hello")]);
    let mate = |name: &str| Agent::builder(name).model(model()).build().unwrap();
    let problems = [
        problem(Agent::builder("").model(model())),
        problem(Agent::builder("a")),
        problem(Agent::builder("a").model("gpt-5")),
        problem(Agent::builder("a").model(model()).capability("telepathy")),
        problem(Agent::builder("a").model(model()).capability("shell")),
        problem(Agent::builder("a").model(model()).handoff(&mate("a"))),
        problem(Agent::builder("a").model(model()).handoff(&mate("b")).sub_agent(&mate("b"))),
    ];
    insta::assert_snapshot!(problems.join("\n"), @"");
    let same = mate("b");
    Agent::builder("a").model(model()).handoff(&same).sub_agent(&same).build().unwrap();
}

#[tokio::test]
async fn a_tool_of_the_same_name_twice_is_refused() {
    let agent = Agent::builder("a").model(script(&[says("hello")])).tool(page).tool(page).build().unwrap();
    let error = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap_err();
    assert!(error.to_string().contains("two tools named 'page'"), "{error}");
}

#[tokio::test]
async fn a_sub_agent_works_as_a_tool_and_a_handoff_lets_another_go_on() {
    let reader = Agent::builder("reader")
        .description("Reads books.")
        .model(script(&[calls(&[("page", json!({"number": 7}))]), says("it says: page 7")]))
        .tool(page)
        .build()
        .unwrap();
    let closer =
        Agent::builder("closer").model(script(&[says("goodbye"), says("still here")])).build().unwrap();
    let boss = Agent::builder("boss")
        .model(script(&[
            calls(&[("reader", json!({"input": "Read page 7."}))]),
            calls(&[("transfer_to_closer", json!({}))]),
        ]))
        .sub_agent(&reader)
        .handoff(&closer)
        .build()
        .unwrap();
    let prices: Prices = serde_json::from_value(json!({"script": {"input": 1, "output": 1}})).unwrap();
    let runtime = Runtime::in_memory().with_prices(prices);
    let run = Run::start(&runtime, &boss, "go").await.unwrap();
    assert_eq!((run.status(), run.output()), (Status::Completed, Some("goodbye")), "{:?}", run.error());
    assert_eq!(run.spent().turns, 5);
    assert_eq!(run.cost().await.unwrap().unwrap().to_string(), "$0");
    assert!(Runtime::in_memory().journal().runs(None).await.unwrap().is_empty());
    // Whoever the conversation was handed over to answers next.
    let next = run.reply("are you there?").await.unwrap();
    assert_eq!(next.output(), Some("still here"), "{:?}", next.error());
}

#[tokio::test]
async fn limits_and_a_clock_are_the_programs_own() {
    let lines = vec![calls(&[("page", json!({"number": 1}))]); 5];
    let limits = Limits { max_turns: 3, ..Limits::default() };
    let agent = Agent::builder("a").model(script(&lines)).tool(page).limits(limits).build().unwrap();
    let run = Run::start(&Runtime::in_memory().with_clock(|| 42), &agent, "go").await.unwrap();
    assert_eq!((run.status(), run.error().unwrap().code.as_str()), (Status::Failed, "max_turns"));
    let times: BTreeMap<i64, usize> =
        run.events().await.unwrap().iter().fold(BTreeMap::new(), |mut times, record| {
            *times.entry(record.at_ms).or_default() += 1;
            times
        });
    assert_eq!(times.into_keys().collect::<Vec<_>>(), [42]);
}
