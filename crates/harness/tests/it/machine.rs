//! The machine alone: events in, what is due out.

use mooring_harness::{FoldError, Next, State};
use mooring_journal::event::{CancelRequested, DriverAttached, ModelCompleted, RunStarted, ToolCompleted};
use mooring_journal::{Event, Record, RunId, SCHEMA_VERSION};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn record(seq: u64, event: Event) -> Record {
    Record { run: RunId("r".into()), seq, epoch: 1, at_ms: 0, v: SCHEMA_VERSION, event }
}

fn started() -> Event {
    Event::RunStarted(Box::new(RunStarted {
        agent: json!({"name": "a", "model": "m"}),
        ..RunStarted::default()
    }))
}

fn answer(items: &Value) -> Event {
    Event::ModelCompleted(Box::new(ModelCompleted {
        items: items.as_array().unwrap().clone(),
        stop_reason: json!("stop"),
        ..ModelCompleted::default()
    }))
}

fn output(call_id: &str) -> Event {
    Event::ToolCompleted(Box::new(ToolCompleted {
        call_id: call_id.into(),
        output: json!({"type": "function_call_output", "call_id": call_id, "output": "x"}),
        ..ToolCompleted::default()
    }))
}

#[test]
fn an_event_of_a_newer_version_stops_the_fold_by_name() {
    let mut fields = Map::new();
    fields.insert("type".into(), json!("agent_dreamt"));
    let records = [record(1, started()), record(2, Event::Unknown(fields))];
    assert_eq!(State::fold(&records), Err(FoldError::Unknown { seq: 2, kind: "agent_dreamt".into() }));
}

#[test]
fn events_out_of_place_are_refused() {
    let call = json!([{"type": "function_call", "call_id": "a", "name": "t", "arguments": "{}"}]);
    for (records, kind) in [
        (vec![answer(&json!([]))], "model_completed"),
        (vec![started(), started()], "run_started"),
        (vec![started(), output("a")], "tool_completed"),
        (vec![started(), answer(&call), answer(&json!([]))], "model_completed"),
        (vec![started(), answer(&call), output("a"), output("a")], "tool_completed"),
    ] {
        let records: Vec<Record> = (1..).zip(records).map(|(seq, event)| record(seq, event)).collect();
        let error = State::fold(&records).unwrap_err();
        assert!(matches!(&error, FoldError::Misplaced { kind: found, .. } if found == kind), "{error}");
    }
}

#[test]
fn a_paused_turn_goes_on() {
    let mut state = State::fold(&[record(1, started())]).unwrap().unwrap();
    let paused = ModelCompleted {
        items: vec![],
        stop_reason: json!({"other": "pause_turn"}),
        ..ModelCompleted::default()
    };
    state.apply(&Event::ModelCompleted(Box::new(paused))).unwrap();
    assert_eq!(state.next(), Next::Model);
}

/// Any events, sensible or not.
fn any_event() -> impl Strategy<Value = Event> {
    let id = prop_oneof![Just("a"), Just("b")];
    prop_oneof![
        Just(started()),
        Just(Event::DriverAttached(DriverAttached::default())),
        Just(Event::CancelRequested(CancelRequested::default())),
        Just(answer(&json!([{"type": "message", "role": "assistant", "content": "hi"}]))),
        id.clone().prop_map(|id| answer(
            &json!([{"type": "function_call", "call_id": id, "name": "t", "arguments": ""}])
        )),
        id.prop_map(output),
    ]
}

proptest! {
    /// Whatever the journal holds, the machine answers: an error, or what is due. It never panics, and the same
    /// events always give the same state.
    #[test]
    fn any_journal_gives_a_state_or_an_error(events in proptest::collection::vec(any_event(), 0..30)) {
        let records: Vec<Record> = (1..).zip(events).map(|(seq, event)| record(seq, event)).collect();
        let first = State::fold(&records);
        if let Ok(Some(state)) = &first {
            state.next();
            prop_assert_eq!(state.last_seq, records.len() as u64);
        }
        prop_assert_eq!(first, State::fold(&records));
    }
}
