//! Agents together: handoffs, sub-agents, and what they share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mooring_harness::{
    Answer, Handoff, HandoffFilter, HarnessError, Host, InputFilter, NewRun, Status, SubAgent, SubSandbox,
    answer, fold, resume, start,
};
use mooring_journal::{Event, Journal, MemoryJournal, RunId};
use mooring_model::{Item, ModelClient};
use serde_json::{Value, json};

use crate::world::{World, call, events, host, member, new_run, script, seat, tools};

pub(crate) fn handoff(agent: &str, filter: HandoffFilter) -> Handoff {
    Handoff { agent: agent.into(), tool: None, description: String::new(), filter }
}

pub(crate) fn sub_agent(agent: &str) -> SubAgent {
    SubAgent { agent: agent.into(), tool: None, description: String::new(), sandbox: SubSandbox::Own }
}

pub(crate) fn give(agent: &str, call_id: &str, input: &str) -> Item {
    Item::FunctionCall {
        call_id: call_id.into(),
        name: agent.into(),
        arguments: json!({"input": input}).to_string(),
        extra: serde_json::Map::new(),
    }
}

/// A journal, a world, and a script for each agent.
pub(crate) struct Stage {
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) world: Arc<World>,
    scripts: BTreeMap<&'static str, Vec<Vec<Item>>>,
    clock: Arc<AtomicI64>,
}

impl Stage {
    pub(crate) fn new(scripts: impl IntoIterator<Item = (&'static str, Vec<Vec<Item>>)>) -> Self {
        Self {
            journal: Arc::new(MemoryJournal::new()),
            world: Arc::new(World::default()),
            scripts: scripts.into_iter().collect(),
            clock: Arc::new(AtomicI64::new(1_700_000_000_000)),
        }
    }

    pub(crate) fn host(&self) -> Host {
        let (mut host, _) =
            host(Arc::clone(&self.journal) as Arc<dyn Journal>, script(vec![]), tools(&self.world));
        let agent = |(name, turns): (&&str, &Vec<Vec<Item>>)| {
            let model: Arc<dyn ModelClient> = script(turns.clone());
            let tools = if turns.iter().flatten().any(|item| matches!(item, Item::FunctionCall { .. })) {
                tools(&self.world)
            } else {
                Vec::new()
            };
            ((*name).to_owned(), seat(model, tools))
        };
        // One clock for all drivers, as on one machine.
        let clock = Arc::clone(&self.clock);
        host.now_ms = Arc::new(move || clock.fetch_add(1, Ordering::Relaxed));
        host.agents = Arc::new(self.scripts.iter().map(agent).collect());
        host
    }

    /// A run of the agent `tester`, with all others as its team.
    pub(crate) fn run(&self, id: &str) -> NewRun {
        let mut new = new_run(id);
        new.entry.agent.model = "script:tester".into();
        for name in self.scripts.keys().filter(|name| **name != "tester") {
            let mut mate = member(name);
            mate.agent.model = format!("script:{name}");
            new.team.insert((*name).to_owned(), mate);
        }
        new
    }

    pub(crate) async fn runs(&self) -> Vec<String> {
        let mut runs: Vec<String> =
            self.journal.runs(None).await.unwrap().into_iter().map(|row| row.id.0).collect();
        runs.sort();
        runs
    }
}

pub(crate) fn outputs(items: &[Item]) -> Vec<String> {
    let text = |item: &Item| match item {
        Item::FunctionCallOutput { output, .. } => Some(output.text()),
        _ => None,
    };
    items.iter().filter_map(text).collect()
}

#[tokio::test]
async fn a_handoff_lets_the_other_agent_go_on_with_its_own_tools_and_instructions() {
    let stage = Stage::new([
        ("tester", vec![vec![call("look", "a"), call("transfer_to_payer", "h")]]),
        ("payer", vec![vec![call("pay", "p")], vec![Item::assistant("paid")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.handoffs = vec![handoff("payer", HandoffFilter::All)];
    new.team.get_mut("payer").unwrap().instructions = "You pay.".into();
    let finished = start(&stage.host(), new).await.unwrap();
    assert_eq!((finished.status, finished.output.as_deref()), (Status::Completed, Some("paid")));
    assert_eq!((stage.world.done("a"), stage.world.done("p")), (1, 1));
    let state = fold(stage.journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    assert_eq!((state.agent.name.as_str(), state.instructions()), ("payer", "You pay."));
    assert_eq!(outputs(&state.items), ["changed a", r#"{"assistant":"payer"}"#, "changed p"]);
}

#[tokio::test]
async fn only_the_first_handoff_of_a_turn_is_taken() {
    let stage = Stage::new([
        ("tester", vec![vec![call("transfer_to_one", "h1"), call("transfer_to_two", "h2")]]),
        ("one", vec![vec![Item::assistant("one speaking")]]),
        ("two", vec![vec![Item::assistant("two speaking")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.handoffs = vec![handoff("one", HandoffFilter::All), handoff("two", HandoffFilter::All)];
    let finished = start(&stage.host(), new).await.unwrap();
    assert_eq!(finished.output.as_deref(), Some("one speaking"));
    let state = fold(stage.journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    assert!(outputs(&state.items)[1].contains("handed over to one already"));
}

#[tokio::test]
async fn a_filter_decides_what_the_next_agent_gets_and_the_journal_keeps_the_rest() {
    for (filter, left) in [
        (HandoffFilter::All, 4),
        // The user's words, the model's, and the note that it was handed over.
        (HandoffFilter::NoTools, 3),
        (HandoffFilter::Folded, 1),
        (HandoffFilter::LastMessage, 1),
    ] {
        let stage = Stage::new([
            ("tester", vec![vec![Item::assistant("a moment"), call("transfer_to_other", "h")]]),
            ("other", vec![vec![Item::assistant("done")]]),
        ]);
        let mut new = stage.run("r");
        new.entry.agent.handoffs = vec![handoff("other", filter.clone())];
        start(&stage.host(), new).await.unwrap();
        let asked: Vec<u64> = events(stage.journal.as_ref(), "r")
            .await
            .iter()
            .filter_map(|record| match &record.event {
                Event::ModelRequested(asked) => Some(asked.items),
                _ => None,
            })
            .collect();
        assert_eq!(asked, [1, left], "{filter:?}");
        let state = fold(stage.journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
        if filter == HandoffFilter::Folded {
            assert!(state.items[0].text().contains("user: change the world\n\nassistant: a moment"));
        }
    }
}

/// Leaves the last item, and fails as often as it is told to.
#[derive(Debug)]
struct LastItem(AtomicI64);

impl InputFilter for LastItem {
    fn name(&self) -> &'static str {
        "last_item"
    }

    fn filter(&self, items: &[Item]) -> Result<Vec<Item>, Box<dyn std::error::Error + Send + Sync>> {
        if self.0.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Err("its table is locked".into());
        }
        assert!(matches!(items.last(), Some(Item::FunctionCallOutput { .. })), "{items:?}");
        Ok(vec![Item::user("go on alone")])
    }
}

#[tokio::test]
async fn a_filter_may_be_code_and_one_that_fails_ends_the_run_until_it_is_resumed() {
    let stage = Stage::new([
        ("tester", vec![vec![Item::assistant("a moment"), call("transfer_to_other", "h")]]),
        ("other", vec![vec![Item::assistant("done")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.handoffs = vec![handoff("other", HandoffFilter::Code("last_item".into()))];
    let error = start(&stage.host(), new.clone()).await.unwrap_err();
    assert!(error.to_string().contains("the filter 'last_item' is code that was not given"), "{error}");
    assert!(stage.runs().await.is_empty(), "it is refused before anything is recorded");

    let mut host = stage.host();
    let mut agents = BTreeMap::clone(&host.agents);
    agents.get_mut("tester").unwrap().filters.push(Arc::new(LastItem(AtomicI64::new(1))));
    host.agents = Arc::new(agents);
    let failed = start(&host, new).await.unwrap();
    let error = failed.error.unwrap();
    assert_eq!((failed.status, error.code.as_str()), (Status::Failed, "handoff_filter"));
    assert!(error.message.contains("its table is locked"), "{}", error.message);
    // A driver that has no such code cannot go on either, and says so.
    let failed = resume(&stage.host(), &RunId("r".into())).await.unwrap();
    assert!(failed.error.unwrap().message.contains("was not given to this driver"));

    let finished = resume(&host, &RunId("r".into())).await.unwrap();
    assert_eq!(finished.output.as_deref(), Some("done"), "{:?}", finished.error);
    let handed =
        events(stage.journal.as_ref(), "r").await.into_iter().find_map(|record| match record.event {
            Event::HandedOff(handed) => Some(handed),
            _ => None,
        });
    let handed = handed.unwrap();
    assert_eq!((handed.filter.as_str(), handed.items.unwrap().len()), ("last_item", 1));
}

#[tokio::test]
async fn sub_agents_work_side_by_side_and_each_has_a_run_of_its_own() {
    let stage = Stage::new([
        (
            "tester",
            vec![
                vec![give("worker", "w1", "one"), give("worker", "w2", "two")],
                vec![Item::assistant("both")],
            ],
        ),
        ("worker", vec![vec![call("put", "x")], vec![Item::assistant("did it")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("worker")];
    new.labels = BTreeMap::from([("session".into(), "s".into()), ("task".into(), "t".into())]);
    let finished = start(&stage.host(), new).await.unwrap();
    assert_eq!((finished.status, finished.output.as_deref()), (Status::Completed, Some("both")));
    assert_eq!(stage.runs().await, ["r", "r-1-0", "r-1-1"]);
    // Two turns of its own, two of each worker.
    assert_eq!((finished.turns, finished.spent.turns, finished.spent.tool_calls), (2, 6, 4));
    assert_eq!(finished.usage.input_tokens, 60);
    let state = fold(stage.journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    assert_eq!(outputs(&state.items), ["did it", "did it"]);
    assert!(state.read.contains("agent"), "what a sub-agent says is not trusted: {:?}", state.read);
    let child = fold(stage.journal.as_ref(), &RunId("r-1-1".into()), |_| {}).await.unwrap();
    assert_eq!(child.items[0].text(), "two");
    let parent = child.started.parent.as_ref().unwrap();
    assert_eq!((parent.run.0.as_str(), parent.call_id.as_deref(), child.started.depth), ("r", Some("w2"), 1));
    assert_eq!(child.started.labels, BTreeMap::from([("task".into(), "t".into())]));
}

#[tokio::test]
async fn what_a_caller_has_read_counts_as_read_by_its_sub_agents() {
    let stage = Stage::new([
        (
            "tester",
            vec![vec![call("look", "a")], vec![give("worker", "w", "go")], vec![Item::assistant("end")]],
        ),
        ("worker", vec![vec![call("pay", "p")], vec![Item::assistant("could not")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("worker")];
    let policy = json!({"rules": [{"tool": "pay", "read": "sandbox", "action": "deny"}]});
    new.team.get_mut("worker").unwrap().agent.policy = serde_json::from_value(policy).unwrap();
    start(&stage.host(), new).await.unwrap();
    assert_eq!(stage.world.done("p"), 0);
}

#[tokio::test]
async fn an_approval_in_a_nested_run_is_answered_there_and_both_go_on() {
    let stage = Stage::new([
        (
            "tester",
            vec![vec![give("boss", "b", "pay"), call("put", "side")], vec![Item::assistant("all done")]],
        ),
        (
            "boss",
            vec![
                vec![give("payer", "p1", "pay"), give("payer", "p2", "pay")],
                vec![Item::assistant("passed on")],
            ],
        ),
        ("payer", vec![vec![call("pay", "same-id")], vec![Item::assistant("paid")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("boss")];
    new.team.get_mut("boss").unwrap().agent.agents = vec![sub_agent("payer")];
    let asks = json!({"rules": [{"tool": "pay", "action": "ask"}]});
    new.team.get_mut("payer").unwrap().agent.policy = serde_json::from_value(asks).unwrap();
    let first = start(&stage.host(), new).await.unwrap();
    assert_eq!(first.status, Status::Waiting);
    assert_eq!(stage.world.done("side"), 1, "what needs no approval is done meanwhile");

    // Two agents of one name, each with a call of one id: two questions.
    let mut asked = Vec::new();
    for row in stage.journal.runs(None).await.unwrap() {
        for approval in row.summary["approvals"].as_array().unwrap() {
            asked.push((row.id.clone(), approval["id"].as_str().unwrap().to_owned()));
        }
    }
    asked.sort();
    let runs: Vec<&str> = asked.iter().map(|(run, _)| run.0.as_str()).collect();
    assert_eq!(runs, ["r-1-0-1-0", "r-1-0-1-1"]);
    assert_ne!(asked[0].1, asked[1].1);

    // Answered in any order, one at a time; each resumption starts at the top.
    for (n, (run, id)) in asked.iter().rev().enumerate() {
        let again = resume(&stage.host(), &RunId("r".into())).await.unwrap();
        assert_eq!(again.status, Status::Waiting);
        let yes = Answer { allow: true, always: false, by: "ann".into(), reason: None, input: Value::Null };
        answer(stage.journal.as_ref(), run, id, yes, 0).await.unwrap();
        assert_eq!(stage.world.done("same-id"), u32::try_from(n).unwrap());
        if n == 0 {
            let one = resume(&stage.host(), &RunId("r".into())).await.unwrap();
            assert_eq!(one.status, Status::Waiting);
            assert_eq!(stage.world.done("same-id"), 1);
        }
    }
    let last = resume(&stage.host(), &RunId("r".into())).await.unwrap();
    assert_eq!((last.status, last.output.as_deref()), (Status::Completed, Some("all done")));
    assert_eq!(stage.world.done("same-id"), 2);
}

#[tokio::test]
async fn a_nested_run_is_not_resumed_past_its_caller() {
    let stage = Stage::new([
        ("tester", vec![vec![give("payer", "p", "pay")], vec![Item::assistant("end")]]),
        ("payer", vec![vec![call("pay", "x")], vec![Item::assistant("paid")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("payer")];
    let asks = json!({"rules": [{"tool": "pay", "action": "ask"}]});
    new.team.get_mut("payer").unwrap().agent.policy = serde_json::from_value(asks).unwrap();
    start(&stage.host(), new).await.unwrap();
    let error = resume(&stage.host(), &RunId("r-1-0".into())).await.unwrap_err();
    assert!(matches!(&error, HarnessError::Part { of, .. } if of.0 == "r"), "{error}");
    insta::assert_snapshot!(error, @"run r-1-0 is part of run r, which goes on with it: use r instead");
}

#[tokio::test]
async fn cancelling_a_run_cancels_the_runs_below_it() {
    let stage = Stage::new([
        ("tester", vec![vec![give("worker", "w", "go")]]),
        ("worker", vec![vec![call("put", "stuck")], vec![Item::assistant("never")]]),
    ]);
    *stage.world.stuck_before.lock().unwrap() = Some("stuck".into());
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("worker")];
    let host = stage.host();
    let cancel = host.cancel.clone();
    let run = tokio::spawn(async move { start(&host, new).await.unwrap() });
    stage.world.stuck.notified().await;
    cancel.cancel();
    assert_eq!(run.await.unwrap().status, Status::Cancelled);
    let rows = stage.journal.runs(None).await.unwrap();
    assert!(rows.iter().all(|row| row.summary["status"] == "cancelled" && !row.driven), "{rows:?}");
}

#[tokio::test]
async fn cancelling_a_run_that_waits_cancels_the_runs_that_it_waits_for() {
    let stage = Stage::new([
        ("tester", vec![vec![give("payer", "p", "pay")]]),
        ("payer", vec![vec![call("pay", "x")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("payer")];
    let asks = json!({"rules": [{"tool": "pay", "action": "ask"}]});
    new.team.get_mut("payer").unwrap().agent.policy = serde_json::from_value(asks).unwrap();
    start(&stage.host(), new).await.unwrap();
    let host = stage.host();
    host.cancel.cancel();
    resume(&host, &RunId("r".into())).await.unwrap();
    let rows = stage.journal.runs(None).await.unwrap();
    assert!(rows.iter().all(|row| row.summary["status"] == "cancelled"), "{rows:?}");
    assert!(rows.iter().all(|row| row.summary["approvals"].as_array().unwrap().is_empty()));
}

#[tokio::test]
async fn sub_agents_share_what_their_caller_has_left() {
    let worker = vec![vec![call("look", "x")]; 30];
    let stage = Stage::new([
        (
            "tester",
            vec![
                vec![give("worker", "w1", "go"), give("worker", "w2", "go")],
                vec![Item::assistant("enough")],
            ],
        ),
        ("worker", worker),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("worker")];
    new.entry.limits.max_turns = 20;
    let finished = start(&stage.host(), new).await.unwrap();
    // One turn before, 19 left: 9 for each worker, then one turn more.
    assert_eq!((finished.status, finished.spent.turns), (Status::Completed, 20));
    for child in ["r-1-0", "r-1-1"] {
        let state = fold(stage.journal.as_ref(), &RunId(child.into()), |_| {}).await.unwrap();
        assert_eq!((state.status, state.turns), (Status::Failed, 9));
    }
    let state = fold(stage.journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    assert!(outputs(&state.items)[0].starts_with("worker failed: max_turns"), "{:?}", outputs(&state.items));
}

#[tokio::test]
async fn agents_that_call_each_other_in_a_circle_come_to_an_end() {
    let stage = Stage::new([
        ("tester", vec![vec![give("ping", "p", "go")], vec![Item::assistant("end")]]),
        ("ping", vec![vec![give("pong", "p", "go")], vec![Item::assistant("ping")]]),
        ("pong", vec![vec![give("ping", "p", "go")], vec![Item::assistant("pong")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.limits.max_turns = 1000;
    new.entry.agent.agents = vec![sub_agent("ping")];
    new.team.get_mut("ping").unwrap().agent.agents = vec![sub_agent("pong")];
    new.team.get_mut("pong").unwrap().agent.agents = vec![sub_agent("ping")];
    let finished = start(&stage.host(), new).await.unwrap();
    assert_eq!(finished.status, Status::Completed);
    assert_eq!(stage.runs().await.len(), 6);
}

#[tokio::test]
async fn a_sub_agent_that_cannot_start_is_a_failed_call() {
    let stage = Stage::new([
        (
            "tester",
            vec![vec![give("worker", "w", "  "), give("worker", "v", "go")], vec![Item::assistant("end")]],
        ),
        ("worker", vec![vec![Item::assistant("done")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![SubAgent { sandbox: SubSandbox::Fork, ..sub_agent("worker") }];
    let finished = start(&stage.host(), new).await.unwrap();
    assert_eq!(finished.status, Status::Completed);
    let state = fold(stage.journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    insta::assert_snapshot!(outputs(&state.items).join("\n"), @"
    worker needs its task as the string 'input'. Call it again with one.
    worker cannot be started: this agent has no sandbox whose workspace it could work on
    ");
    assert_eq!(stage.runs().await, ["r"]);
}

#[tokio::test]
async fn two_tools_of_one_name_are_refused() {
    let stage = Stage::new([
        ("tester", vec![vec![call("look", "a")]]),
        ("look", vec![vec![Item::assistant("done")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("look")];
    let error = start(&stage.host(), new).await.unwrap_err();
    insta::assert_snapshot!(error, @"agent 'tester' has two tools named 'look'. Give one of them another name (`tool` of a handoff or a sub-agent)");
    assert!(stage.runs().await.is_empty(), "a run that is refused leaves no trace");
}
