//! Approvals: asked in one process, answered in another, gone on with in a third.

use std::sync::Arc;

use mooring_harness::{Answer, Answered, HarnessError, NewRun, Policy, Status, answer, resume, start};
use mooring_journal::{Event, Journal, JournalError, MemoryJournal, RunId};
use mooring_model::Item;
use serde_json::{Value, json};

use crate::world::{World, call, events, host, new_run, script, tools};

fn asking(rules: &serde_json::Value) -> NewRun {
    let mut new = new_run("r");
    new.entry.agent.policy = serde_json::from_value(json!({"rules": rules, "expires_s": 3600})).unwrap();
    new
}

fn run() -> RunId {
    RunId("r".into())
}

fn yes() -> Answer {
    Answer { allow: true, always: false, by: "ann".into(), reason: None, input: Value::Null }
}

/// The ids of the approvals that a run asked for, in their order.
async fn asked(journal: &dyn Journal) -> Vec<String> {
    let asked = events(journal, "r").await.into_iter().filter_map(|record| match record.event {
        Event::ApprovalRequested(asked) => Some(asked.approval_id),
        _ => None,
    });
    asked.collect()
}

/// A run of some turns with its parts for each process.
struct Setup {
    journal: MemoryJournal,
    world: Arc<World>,
    turns: Vec<Vec<Item>>,
}

impl Setup {
    fn new(turns: Vec<Vec<Item>>) -> Self {
        Self { journal: MemoryJournal::new(), world: Arc::new(World::default()), turns }
    }

    /// A host as another process would have it: nothing in common but the journal and the world.
    fn host(&self) -> mooring_harness::Host {
        host(Arc::new(self.journal.clone()), script(self.turns.clone()), tools(&self.world)).0
    }

    async fn answer(&self, id: &str, answer_: Answer) -> Result<Answered, HarnessError> {
        answer(&self.journal, &run(), id, answer_, 1_700_000_100_000).await
    }
}

fn outputs(records: &[mooring_journal::Record]) -> Vec<(String, String, String)> {
    let output = |record: &mooring_journal::Record| match &record.event {
        Event::ToolCompleted(done) => {
            let text = done.output["output"].as_str().unwrap().to_owned();
            Some((done.call_id.clone(), done.status.clone(), text))
        }
        _ => None,
    };
    records.iter().filter_map(output).collect()
}

#[tokio::test]
async fn a_run_waits_and_goes_on_after_the_answer() {
    let setup = Setup::new(vec![vec![call("pay", "a"), call("look", "b")], vec![Item::assistant("done")]]);
    let finished = start(&setup.host(), asking(&json!([{"tool": "pay", "action": "ask"}]))).await.unwrap();
    assert_eq!(finished.status, Status::Waiting);
    assert_eq!(
        (setup.world.done("a"), setup.world.done("b")),
        (0, 1),
        "what needs no approval is done meanwhile"
    );
    let row = &setup.journal.runs(None).await.unwrap()[0];
    let ids = asked(&setup.journal).await;
    assert_eq!(row.summary["status"], "waiting");
    assert_eq!(row.summary["approvals"][0]["id"], ids[0]);

    // Without an answer it only waits on.
    assert_eq!(resume(&setup.host(), &run()).await.unwrap().status, Status::Waiting);
    assert_eq!(setup.world.done("a"), 0);

    assert_eq!(setup.answer(&ids[0], yes()).await.unwrap(), Answered::Recorded);
    let finished = resume(&setup.host(), &run()).await.unwrap();
    assert_eq!((finished.status, finished.output.as_deref()), (Status::Completed, Some("done")));
    assert_eq!((setup.world.done("a"), setup.world.done("b")), (1, 1));
    assert_eq!(asked(&setup.journal).await.len(), 1, "it is asked once");
}

#[tokio::test]
async fn a_denied_call_does_not_take_place_and_the_model_hears_why() {
    let setup = Setup::new(vec![vec![call("pay", "a")], vec![Item::assistant("done")]]);
    start(&setup.host(), asking(&json!([{"tool": "pay", "action": "ask"}]))).await.unwrap();
    let ids = asked(&setup.journal).await;
    let no = Answer { allow: false, reason: Some("too expensive".into()), ..yes() };
    assert_eq!(setup.answer(&ids[0], no).await.unwrap(), Answered::Recorded);
    // Answering again, even the other way, changes nothing.
    assert_eq!(setup.answer(&ids[0], yes()).await.unwrap(), Answered::Before("deny".into()));
    assert_eq!(resume(&setup.host(), &run()).await.unwrap().status, Status::Completed);
    assert_eq!(setup.world.done("a"), 0);
    let outputs = outputs(&events(&setup.journal, "r").await);
    assert_eq!(outputs.len(), 1);
    assert_eq!(outputs[0].1, "denied");
    assert!(outputs[0].2.starts_with("denied by ann: too expensive."), "{}", outputs[0].2);
}

#[tokio::test]
async fn several_answers_come_in_any_order() {
    // Two calls with one id, as some local servers make them, are two questions.
    let turns =
        vec![vec![call("pay", "same"), call("pay", "same"), call("pay", "c")], vec![Item::assistant("done")]];
    let setup = Setup::new(turns);
    start(&setup.host(), asking(&json!([{"tool": "pay", "action": "ask"}]))).await.unwrap();
    let ids = asked(&setup.journal).await;
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    setup.answer(&ids[2], yes()).await.unwrap();
    assert_eq!(resume(&setup.host(), &run()).await.unwrap().status, Status::Waiting);
    assert_eq!(setup.world.done("c"), 1);
    setup.answer(&ids[1], Answer { allow: false, ..yes() }).await.unwrap();
    setup.answer(&ids[0], yes()).await.unwrap();
    assert_eq!(resume(&setup.host(), &run()).await.unwrap().status, Status::Completed);
    assert_eq!(setup.world.done("same"), 1);
}

#[tokio::test]
async fn always_covers_the_same_rule_and_tool_and_nothing_else() {
    let turns = vec![
        vec![call("pay", "a")],
        vec![call("pay", "b"), call("patch", "c")],
        vec![Item::assistant("done")],
    ];
    let setup = Setup::new(turns);
    start(&setup.host(), asking(&json!([{"tool": "pa*", "action": "ask"}]))).await.unwrap();
    let ids = asked(&setup.journal).await;
    setup.answer(&ids[0], Answer { always: true, ..yes() }).await.unwrap();
    assert_eq!(resume(&setup.host(), &run()).await.unwrap().status, Status::Waiting);
    assert_eq!((setup.world.done("b"), setup.world.done("c")), (1, 0));
}

#[tokio::test]
async fn an_unanswered_approval_expires_as_denied() {
    let setup = Setup::new(vec![vec![call("pay", "a")], vec![Item::assistant("done")]]);
    start(&setup.host(), asking(&json!([{"tool": "pay", "action": "ask"}]))).await.unwrap();
    let ids = asked(&setup.journal).await;
    let mut late = setup.host();
    late.now_ms = Arc::new(|| 1_700_009_000_000);
    assert_eq!(resume(&late, &run()).await.unwrap().status, Status::Completed);
    assert_eq!(setup.world.done("a"), 0);
    assert_eq!(setup.answer(&ids[0], yes()).await.unwrap(), Answered::Before("expired".into()));

    let setup = Setup::new(vec![vec![call("pay", "a")], vec![Item::assistant("done")]]);
    start(&setup.host(), asking(&json!([{"tool": "pay", "action": "ask"}]))).await.unwrap();
    let ids = asked(&setup.journal).await;
    let answered = answer(&setup.journal, &run(), &ids[0], yes(), 1_700_009_000_000).await.unwrap();
    assert_eq!(answered, Answered::Expired, "too late is no approval");
    assert_eq!(resume(&setup.host(), &run()).await.unwrap().status, Status::Completed);
    assert_eq!(setup.world.done("a"), 0);
}

#[tokio::test]
async fn what_the_policy_denies_is_never_called() {
    let setup = Setup::new(vec![vec![call("pay", "a")], vec![Item::assistant("done")]]);
    let new = asking(&json!([{"tool": "pay", "action": "deny", "reason": "no money here"}]));
    assert_eq!(start(&setup.host(), new).await.unwrap().status, Status::Completed);
    assert!(setup.world.began.lock().unwrap().is_empty());
    let outputs = outputs(&events(&setup.journal, "r").await);
    assert!(outputs[0].2.starts_with("denied by the policy: no money here."), "{}", outputs[0].2);
}

#[tokio::test]
async fn answers_that_fit_no_question_are_refused() {
    let setup = Setup::new(vec![vec![call("pay", "a")], vec![Item::assistant("done")]]);
    start(&setup.host(), asking(&json!([{"tool": "pay", "action": "ask"}]))).await.unwrap();
    let error = setup.answer("0123456789ab", yes()).await.unwrap_err();
    assert!(matches!(error, HarnessError::NoApproval { .. }), "{error}");
    // While somebody drives the run, nobody else writes to it.
    let held = setup.journal.claim(&run(), "another driver").await.unwrap();
    let ids = asked(&setup.journal).await;
    let error = setup.answer(&ids[0], yes()).await.unwrap_err();
    assert!(matches!(error, HarnessError::Journal(JournalError::Driven { .. })), "{error}");
    drop(held);
    assert_eq!(setup.answer(&ids[0], yes()).await.unwrap(), Answered::Recorded);
}

#[tokio::test]
async fn a_waiting_run_can_be_cancelled() {
    let setup = Setup::new(vec![vec![call("pay", "a")], vec![Item::assistant("done")]]);
    start(&setup.host(), asking(&json!([{"tool": "pay", "action": "ask"}]))).await.unwrap();
    let host = setup.host();
    host.cancel.cancel();
    assert_eq!(resume(&host, &run()).await.unwrap().status, Status::Cancelled);
    let outputs = outputs(&events(&setup.journal, "r").await);
    assert_eq!(outputs[0].1, "cancelled");
}

#[test]
fn a_question_fits_one_run_call_and_policy() {
    // The same call in another run, or under another policy, is another question.
    let ids: Vec<Vec<String>> = [("r1", "x"), ("r2", "x"), ("r1", "y")]
        .into_iter()
        .map(|(id, reason)| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let setup = Setup::new(vec![vec![call("pay", "a")], vec![Item::assistant("done")]]);
                let mut new = new_run(id);
                let rules = json!([{"tool": "pay", "action": "ask", "reason": reason}]);
                new.entry.agent.policy =
                    Policy { rules: serde_json::from_value(rules).unwrap(), ..Policy::default() };
                start(&setup.host(), new).await.unwrap();
                let records = events(&setup.journal, id).await;
                let asked = records.into_iter().filter_map(|record| match record.event {
                    Event::ApprovalRequested(asked) => Some(asked.approval_id),
                    _ => None,
                });
                asked.collect()
            })
        })
        .collect();
    assert_ne!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}
