//! Typed output: what is asked of the model, what it may mend, and how the run ends.

use std::sync::Arc;

use mooring_harness::{HarnessError, Status, TypedOutput, fold, resume, start};
use mooring_journal::event::OutputChecked;
use mooring_journal::{Event, Journal, MemoryJournal, RunId};
use mooring_model::{Item, OutputSchema};
use serde_json::{Value, json};

use crate::world::{World, call, events, host, new_run, script, tools};

pub(crate) fn number() -> TypedOutput {
    let schema = json!({
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": false,
    });
    TypedOutput::new(OutputSchema { schema, strict: true })
}

/// Drives a typed run with these answers; gives how it ended and what was checked.
async fn ask(turns: Vec<Vec<Item>>) -> (Arc<MemoryJournal>, String, Vec<OutputChecked>) {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    let mut new = new_run("r");
    new.entry.agent.output = Some(number());
    let finished = start(&host, new).await.unwrap();
    let ended = format!(
        "{} {} {}",
        finished.status.as_str(),
        finished.output.as_deref().unwrap_or("-"),
        finished.error.map(|error| error.code).unwrap_or_default()
    );
    let checked = checks(journal.as_ref()).await;
    (journal, ended.trim_end().to_owned(), checked)
}

async fn checks(journal: &dyn Journal) -> Vec<OutputChecked> {
    let checked = |event: Event| match event {
        Event::OutputChecked(checked) => Some(checked),
        _ => None,
    };
    events(journal, "r").await.into_iter().filter_map(|record| checked(record.event)).collect()
}

fn says(text: &str) -> Vec<Item> {
    vec![Item::assistant(text)]
}

#[tokio::test]
async fn an_answer_after_the_schema_ends_the_run() {
    let (journal, ended, checked) = ask(vec![
        vec![Item::assistant("I look."), call("look", "a")],
        // What is said before the answer is talk.
        vec![Item::assistant("Here it is."), Item::assistant(r#"{"n": 1}"#)],
    ])
    .await;
    assert_eq!(ended, r#"completed {"n": 1}"#);
    assert_eq!(checked, [OutputChecked { turn: 2, valid: true, errors: vec![], repair: Value::Null }]);
    let state = fold(journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    assert!(state.instructions().starts_with("Be careful.\n\n# Your last answer\n\nAnswer with JSON"));
    assert!(state.instructions().ends_with(&number().form.schema.to_string()));
}

#[tokio::test]
async fn the_model_is_told_what_is_wrong_and_mends_it() {
    let (journal, ended, checked) =
        ask(vec![says("```json\n{\"n\": 1}\n```"), says(r#"{"n": "1"}"#), says(r#"{"n": 1}"#)]).await;
    assert_eq!(ended, r#"completed {"n": 1}"#);
    assert_eq!(checked.iter().map(|check| check.valid).collect::<Vec<_>>(), [false, false, true]);
    let state = fold(journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    assert_eq!(
        state.items[4].text(),
        "Your answer is not as the JSON Schema in your instructions wants it:\n\n- /n: \"1\" is not of type \
         \"integer\"\n\nAnswer again, whole, with the JSON alone."
    );
}

#[tokio::test]
async fn a_model_that_never_mends_it_fails_the_run_with_its_last_words() {
    let wrong = || says("seven");
    let (journal, ended, checked) = ask(vec![wrong(), wrong(), wrong(), says("unasked")]).await;
    assert_eq!(ended, "failed seven invalid_output");
    assert_eq!(checked.len(), 3);
    // Whoever resumes it gives the model its tries anew.
    let world = Arc::new(World::default());
    let turns = vec![wrong(), wrong(), wrong(), wrong(), says(r#"{"n": 7}"#)];
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    let finished = resume(&host, &RunId("r".into())).await.unwrap();
    assert_eq!((finished.status, finished.output.as_deref()), (Status::Completed, Some(r#"{"n": 7}"#)));
}

/// Tools may be called on the way to a mended answer, and turns count as ever.
#[tokio::test]
async fn mending_takes_turns() {
    let (_, ended, checked) = ask(vec![says("seven"), vec![call("look", "a")], says(r#"{"n": 7}"#)]).await;
    assert_eq!(ended, r#"completed {"n": 7}"#);
    assert_eq!(checked.iter().map(|check| check.turn).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_is_refused() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(vec![]), tools(&world));
    let mut new = new_run("r");
    let schema = json!({"type": "object", "properties": {"n": {"$ref": "https://example.com/n.json"}}});
    new.entry.agent.output = Some(TypedOutput::new(OutputSchema { schema, strict: true }));
    let error = start(&host, new).await.unwrap_err();
    assert!(matches!(error, HarnessError::Agent { .. }), "{error}");
    assert!(error.to_string().contains("What it refers to must be in it"), "{error}");
}
