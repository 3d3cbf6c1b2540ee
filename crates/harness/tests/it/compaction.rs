//! Conversations that are shortened: when, what stays, and that it never goes round in circles.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream;
use mooring_capability::BoxFuture;
use mooring_harness::{
    Compaction, CompactionHook, FoldError, HarnessError, HookResult, Host, Limits, Moment, NewRun, State,
    Status, fold, resume, start,
};
use mooring_journal::event::Compacted;
use mooring_journal::{Event, Journal, JournalError, MemoryJournal, Record, RunId};
use mooring_model::{
    Item, ModelClient, ModelError, ModelErrorKind, ModelEvent, ModelRequest, ModelResponse, ModelStream,
    Usage,
};
use serde_json::json;

use crate::crash::Dying;
use crate::world::{World, call, events, host, new_run, response, tools};

/// A model that reads what it is sent: it counts it, refuses what is too long, and works for some turns.
#[derive(Debug)]
struct Worker {
    turns: u64,
    /// The most that it reads, as it counts.
    window: u64,
    /// How many bytes it takes for a token.
    bytes: usize,
    asked: AtomicU64,
}

impl Worker {
    fn new(turns: u64) -> Self {
        Self { turns, window: u64::MAX, bytes: 4, asked: AtomicU64::new(0) }
    }
}

impl ModelClient for Worker {
    fn name(&self) -> &'static str {
        "script:test"
    }

    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let read = (serde_json::to_string(request.items).unwrap().len() / self.bytes) as u64;
        if read > self.window {
            let error = ModelError::new(ModelErrorKind::ContextTooLong, "script:test", "too long");
            return Box::pin(stream::iter([Err(error)]));
        }
        let n = request.ordinal;
        let mut answer = response(if n < self.turns {
            vec![Item::assistant("word ".repeat(100)), call("look", &format!("look-{n}"))]
        } else {
            vec![Item::assistant("done")]
        });
        answer.usage =
            Usage { input_tokens: read, output_tokens: (600 / self.bytes) as u64, ..Usage::default() };
        Box::pin(stream::iter([Ok(ModelEvent::Completed(Box::new(answer)))]))
    }
}

/// Writes summaries of this length, or fails.
#[derive(Debug)]
struct Notes {
    text: Option<String>,
    asked: AtomicU64,
}

impl Notes {
    fn new(text: Option<String>) -> Arc<Self> {
        Arc::new(Self { text, asked: AtomicU64::new(0) })
    }
}

impl ModelClient for Notes {
    fn name(&self) -> &'static str {
        "script:notes"
    }

    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(request.tools.is_empty() && request.settings.max_output_tokens.is_some());
        let event = match &self.text {
            Some(text) => Ok(ModelEvent::Completed(Box::new(response(vec![Item::assistant(text.clone())])))),
            None => Err(ModelError::new(ModelErrorKind::Provider, "script:notes", "no notes today")),
        };
        Box::pin(stream::iter([event]))
    }
}

fn settings(at_tokens: u64, keep_turns: usize) -> Compaction {
    let json = json!({"at_tokens": at_tokens, "keep_turns": keep_turns, "model": "script:notes"});
    serde_json::from_value(json).unwrap()
}

fn compacting(at_tokens: u64) -> NewRun {
    let mut new = new_run("r");
    new.entry.agent.compaction = Some(settings(at_tokens, 2));
    new.entry.limits = Limits { max_turns: 1_000, ..Limits::default() };
    new
}

fn with(journal: Arc<dyn Journal>, model: Arc<dyn ModelClient>, notes: Option<Arc<dyn ModelClient>>) -> Host {
    let (mut host, _) = host(journal, model, tools(&Arc::new(World::default())));
    let mut agents = (*host.agents).clone();
    agents.get_mut("tester").unwrap().summariser = notes;
    host.agents = Arc::new(agents);
    host
}

async fn state(journal: &MemoryJournal) -> State {
    fold(journal, &RunId("r".into()), |_| {}).await.unwrap()
}

fn count(records: &[Record], wanted: fn(&Event) -> bool) -> usize {
    records.iter().filter(|record| wanted(&record.event)).count()
}

fn swaps(records: &[Record]) -> Vec<Compacted> {
    let swap = |record: &Record| match &record.event {
        Event::Compacted(compacted) => Some((**compacted).clone()),
        _ => None,
    };
    records.iter().filter_map(swap).collect()
}

fn whole(items: &[Item]) {
    let mut open = BTreeSet::new();
    for item in items {
        match item {
            Item::FunctionCall { call_id, .. } => assert!(open.insert(call_id)),
            Item::FunctionCallOutput { call_id, .. } => assert!(open.remove(call_id), "{call_id}"),
            _ => {}
        }
    }
    assert!(open.is_empty());
}

#[tokio::test]
async fn a_long_conversation_is_shortened_before_the_model_is_asked() {
    let journal = Arc::new(MemoryJournal::new());
    let notes = Notes::new(Some("They looked around.".into()));
    let host = with(Arc::clone(&journal) as _, Arc::new(Worker::new(20)), Some(notes));
    let finished = start(&host, compacting(2_000)).await.unwrap();
    assert_eq!((finished.status, finished.turns), (Status::Completed, 21));
    let records = events(journal.as_ref(), "r").await;
    let state = state(&journal).await;
    let swaps = swaps(&records);
    assert!((2..=4).contains(&swaps.len()), "{}", swaps.len());
    assert_eq!(state.compactions(), swaps.len() as u64);
    whole(&state.items);
    assert_eq!(state.items[0].text(), "change the world", "the user's words stay");
    let summary = state.items[1].text();
    assert!(
        summary.starts_with("[Summary of earlier work") && summary.ends_with("They looked around."),
        "{summary}"
    );
    // What was summarised is in the journal: each prompt can be made again from it.
    for record in &records {
        let Event::ModelRequested(request) = &record.event else { continue };
        let before = State::fold(&records[..record.seq as usize]).unwrap().unwrap();
        assert_eq!((request.items, request.compactions), (before.items.len() as u64, before.compactions()));
        assert!(before.context_tokens() <= 2_000 + 400, "{}", before.context_tokens());
    }
    // It is paid for like any call, and is no turn.
    let used = |event: &Event| match event {
        Event::ModelCompleted(answer) => Some(answer.usage.clone()),
        Event::Compacted(compacted) => Some(compacted.usage.clone()),
        _ => None,
    };
    let mut sum = Usage::default();
    for usage in records.iter().filter_map(|record| used(&record.event)) {
        sum.add(&serde_json::from_value(usage).unwrap());
    }
    assert_eq!(finished.usage, sum);
}

/// A script answers by how many answers came before, summaries included: they stand in it where they are asked for.
/// Counts what it is told.
#[derive(Default)]
struct Told(AtomicU64);

impl CompactionHook for Told {
    fn completed<'a>(&'a self, _: &'a Moment, event: &'a Compacted) -> BoxFuture<'a, HookResult> {
        assert!(event.from < event.to);
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn hooks_are_told_of_it() {
    let journal = Arc::new(MemoryJournal::new());
    let told = Arc::new(Told::default());
    let mut host = with(journal.clone(), Arc::new(Worker::new(12)), Some(Notes::new(Some("notes".into()))));
    host.hooks.compaction.push(Arc::clone(&told) as _);
    start(&host, compacting(1_000)).await.unwrap();
    let swapped = swaps(&events(journal.as_ref(), "r").await).len() as u64;
    assert!(swapped > 0);
    assert_eq!(told.0.load(Ordering::Relaxed), swapped);
}

#[tokio::test]
async fn a_scripted_model_that_writes_its_own_summaries_goes_on_where_it_was() {
    let answer = |items: Vec<Item>| {
        let mut answer = response(items);
        answer.usage = Usage { input_tokens: 5_000, output_tokens: 100, ..Usage::default() };
        answer
    };
    let turn = |n: u32| answer(vec![Item::assistant("w ".repeat(2_000)), call("look", &format!("c{n}"))]);
    let answers: Vec<ModelResponse> = vec![
        turn(0),
        turn(1),
        answer(vec![Item::assistant("summary")]),
        answer(vec![Item::assistant("done")]),
    ];
    let model = Arc::new(mooring_model::ScriptModel::from_responses("script:test", answers));
    let journal = Arc::new(MemoryJournal::new());
    let host = with(Arc::clone(&journal) as _, model, None);
    let mut new = compacting(5_000);
    new.entry.agent.compaction =
        Some(serde_json::from_value(json!({"at_tokens": 5_000, "keep_turns": 1})).unwrap());
    let finished = start(&host, new).await.unwrap();
    assert_eq!((finished.output.as_deref(), finished.turns), (Some("done"), 3));
    assert!(state(&journal).await.items[1].text().ends_with("summary"));
}

/// anthropics/claude-code#41198: a loop of failing compactions burned a million tokens with nobody there.
#[tokio::test]
async fn a_summariser_that_always_fails_is_asked_a_few_times_and_the_run_goes_on() {
    let journal = Arc::new(MemoryJournal::new());
    let notes = Notes::new(None);
    let host = with(Arc::clone(&journal) as _, Arc::new(Worker::new(60)), Some(Arc::clone(&notes) as _));
    let finished = start(&host, compacting(1_000)).await.unwrap();
    assert_eq!((finished.status, finished.turns), (Status::Completed, 61));
    let failed =
        count(&events(journal.as_ref(), "r").await, |event| matches!(event, Event::CompactionFailed(_)));
    assert_eq!((failed, notes.asked.load(Ordering::Relaxed)), (4, 4));
}

/// NousResearch/hermes-agent#109681: 26 compactions of compactions, and no work done between them.
#[tokio::test]
async fn a_summary_that_saves_nothing_is_not_taken_and_not_asked_for_again_and_again() {
    let journal = Arc::new(MemoryJournal::new());
    let notes = Notes::new(Some("on and on ".repeat(5_000)));
    let host = with(Arc::clone(&journal) as _, Arc::new(Worker::new(60)), Some(Arc::clone(&notes) as _));
    let finished = start(&host, compacting(1_000)).await.unwrap();
    assert_eq!(finished.status, Status::Completed);
    assert_eq!(notes.asked.load(Ordering::Relaxed), 4);
    assert_eq!(state(&journal).await.compactions(), 0);
}

#[tokio::test]
async fn between_two_compactions_there_is_work() {
    // What stays is larger than the limit: each turn would be a reason to shorten again.
    let journal = Arc::new(MemoryJournal::new());
    let notes = Notes::new(Some("short".into()));
    let host = with(Arc::clone(&journal) as _, Arc::new(Worker::new(60)), Some(Arc::clone(&notes) as _));
    let mut new = compacting(1_000);
    new.entry.agent.compaction = Some(settings(1_000, 10));
    assert_eq!(start(&host, new).await.unwrap().status, Status::Completed);
    assert!(notes.asked.load(Ordering::Relaxed) <= 60 / 2, "{notes:?}");
}

/// openai/openai-agents-python#3116 and #4679: what was written while a summary was made is dropped with the rest.
#[tokio::test]
async fn an_item_that_came_while_the_summary_was_written_is_never_lost() {
    let journal = Arc::new(MemoryJournal::new());
    let notes = Notes::new(Some("short".into()));
    let host = with(Arc::clone(&journal) as _, Arc::new(Worker::new(12)), Some(notes));
    start(&host, compacting(2_000)).await.unwrap();
    let records = events(journal.as_ref(), "r").await;
    let at = records.iter().position(|record| matches!(record.event, Event::Compacted(_))).unwrap();
    let swap = records[at].event.clone();
    let before = State::fold(&records[..at]).unwrap().unwrap();

    // Behind the part: it stays where it is.
    let mut state = before.clone();
    state.items.push(Item::user("and one more thing"));
    state.apply(&swap).unwrap();
    assert_eq!(state.items.last().unwrap().text(), "and one more thing");
    // Within the part: nobody summarised it, and nothing is replaced.
    let mut state = before.clone();
    state.items.insert(2, Item::user("and one more thing"));
    let items = state.items.clone();
    let error = state.apply(&swap).unwrap_err();
    assert!(
        matches!(error, FoldError::Misplaced { .. })
            && error.to_string().contains("not the one that was summarised")
    );
    assert_eq!(state.items, items);
    // And nobody swaps twice, or what was not asked for.
    let mut state = before.clone();
    state.apply(&swap).unwrap();
    state.apply(&swap).unwrap_err();
}

/// gsd-build/gsd-2#3971: an overflow that could not be mended ended a run in silence.
#[tokio::test]
async fn a_conversation_that_the_provider_refuses_is_shortened_and_asked_again() {
    let journal = Arc::new(MemoryJournal::new());
    let worker = Worker { window: 1_500, ..Worker::new(20) };
    let host = with(Arc::clone(&journal) as _, Arc::new(worker), Some(Notes::new(Some("short".into()))));
    // Nobody knew how little it takes.
    let finished = start(&host, compacting(1_000_000)).await.unwrap();
    assert_eq!((finished.status, finished.turns), (Status::Completed, 21));
    whole(&state(&journal).await.items);
}

#[tokio::test]
async fn a_conversation_that_cannot_be_shortened_enough_ends_the_run_by_name() {
    for (notes, window) in [(Some("short".to_owned()), 150), (None, 1_500)] {
        let journal = Arc::new(MemoryJournal::new());
        let worker = Arc::new(Worker { window, ..Worker::new(20) });
        let notes = Notes::new(notes);
        let host = with(Arc::clone(&journal) as _, Arc::clone(&worker) as _, Some(Arc::clone(&notes) as _));
        let finished = start(&host, compacting(1_000_000)).await.unwrap();
        assert_eq!(finished.status, Status::Failed);
        assert_eq!(finished.error.unwrap().code, "context_overflow");
        assert!(notes.asked.load(Ordering::Relaxed) <= 2);
        assert!(worker.asked.load(Ordering::Relaxed) <= 20);
    }
}

/// tetsuo-ai/agenc-core#2002: the gate counted as the provider does, the budget by an estimate twice as large, so that
/// the one killed what the other would have mended.
#[tokio::test]
async fn the_budget_and_the_need_to_shorten_go_by_one_measure() {
    // Providers that count more than we estimate, and less.
    for bytes in [2, 3, 8] {
        let journal = Arc::new(MemoryJournal::new());
        let worker = Worker { bytes, ..Worker::new(40) };
        let host = with(Arc::clone(&journal) as _, Arc::new(worker), Some(Notes::new(Some("short".into()))));
        let mut new = compacting(2_000);
        // Enough for short prompts, and for no long one.
        new.entry.limits.max_tokens = Some(41 * 3_000);
        let finished = start(&host, new).await.unwrap();
        assert_eq!(finished.status, Status::Completed, "{bytes}: {finished:?}");
        assert!(state(&journal).await.compactions() > 0, "{bytes}");
    }
}

#[tokio::test]
async fn a_summary_is_not_asked_for_with_money_that_is_not_there() {
    let journal = Arc::new(MemoryJournal::new());
    let notes = Notes::new(Some("short".into()));
    let host = with(Arc::clone(&journal) as _, Arc::new(Worker::new(40)), Some(Arc::clone(&notes) as _));
    let mut new = compacting(2_000);
    new.entry.limits.max_tokens = Some(6_000);
    let finished = start(&host, new).await.unwrap();
    assert_eq!(finished.error.unwrap().code, "budget_exhausted");
    assert!(finished.usage.total() <= 6_000, "{:?}", finished.usage);
}

/// block/goose#5164 and its kin: a run could not be resumed after its conversation was shortened.
#[tokio::test]
async fn the_driver_dies_at_every_append_and_the_conversation_is_the_same() {
    let reference = Arc::new(MemoryJournal::new());
    let notes = || Some(Notes::new(Some("short".into())) as Arc<dyn ModelClient>);
    let worker = || Arc::new(Worker::new(12)) as Arc<dyn ModelClient>;
    start(&with(Arc::clone(&reference) as _, worker(), notes()), compacting(2_000)).await.unwrap();
    let expected = state(&reference).await;
    assert!(expected.compactions() > 0);
    let run = RunId("r".into());
    let mut deaths = 0;
    for after in [false, true] {
        for nth in 1..60 {
            let memory = MemoryJournal::new();
            let mut journal = Arc::new(Dying { inner: memory.clone(), appends_left: nth.into(), after });
            loop {
                let host = with(Arc::clone(&journal) as _, worker(), notes());
                let driven = match memory.runs(Some(&run)).await {
                    Err(_) => start(&host, compacting(2_000)).await,
                    Ok(_) => resume(&host, &run).await,
                };
                match driven {
                    Err(HarnessError::Journal(JournalError::Store { .. })) => deaths += 1,
                    Err(HarnessError::Completed { .. } | HarnessError::Empty { .. }) => break,
                    Err(error) => panic!("{error}"),
                    Ok(finished) => {
                        assert_eq!(finished.status, Status::Completed);
                        break;
                    }
                }
                journal = Arc::new(Dying { inner: memory.clone(), appends_left: u64::MAX.into(), after });
            }
            if memory.runs(Some(&run)).await.unwrap()[0].last_seq > 0 {
                let state = state(&memory).await;
                assert_eq!(state.items, expected.items, "death {nth}");
                assert_eq!((state.turns, state.compactions()), (expected.turns, expected.compactions()));
            }
        }
    }
    assert!(deaths >= 50, "{deaths}");
}
