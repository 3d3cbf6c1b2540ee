//! The machine alone: events in, what is due out.

use mooring_harness::{FoldError, Next, State};
use mooring_journal::event::{
    CancelRequested, DriverAttached, GuardrailChecked, ModelCompleted, OutputChecked, RunStarted,
    ToolCompleted,
};
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
        (vec![started(), checked("g", "tool_input", "allow", Some("a"))], "guardrail_checked"),
    ] {
        let records: Vec<Record> = (1..).zip(records).map(|(seq, event)| record(seq, event)).collect();
        let error = State::fold(&records).unwrap_err();
        assert!(matches!(&error, FoldError::Misplaced { kind: found, .. } if found == kind), "{error}");
    }
}

/// A run whose agent has a guardrail of each kind and a typed answer.
fn guarded() -> State {
    let guardrail = |name: &str, on: &str| json!({"name": name, "on": on, "pattern": "x", "action": "trip"});
    let agent = json!({"name": "a", "model": "m",
        "output": {"schema": {"type": "object"}, "strict": true, "repairs": 1},
        "guardrails": [
            guardrail("in", "input"), guardrail("out", "output"),
            guardrail("before", "tool_input"), guardrail("after", "tool_output"),
        ],
    });
    let started = Event::RunStarted(Box::new(RunStarted { agent, ..RunStarted::default() }));
    State::fold(&[record(1, started)]).unwrap().unwrap()
}

fn checked(name: &str, stage: &str, verdict: &str, call_id: Option<&str>) -> Event {
    Event::GuardrailChecked(Box::new(GuardrailChecked {
        name: name.into(),
        stage: stage.into(),
        verdict: verdict.into(),
        call_id: call_id.map(str::to_owned),
        ..GuardrailChecked::default()
    }))
}

fn valid(valid: bool) -> Event {
    Event::OutputChecked(OutputChecked { valid, ..OutputChecked::default() })
}

#[test]
fn nothing_goes_on_before_the_checks_that_are_due() {
    let mut state = guarded();
    assert_eq!(state.next(), Next::Model, "the input is looked at meanwhile");
    assert_eq!(state.checks_beside_model().len(), 1);
    let call = json!([{"type": "function_call", "call_id": "a", "name": "t", "arguments": "{}"}]);
    let said = json!([{"type": "message", "role": "assistant", "content": "{}"}]);
    for (event, next) in [
        (answer(&call), Next::Guard),
        (checked("in", "input", "allow", None), Next::Guard),
        (checked("before", "tool_input", "allow", Some("a")), Next::Tools),
        (output("a"), Next::Guard),
        (checked("after", "tool_output", "allow", Some("a")), Next::Model),
        (answer(&said), Next::CheckOutput),
        (valid(false), Next::Model),
        (answer(&said), Next::CheckOutput),
        (valid(true), Next::Guard),
    ] {
        state.apply(&event).unwrap();
        assert_eq!(state.next(), next, "{event:?}");
    }
    state.apply(&checked("out", "output", "allow", None)).unwrap();
    let Next::Finish(finished) = state.next() else { panic!("{:?}", state.next()) };
    assert_eq!(finished.status, "completed");
}

/// A verdict that nobody knows, or that makes no sense where it is, is no pass.
#[test]
fn whatever_is_not_plainly_a_pass_trips() {
    for verdict in ["trip", "reject", "replace", "", "perhaps"] {
        let mut state = guarded();
        state.apply(&checked("in", "input", verdict, None)).unwrap();
        let Next::Finish(finished) = state.next() else { panic!("{verdict}: {:?}", state.next()) };
        assert_eq!(finished.error.unwrap().code, "guardrail_tripped");
        // Whoever takes it up checks again.
        state.apply(&Event::DriverAttached(DriverAttached::default())).unwrap();
        assert_eq!(state.checks_beside_model().len(), 1);
    }
    let call = json!([{"type": "function_call", "call_id": "a", "name": "t", "arguments": "{}"}]);
    let mut state = guarded();
    state.apply(&answer(&call)).unwrap();
    state.apply(&output("a")).unwrap();
    let nothing = state.apply(&checked("after", "tool_output", "reject", Some("a"))).unwrap_err();
    assert!(nothing.to_string().contains("what the model gets instead"), "{nothing}");
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
        id.clone().prop_map(output),
        (id.prop_map(Some), any::<bool>()).prop_map(|(id, before)| {
            let stage = if before { "tool_input" } else { "tool_output" };
            checked("g", stage, "allow", id)
        }),
        any::<bool>().prop_map(valid),
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
