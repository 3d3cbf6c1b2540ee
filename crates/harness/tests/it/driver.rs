//! What a driver does, seen from outside: the journal, the conversation, the end.

use std::sync::Arc;

use futures::stream;
use mooring_harness::{HarnessError, Limits, Next, State, Status, resume, start};
use mooring_journal::event::ToolCompleted;
use mooring_journal::{Event, Journal, JournalError, MemoryJournal, RunId};
use mooring_model::{
    Item, ModelClient, ModelError, ModelErrorKind, ModelEvent, ModelRequest, ModelStream, StopReason,
};
use serde_json::{Map, json};

use crate::world::{World, call, events, host, new_run, response, script, tools};

fn kinds(records: &[mooring_journal::Record]) -> Vec<String> {
    let kind = |record: &mooring_journal::Record| {
        serde_json::to_value(&record.event).unwrap()["type"].as_str().unwrap().to_owned()
    };
    records.iter().map(kind).collect()
}

fn completions(records: &[mooring_journal::Record]) -> Vec<ToolCompleted> {
    let completed = records.iter().filter_map(|record| match &record.event {
        Event::ToolCompleted(completed) => Some((**completed).clone()),
        _ => None,
    });
    completed.collect()
}

#[tokio::test]
async fn a_run_is_recorded_step_by_step() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let model = script(vec![vec![call("pay", "a"), call("look", "b")], vec![Item::assistant("done")]]);
    let (host, seen) = host(Arc::clone(&journal) as Arc<dyn Journal>, model, tools(&world));
    let finished = start(&host, new_run("r1")).await.unwrap();

    assert_eq!(finished.status, Status::Completed);
    assert_eq!(finished.output.as_deref(), Some("done"));
    assert_eq!((finished.turns, finished.usage.total()), (2, 30));
    let records = events(journal.as_ref(), "r1").await;
    assert_eq!(
        kinds(&records),
        [
            "run_started",
            "driver_attached",
            "model_requested",
            "model_completed",
            "tool_requested",
            "tool_requested",
            "tool_completed",
            "tool_completed",
            "model_requested",
            "model_completed",
            "run_finished"
        ]
    );
    assert_eq!(*seen.0.lock().unwrap(), records, "a watcher sees exactly what is recorded");
    assert_eq!((world.done("a"), world.done("b")), (1, 1));
}

#[tokio::test]
async fn a_listing_shows_how_the_run_stands() {
    let journal = Arc::new(MemoryJournal::new());
    let model = script(vec![vec![Item::assistant("hello")]]);
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, model, vec![]);
    start(&host, new_run("r1")).await.unwrap();
    let rows = journal.runs(None).await.unwrap();
    assert!(!rows[0].driven);
    assert_eq!(
        rows[0].summary,
        json!({"status": "completed", "agent": "tester", "model": "script:test", "turns": 1, "input": "change the world",
            "usage": {"input_tokens": 10, "cached_input_tokens": 0, "cache_write_tokens": 0, "output_tokens": 5,
                "reasoning_tokens": 0}, "parent": null,
            "session": null, "approvals": []})
    );
}

#[tokio::test]
async fn what_the_model_gets_wrong_goes_back_to_it() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let malformed = |call_id: &str, arguments: &str| Item::FunctionCall {
        call_id: call_id.into(),
        name: "pay".into(),
        arguments: arguments.into(),
        extra: Map::new(),
    };
    let turns = vec![
        vec![call("fly", "a"), malformed("b", "{\"key\": "), malformed("c", "[1]")],
        vec![Item::assistant("sorry")],
    ];
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    assert_eq!(start(&host, new_run("r1")).await.unwrap().status, Status::Completed);
    let texts: Vec<(String, String)> = completions(&events(journal.as_ref(), "r1").await)
        .into_iter()
        .map(|completed| (completed.status, completed.output["output"].as_str().unwrap().to_owned()))
        .collect();
    insta::assert_debug_snapshot!(texts, @r#"
    [
        (
            "failed",
            "There is no tool named 'fly'. The tools are: look, put, pay, patch.",
        ),
        (
            "failed",
            "The arguments of pay are not valid JSON (EOF while parsing a value at line 1 column 8). Call it again with valid arguments.",
        ),
        (
            "failed",
            "The arguments of pay must be a JSON object. Call it again with one.",
        ),
    ]
    "#);
    assert!(world.began.lock().unwrap().is_empty(), "nothing was called");
}

#[tokio::test]
async fn outputs_join_the_conversation_in_the_order_of_the_calls() {
    // Both calls have one id, as some local servers do: each gets its answer.
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let turns = vec![
        vec![call("pay", "same"), call("pay", "same")],
        vec![call("look", "same")],
        vec![Item::assistant("done")],
    ];
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    assert_eq!(start(&host, new_run("r1")).await.unwrap().status, Status::Completed);
    let records = events(journal.as_ref(), "r1").await;
    let state = State::fold(&records).unwrap().unwrap();
    let names: Vec<&str> = state
        .items
        .iter()
        .map(|item| match item {
            Item::Message { .. } => "message",
            Item::FunctionCall { .. } => "call",
            Item::FunctionCallOutput { .. } => "output",
            _ => "other",
        })
        .collect();
    assert_eq!(names, ["message", "call", "call", "output", "output", "call", "output", "message"]);
    assert_eq!(world.done("same"), 3);
}

#[tokio::test]
async fn a_run_that_never_answers_ends_at_its_limit() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let turn =
        |turn| vec![Item::assistant(format!("looked {turn} times")), call("look", &format!("c{turn}"))];
    let turns = (0..30).map(turn).collect();
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    let mut new = new_run("r1");
    new.entry.limits = Limits { max_turns: 3, ..Limits::default() };
    let finished = start(&host, new).await.unwrap();
    assert_eq!((finished.status, finished.turns), (Status::Failed, 3));
    assert_eq!(finished.output.as_deref(), Some("looked 2 times"), "it ends with what it has");
    insta::assert_debug_snapshot!(finished.error.unwrap(), @r#"
    RunError {
        code: "max_turns",
        message: "the run took 3 turns, its limit, without an answer. Raise max_turns in the agent's [limits]",
    }
    "#);
    assert_eq!(world.done.lock().unwrap().len(), 3, "the third turn's call was still answered");
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_never_answers_is_given_up() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    *world.stuck_before.lock().unwrap() = Some("a".into());
    let turns = vec![vec![call("pay", "a"), call("pay", "b")], vec![Item::assistant("done")]];
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    assert_eq!(start(&host, new_run("r1")).await.unwrap().status, Status::Completed);
    let completions = completions(&events(journal.as_ref(), "r1").await);
    let statuses: Vec<&str> = completions.iter().map(|completed| completed.status.as_str()).collect();
    assert_eq!(statuses, ["completed", "failed"]);
    assert!(completions[1].output["output"].as_str().unwrap().contains("did not answer within 600 s"));
}

#[tokio::test]
async fn a_run_ends_before_it_makes_too_many_calls() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let turns =
        vec![vec![call("pay", "a")], vec![call("pay", "b"), call("pay", "c")], vec![Item::assistant("done")]];
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    let mut new = new_run("r1");
    new.entry.limits = Limits { max_tool_calls: Some(2), ..Limits::default() };
    let finished = start(&host, new).await.unwrap();
    assert_eq!(finished.error.unwrap().code, "budget_exhausted");
    assert_eq!(
        (world.done("a"), world.done("b"), world.done("c")),
        (1, 0, 0),
        "all of a turn, or none of it"
    );
}

/// A model that fails the first time it is asked.
#[derive(Debug)]
struct FailsOnce(std::sync::atomic::AtomicBool, Arc<dyn ModelClient>);

impl ModelClient for FailsOnce {
    fn name(&self) -> &str {
        self.1.name()
    }

    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        if self.0.swap(false, std::sync::atomic::Ordering::Relaxed) {
            let error = ModelError::new(ModelErrorKind::Network, "test", "the line is dead");
            return Box::pin(stream::iter([Err(error)]));
        }
        self.1.stream(request)
    }
}

#[tokio::test]
async fn a_failed_model_call_fails_the_run_and_the_run_can_be_resumed() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let good = script(vec![vec![call("pay", "a")], vec![Item::assistant("done")]]);
    let model = Arc::new(FailsOnce(true.into(), good));
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, model, tools(&world));
    let finished = start(&host, new_run("r1")).await.unwrap();
    assert_eq!(finished.status, Status::Failed);
    assert_eq!(finished.error.unwrap().code, "model_network");
    let finished = resume(&host, &RunId("r1".into())).await.unwrap();
    assert_eq!((finished.status, finished.turns), (Status::Completed, 2));
    assert_eq!(world.done("a"), 1);
}

#[tokio::test]
async fn an_answer_that_was_cut_is_no_success() {
    let journal = Arc::new(MemoryJournal::new());
    let mut cut = response(vec![Item::assistant("half an ans")]);
    cut.stop_reason = StopReason::MaxOutputTokens;
    let model = Arc::new(mooring_model::ScriptModel::from_responses("script:test", vec![cut]));
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, model, vec![]);
    let finished = start(&host, new_run("r1")).await.unwrap();
    assert_eq!(finished.status, Status::Failed);
    assert_eq!(finished.output.as_deref(), Some("half an ans"));
    assert_eq!(finished.error.unwrap().code, "max_output_tokens");
}

#[tokio::test]
async fn a_completed_run_cannot_be_resumed() {
    let journal = Arc::new(MemoryJournal::new());
    let (host, _) =
        host(Arc::clone(&journal) as Arc<dyn Journal>, script(vec![vec![Item::assistant("x")]]), vec![]);
    start(&host, new_run("r1")).await.unwrap();
    let error = resume(&host, &RunId("r1".into())).await.unwrap_err();
    assert!(matches!(error, HarnessError::Completed { .. }), "{error}");
    let error = resume(&host, &RunId("r2".into())).await.unwrap_err();
    assert!(matches!(error, HarnessError::Journal(JournalError::UnknownRun { .. })), "{error}");
}

/// A model that says a word and never ends.
#[derive(Debug)]
struct Endless;

impl ModelClient for Endless {
    fn name(&self) -> &'static str {
        "endless"
    }

    fn stream<'a>(&'a self, _request: ModelRequest<'a>) -> ModelStream<'a> {
        use futures::StreamExt as _;
        let word = stream::iter([Ok(ModelEvent::TextDelta("well".into()))]);
        Box::pin(word.chain(stream::pending()))
    }
}

/// A model that never says anything.
#[derive(Debug)]
pub(crate) struct Hangs;

impl ModelClient for Hangs {
    fn name(&self) -> &'static str {
        "hangs"
    }

    fn stream<'a>(&'a self, _request: ModelRequest<'a>) -> ModelStream<'a> {
        Box::pin(stream::pending())
    }
}

#[tokio::test]
async fn cancelling_while_the_model_answers_ends_the_run() {
    let journal = Arc::new(MemoryJournal::new());
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, Arc::new(Endless), vec![]);
    let cancel = host.cancel.clone();
    let running = tokio::spawn(async move { start(&host, new_run("r1")).await });
    while journal.runs(None).await.unwrap().first().is_none_or(|row| row.last_seq < 3) {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert_eq!(running.await.unwrap().unwrap().status, Status::Cancelled);
    let records = events(journal.as_ref(), "r1").await;
    assert_eq!(kinds(&records)[3..], ["cancel_requested", "run_finished"]);
}

#[tokio::test]
async fn cancelling_by_signal_answers_every_open_call() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    *world.stuck_after.lock().unwrap() = Some("a".into());
    let turns = vec![vec![call("pay", "a"), call("pay", "b")], vec![Item::assistant("resumed")]];
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    let other = Arc::clone(&world);
    let running = tokio::spawn(async move {
        let finished = start(&host, new_run("r1")).await;
        (finished, host)
    });
    other.stuck.notified().await;
    journal.signal(&RunId("r1".into()), "cancel").await.unwrap();
    let (finished, mut host) = running.await.unwrap();
    assert_eq!(finished.unwrap().status, Status::Cancelled);
    let records = events(journal.as_ref(), "r1").await;
    let statuses: Vec<(String, String)> =
        completions(&records).into_iter().map(|completed| (completed.call_id, completed.status)).collect();
    assert_eq!(statuses, [("b".into(), "completed".into()), ("a".into(), "cancelled".into())]);

    // Nothing is lost: the run can be taken up again.
    host.cancel = tokio_util::sync::CancellationToken::new();
    let finished = resume(&host, &RunId("r1".into())).await.unwrap();
    assert_eq!(finished.output.as_deref(), Some("resumed"));
    assert_eq!((world.done("a"), world.done("b")), (1, 1));
}

#[tokio::test]
async fn two_drivers_never_drive_one_run() {
    let journal = Arc::new(MemoryJournal::new());
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, Arc::new(Endless), vec![]);
    let second = host.clone();
    let cancel = host.cancel.clone();
    let running = tokio::spawn(async move { start(&host, new_run("r1")).await });
    while journal.runs(None).await.unwrap().first().is_none_or(|row| row.last_seq < 3) {
        tokio::task::yield_now().await;
    }
    let error = resume(&second, &RunId("r1".into())).await.unwrap_err();
    assert!(matches!(error, HarnessError::Journal(JournalError::Driven { .. })), "{error}");
    cancel.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_fold_of_the_journal_is_the_drivers_state() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let turns = vec![vec![call("put", "a")], vec![Item::assistant("done")]];
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    start(&host, new_run("r1")).await.unwrap();
    let records = events(journal.as_ref(), "r1").await;
    let state = State::fold(&records).unwrap().unwrap();
    assert_eq!(
        (state.status, state.next(), state.last_seq),
        (Status::Completed, Next::Done, records.len() as u64)
    );
}

/// A server drives many runs side by side: their futures must be able to move between threads.
#[tokio::test(flavor = "multi_thread")]
async fn runs_can_be_spawned() {
    let journal = Arc::new(MemoryJournal::new());
    let model = script(vec![vec![Item::assistant("done")]]);
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, model, vec![]);
    let starts = ["r1", "r2"].map(|id| {
        let host = host.clone();
        tokio::spawn(async move { start(&host, new_run(id)).await })
    });
    for run in starts {
        assert_eq!(run.await.unwrap().unwrap().status, Status::Completed);
    }
    let resumed = tokio::spawn(async move { resume(&host, &RunId("r1".into())).await });
    assert!(matches!(resumed.await.unwrap(), Err(HarnessError::Completed { .. })));
}
