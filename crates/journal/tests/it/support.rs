//! What many tests need: events, appends, runs.

use mooring_journal::event::{CancelRequested, ToolCompleted};
use mooring_journal::{Append, Claim, Durability, Event, Journal, Record, RunId, Stamped};
use serde_json::json;

pub(crate) fn run_id(id: &str) -> RunId {
    RunId(id.to_owned())
}

/// The `n`th event of a run, recognisable, larger the larger `n` is.
pub(crate) fn event(n: u64) -> Event {
    if n.is_multiple_of(3) {
        return Event::CancelRequested(CancelRequested { by: format!("test {n}") });
    }
    Event::ToolCompleted(Box::new(ToolCompleted {
        turn: n,
        call_id: format!("call_{n}"),
        tool: "shell".to_owned(),
        status: "completed".to_owned(),
        output: json!({"type": "function_call_output", "output": "ü".repeat(n as usize * 7 % 3000)}),
        provenance: "sandbox".to_owned(),
        duration_ms: n,
        ..Default::default()
    }))
}

/// An append of `count` events that follows event `after`.
pub(crate) fn append(run: &RunId, epoch: u64, after: u64, count: u64) -> Append {
    let events = (after + 1..=after + count).map(|n| Stamped { at_ms: 1000 + n as i64, event: event(n) });
    let events = events.collect();
    Append { run: run.clone(), epoch, after, events, summary: None, durability: Durability::Process }
}

/// The record that [`append`] makes of event `seq`.
pub(crate) fn record(run: &RunId, epoch: u64, seq: u64) -> Record {
    Record { run: run.clone(), seq, epoch, at_ms: 1000 + seq as i64, v: 1, event: event(seq) }
}

/// A new run with `events` events.
pub(crate) async fn run_with(journal: &dyn Journal, id: &str, events: u64) -> (RunId, Claim) {
    let run = run_id(id);
    let mut claim = journal.create(&run, 1000, "test").await.unwrap();
    claim.last_seq = journal.append(append(&run, claim.epoch, 0, events)).await.unwrap();
    (run, claim)
}

pub(crate) async fn read_all(journal: &dyn Journal, run: &RunId) -> Vec<Record> {
    journal.read(run, 0, usize::MAX).await.unwrap()
}
