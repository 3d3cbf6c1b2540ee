//! Runs: watched, answered and gone on with elsewhere, cancelled, forked.

use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt as _;
use mooring::{Agent, Answer, Event, Run, RunEvent, Runtime, Status, tool};
use serde_json::json;

use crate::words::{calls, says, script};

static PAID: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Pays.
#[tool]
async fn pay(cents: u64) -> String {
    PAID.lock().unwrap().push(cents);
    format!("paid {cents}")
}

/// Answers at once.
#[tool(name = "hang", effect = "pure")]
async fn relent() -> String {
    "here I am".into()
}

/// Never answers.
#[tool(effect = "pure")]
async fn hang() -> String {
    std::future::pending().await
}

fn payer(cents: u64) -> Agent {
    let model = script(&[calls(&[("pay", json!({"cents": cents}))]), says("paid"), says("you are welcome")]);
    Agent::builder("payer").model(model).tool(pay).build().unwrap()
}

fn paid(cents: u64) -> usize {
    PAID.lock().unwrap().iter().filter(|paid| **paid == cents).count()
}

fn yes() -> Answer {
    Answer { allow: true, always: false, by: "ann".into(), reason: None, input: serde_json::Value::Null }
}

/// Each runtime stands for a process: nothing is shared but the directory.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_question_of_one_process_is_answered_in_a_second_and_gone_on_with_in_a_third() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Run::start(&Runtime::open(folder.path()).unwrap(), &payer(1), "pay").await.unwrap();
    assert_eq!(asked.status(), Status::Waiting);
    let id = asked.id().clone();
    drop(asked);

    let second = Runtime::open(folder.path()).unwrap();
    let found = Run::find(&second, &payer(1), &id).await.unwrap();
    let waiting = found.approvals().await.unwrap();
    assert_eq!((waiting.len(), waiting[0].input.as_str()), (1, r#"{"cents":1}"#));
    found.answer(&waiting[0], yes()).await.unwrap();
    assert_eq!(paid(1), 0);
    drop((found, second));

    let third = Runtime::open(folder.path()).unwrap();
    let run = Run::resume(&third, &payer(1), &id).await.unwrap();
    assert_eq!((run.status(), run.output(), paid(1)), (Status::Completed, Some("paid"), 1));
    assert!(Run::resume(&third, &payer(1), &id).await.is_err(), "there is nothing to go on with");
}

#[tokio::test]
async fn a_stream_gives_each_event_and_then_the_run() {
    let agent = Agent::builder("a").model(script(&[says("hello")])).build().unwrap();
    let mut stream = Run::stream(&Runtime::in_memory(), &agent, "hi");
    let id = stream.id().clone();
    let (mut recorded, mut live, mut ended) = (Vec::new(), Vec::new(), None);
    while let Some(event) = stream.next().await {
        assert!(ended.is_none(), "the run comes last");
        match event.unwrap() {
            RunEvent::Recorded(record) => recorded.push(*record),
            RunEvent::Live(event) => live.push(event),
            RunEvent::Ended(run) => ended = Some(*run),
        }
    }
    let run = ended.unwrap();
    assert_eq!((run.id(), run.output()), (&id, Some("hello")));
    assert_eq!(run.events().await.unwrap(), recorded);
    assert_eq!(live, [mooring::Live::Text("hello".into())]);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_is_dropped_leaves_a_run_that_can_be_gone_on_with() {
    let runtime = Runtime::in_memory();
    let lines = [calls(&[("hang", json!({}))]), says("hello")];
    let agent = Agent::builder("a").model(script(&lines)).tool(hang).build().unwrap();
    let mut stream = Run::stream(&runtime, &agent, "hi");
    let id = stream.id().clone();
    while let Some(event) = stream.next().await {
        if matches!(event.unwrap(), RunEvent::Recorded(record) if matches!(record.event, Event::ToolRequested(_)))
        {
            break;
        }
    }
    drop(stream);
    assert_eq!(Run::find(&runtime, &agent, &id).await.unwrap().status(), Status::Running);
    let again = Agent::builder("a").model(script(&lines)).tool(relent).build().unwrap();
    assert_eq!(Run::resume(&runtime, &again, &id).await.unwrap().output(), Some("hello"));
}

#[tokio::test]
async fn a_run_is_cancelled_by_its_driver_and_by_others() {
    let hanging = || {
        let model = script(&[calls(&[("hang", json!({}))])]);
        Agent::builder("a").model(model).tool(hang).build().unwrap()
    };
    let runtime = Runtime::in_memory();
    let stream = Run::stream(&runtime, &hanging(), "go");
    let cancel = stream.cancel_token();
    let driving = tokio::spawn(stream.finish());
    tokio::time::sleep(Duration::from_millis(50)).await;
    cancel.cancel();
    assert_eq!(driving.await.unwrap().unwrap().status(), Status::Cancelled);

    let stream = Run::stream(&runtime, &hanging(), "go");
    let id = stream.id().clone();
    let driving = tokio::spawn(stream.finish());
    while Run::find(&runtime, &hanging(), &id).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cancelled = Run::cancel(&runtime, &hanging(), &id).await.unwrap();
    assert_eq!(cancelled.status(), Status::Cancelled);
    assert_eq!(driving.await.unwrap().unwrap().status(), Status::Cancelled);

    // One that only waits has no driver.
    let waiting = Run::start(&runtime, &payer(2), "pay").await.unwrap();
    let cancelled = Run::cancel(&runtime, &payer(2), waiting.id()).await.unwrap();
    assert_eq!((cancelled.status(), paid(2)), (Status::Cancelled, 0));
    assert!(cancelled.approvals().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_conversation_goes_on_and_a_fork_goes_its_own_way() {
    let runtime = Runtime::in_memory();
    let first = Run::start(&runtime, &payer(3), "pay").await.unwrap();
    assert!(first.reply("and?").await.is_err(), "it waits");
    for approval in first.approvals().await.unwrap() {
        first.answer(&approval, yes()).await.unwrap();
    }
    let first = first.go_on().await.unwrap();
    let thanks = first.reply("thank you").await.unwrap();
    assert_eq!(thanks.output(), Some("you are welcome"));

    let events = first.events().await.unwrap();
    let done = events.iter().find(|record| matches!(record.event, Event::ToolCompleted(_))).unwrap().seq;
    let fork = first.fork(done, None).await.unwrap();
    assert_eq!((fork.output(), paid(3)), (Some("paid"), 1), "what was done is not done again");
    let last = events.last().unwrap().seq;
    let fork = first.fork(last, Some("thank you")).await.unwrap();
    assert_eq!(fork.output(), Some("you are welcome"));
    assert_ne!(fork.id(), first.id());
}
