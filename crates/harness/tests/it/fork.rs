//! Forks: every event of a run can be gone on from, and what had been done by then is not done again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mooring_capability::{BoxFuture, Effect, Tool, ToolContext, ToolInput, ToolResult};
use mooring_harness::{Answer, Fork, HandoffFilter, HarnessError, Status, answer, fold, fork, resume, start};
use mooring_journal::{Event, Journal, Record, RunId};
use mooring_model::{Item, ToolKind, ToolSpec};
use serde_json::{Value, json};

use crate::agents::{Stage, give, handoff, outputs, sub_agent};
use crate::world::{call, events, host, new_run, script};

fn at(id: &str, at: u64) -> Fork {
    Fork { id: RunId(id.into()), session_id: format!("{id}-session"), at, input: None, workspace: None }
}

async fn make(stage: &Stage, from: &str, fork: Fork) -> Result<RunId, HarnessError> {
    let from = RunId(from.into());
    let made = mooring_harness::fork(stage.journal.as_ref(), &from, fork, "test", 1_800_000_000_000).await?;
    Ok(made.run)
}

/// Drives a run to its end; whatever it or those below it ask for is approved.
async fn to_the_end(stage: &Stage, run: &str) -> mooring_harness::Finished {
    for _ in 0..10 {
        let state = fold(stage.journal.as_ref(), &RunId(run.into()), |_| {}).await.unwrap();
        assert_ne!(state.status, Status::Completed);
        let finished = resume(&stage.host(), &RunId(run.into())).await.unwrap();
        if finished.status != Status::Waiting {
            return finished;
        }
        for row in stage.journal.runs(None).await.unwrap() {
            if row.id.0 == run || row.id.0.starts_with(&format!("{run}-")) {
                for asked in row.summary["approvals"].as_array().unwrap() {
                    let id = asked["id"].as_str().unwrap();
                    let yes = Answer {
                        allow: true,
                        always: false,
                        by: "ann".into(),
                        reason: None,
                        input: serde_json::Value::Null,
                    };
                    answer(stage.journal.as_ref(), &row.id, id, yes, 0).await.unwrap();
                }
            }
        }
    }
    panic!("run {run} does not come to its end")
}

/// Parallel calls, a sub-agent that waits for an approval, a handoff.
async fn sample() -> Stage {
    let stage = Stage::new([
        (
            "tester",
            vec![
                vec![call("look", "a"), call("put", "b"), call("pay", "c"), call("patch", "d")],
                vec![give("worker", "w", "pay"), call("pay", "side")],
                vec![call("transfer_to_closer", "h")],
            ],
        ),
        ("worker", vec![vec![call("pay", "e")], vec![Item::assistant("paid")]]),
        ("closer", vec![vec![call("pay", "f")], vec![Item::assistant("closed")]]),
    ]);
    let mut new = stage.run("r");
    new.entry.agent.agents = vec![sub_agent("worker")];
    new.entry.agent.handoffs = vec![handoff("closer", HandoffFilter::All)];
    let asks = json!({"rules": [{"tool": "pay", "action": "ask"}]});
    new.team.get_mut("worker").unwrap().agent.policy = serde_json::from_value(asks).unwrap();
    assert_eq!(start(&stage.host(), new).await.unwrap().status, Status::Waiting);
    assert_eq!(to_the_end(&stage, "r").await.output.as_deref(), Some("closed"));
    stage
}

/// When each call's intent was recorded.
fn intents(records: &[Record]) -> impl Iterator<Item = (String, i64)> {
    records.iter().filter_map(|record| match &record.event {
        Event::ToolRequested(requested) => Some((requested.call_id.clone(), record.at_ms)),
        _ => None,
    })
}

#[tokio::test]
async fn every_event_can_be_gone_on_from_and_nothing_that_was_begun_is_done_twice() {
    let stage = sample().await;
    let records = events(stage.journal.as_ref(), "r").await;
    let below = events(stage.journal.as_ref(), "r-2-0").await;
    let begun: BTreeMap<String, i64> = intents(&records).chain(intents(&below)).collect();
    assert!(records.len() > 25 && begun.len() == 8, "{} {begun:?}", records.len());
    for (seq, upto) in (1..).zip(&records) {
        let before: BTreeMap<&str, u32> =
            ["c", "d", "e", "f", "side"].into_iter().map(|key| (key, stage.world.done(key))).collect();
        let id = format!("f{seq}");
        make(&stage, "r", at(&id, seq)).await.unwrap();
        let finished = to_the_end(&stage, &id).await;
        assert_eq!(
            (finished.status, finished.output.as_deref()),
            (Status::Completed, Some("closed")),
            "at {seq}: {:?}",
            finished.error
        );
        for (key, done) in before {
            let again = u32::from(upto.at_ms < begun[key]);
            assert_eq!(stage.world.done(key), done + again, "{key} at {seq} ({:?})", upto.event);
        }
        let state = fold(stage.journal.as_ref(), &RunId(id.clone()), |_| {}).await.unwrap();
        let parent = state.started.parent.unwrap();
        assert_eq!((parent.run.0.as_str(), parent.call_id, parent.seq), ("r", None, Some(seq)));
        assert_eq!(outputs(&state.items).len(), 8, "each call has its output, at {seq}");
    }
    assert_eq!(events(stage.journal.as_ref(), "r").await, records, "the run itself is as it was");
    assert_eq!(events(stage.journal.as_ref(), "r-2-0").await, below);
}

#[tokio::test]
async fn a_call_that_was_under_way_is_told_as_in_doubt() {
    let stage = sample().await;
    let records = events(stage.journal.as_ref(), "r").await;
    let intent = |record: &&Record| matches!(&record.event, Event::ToolRequested(of) if of.call_id == "c");
    let seq = records.iter().find(intent).unwrap().seq;
    make(&stage, "r", at("f", seq)).await.unwrap();
    to_the_end(&stage, "f").await;
    let state = fold(stage.journal.as_ref(), &RunId("f".into()), |_| {}).await.unwrap();
    assert!(outputs(&state.items)[2].starts_with("outcome_unknown"), "{:?}", outputs(&state.items));
}

#[tokio::test]
async fn what_the_user_says_at_a_fork_goes_to_the_model() {
    let stage = Stage::new([(
        "tester",
        vec![vec![call("look", "a")], vec![Item::assistant("red")], vec![Item::assistant("blue")]],
    )]);
    let first = start(&stage.host(), stage.run("r")).await.unwrap();
    assert_eq!(first.output.as_deref(), Some("red"));
    let last = events(stage.journal.as_ref(), "r").await.len() as u64;
    make(&stage, "r", Fork { input: Some("not red".into()), ..at("f", last) }).await.unwrap();
    let second = to_the_end(&stage, "f").await;
    assert_eq!(second.output.as_deref(), Some("blue"));
    let state = fold(stage.journal.as_ref(), &RunId("f".into()), |_| {}).await.unwrap();
    let said: Vec<String> = state.items.iter().map(Item::text).filter(|text| !text.is_empty()).collect();
    assert_eq!(said, ["change the world", "red", "not red", "blue"]);
    // Between a call and its output there is no room for it: it waits until the turn is over.
    let open = events(stage.journal.as_ref(), "r").await;
    let open = open.iter().find(|record| matches!(record.event, Event::ToolRequested(_))).unwrap().seq;
    make(&stage, "r", Fork { input: Some("not red".into()), ..at("g", open) }).await.unwrap();
    to_the_end(&stage, "g").await;
    let state = fold(stage.journal.as_ref(), &RunId("g".into()), |_| {}).await.unwrap();
    assert!(matches!(&state.items[2], Item::FunctionCallOutput { .. }), "{:?}", state.items);
    assert_eq!(state.items[3].text(), "not red");
}

#[tokio::test]
async fn an_approval_holds_for_the_run_that_it_was_given_in_alone() {
    let stage = Stage::new([("tester", vec![vec![call("pay", "a")], vec![Item::assistant("end")]])]);
    let mut new = stage.run("r");
    let asks = json!({"rules": [{"tool": "pay", "action": "ask"}]});
    new.entry.agent.policy = serde_json::from_value(asks).unwrap();
    start(&stage.host(), new).await.unwrap();
    let asked = |rows: Vec<mooring_journal::RunRow>| {
        rows[0].summary["approvals"][0]["id"].as_str().unwrap().to_owned()
    };
    let id = asked(stage.journal.runs(Some(&RunId("r".into()))).await.unwrap());
    let yes =
        Answer { allow: true, always: true, by: "ann".into(), reason: None, input: serde_json::Value::Null };
    answer(stage.journal.as_ref(), &RunId("r".into()), &id, yes, 0).await.unwrap();
    let answered = events(stage.journal.as_ref(), "r").await.len() as u64;
    for (fork, seq) in [("asked", answered - 1), ("allowed", answered)] {
        make(&stage, "r", at(fork, seq)).await.unwrap();
        assert_eq!(resume(&stage.host(), &RunId(fork.into())).await.unwrap().status, Status::Waiting);
        assert_ne!(asked(stage.journal.runs(Some(&RunId(fork.into()))).await.unwrap()), id);
    }
    assert_eq!(stage.world.done("a"), 0);
    resume(&stage.host(), &RunId("r".into())).await.unwrap();
    assert_eq!(stage.world.done("a"), 1, "and there it holds");
}

#[tokio::test]
async fn a_run_has_only_the_events_that_it_has() {
    let stage = Stage::new([("tester", vec![vec![Item::assistant("end")]])]);
    start(&stage.host(), stage.run("r")).await.unwrap();
    insta::assert_snapshot!(make(&stage, "r", at("f", 0)).await.unwrap_err(), @"run r has no event 0: its events are 1 to 5. `moor events r` lists them");
    insta::assert_snapshot!(make(&stage, "r", at("f", 99)).await.unwrap_err(), @"run r has no event 99: its events are 1 to 5. `moor events r` lists them");
    assert!(make(&stage, "nowhere", at("f", 1)).await.is_err());
    assert_eq!(stage.runs().await, ["r"], "a fork that is refused leaves no trace");
}

/// Remembers the keys that it was called with.
#[derive(Debug, Default)]
struct Keyed(Mutex<Vec<String>>);

impl Tool for Keyed {
    fn spec(&self) -> ToolSpec {
        let kind = ToolKind::Function { parameters: json!({"type": "object"}), strict: false };
        ToolSpec { name: "post".into(), description: "posts".into(), kind }
    }

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        _input: &'a ToolInput,
        _prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        self.0.lock().unwrap().push(context.key.clone());
        Box::pin(async { ToolResult::text("posted") })
    }
}

#[tokio::test]
async fn an_idempotent_call_in_doubt_is_tried_again_with_the_key_it_had() {
    let tool = Arc::new(Keyed::default());
    let model = script(vec![vec![call("post", "a")], vec![Item::assistant("end")]]);
    let journal = Arc::new(mooring_journal::MemoryJournal::new());
    let (host, _) =
        host(Arc::clone(&journal) as Arc<dyn Journal>, model, vec![Arc::clone(&tool) as Arc<dyn Tool>]);
    start(&host, new_run("r")).await.unwrap();
    let records = events(journal.as_ref(), "r").await;
    let intent = records.iter().find(|record| matches!(record.event, Event::ToolRequested(_))).unwrap().seq;
    for (id, seq) in [("doubt", intent), ("new", intent - 1)] {
        fork(journal.as_ref(), &RunId("r".into()), at(id, seq), "test", 0).await.unwrap();
        resume(&host, &RunId(id.into())).await.unwrap();
    }
    assert_eq!(*tool.0.lock().unwrap(), ["r:1:a", "r:1:a", "new:1:a"]);
}
