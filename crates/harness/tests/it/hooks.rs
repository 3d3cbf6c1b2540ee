//! Hooks: told of each step once it is recorded, and never in the way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring_capability::BoxFuture;
use mooring_harness::{
    Answer, ApprovalHook, CheckHook, CompactionHook, HandoffHook, HookResult, Hooks, Live, ModelHook, Moment,
    Observer, RunHook, SandboxHook, Status, ToolHook, answer, resume, start,
};
use mooring_journal::event::{
    ApprovalAnswered, ApprovalRequested, ModelCompleted, ModelRequested, RunFinished, RunStarted,
    ToolCompleted, ToolRequested,
};
use mooring_journal::{Journal, MemoryJournal, Record, RunId};
use mooring_model::Item;
use serde_json::json;

use crate::world::{World, call, events, host, new_run, script, tools};

/// Writes down what it is told, and whether it is in the journal by then.
struct Log {
    journal: Arc<MemoryJournal>,
    told: Mutex<Vec<String>>,
}

impl Log {
    fn note<'a>(&'a self, at: &'a Moment, what: &'static str) -> BoxFuture<'a, HookResult> {
        Box::pin(async move {
            let recorded = self.journal.read(&at.run, at.seq - 1, 1).await?;
            assert_eq!(recorded[0].at_ms, at.at_ms);
            self.told.lock().unwrap().push(format!("{} {what}", at.seq));
            Ok(())
        })
    }
}

impl RunHook for Log {
    fn started<'a>(&'a self, at: &'a Moment, _: &'a RunStarted) -> BoxFuture<'a, HookResult> {
        self.note(at, "started")
    }

    fn finished<'a>(&'a self, at: &'a Moment, _: &'a RunFinished) -> BoxFuture<'a, HookResult> {
        self.note(at, "finished")
    }
}

impl ModelHook for Log {
    fn requested<'a>(&'a self, at: &'a Moment, _: &'a ModelRequested) -> BoxFuture<'a, HookResult> {
        self.note(at, "model requested")
    }

    fn completed<'a>(&'a self, at: &'a Moment, _: &'a ModelCompleted) -> BoxFuture<'a, HookResult> {
        self.note(at, "model completed")
    }
}

impl ToolHook for Log {
    fn requested<'a>(&'a self, at: &'a Moment, _: &'a ToolRequested) -> BoxFuture<'a, HookResult> {
        self.note(at, "tool requested")
    }

    fn completed<'a>(&'a self, at: &'a Moment, _: &'a ToolCompleted) -> BoxFuture<'a, HookResult> {
        self.note(at, "tool completed")
    }
}

impl ApprovalHook for Log {
    fn requested<'a>(&'a self, at: &'a Moment, _: &'a ApprovalRequested) -> BoxFuture<'a, HookResult> {
        self.note(at, "approval requested")
    }

    fn answered<'a>(&'a self, at: &'a Moment, _: &'a ApprovalAnswered) -> BoxFuture<'a, HookResult> {
        self.note(at, "approval answered")
    }
}

/// Does nothing of its own: every method has a body.
struct Idle;
impl SandboxHook for Idle {}
impl HandoffHook for Idle {}
impl CheckHook for Idle {}
impl CompactionHook for Idle {}

fn hooks(log: &Arc<Log>) -> Hooks {
    Hooks {
        run: vec![Arc::clone(log) as _],
        model: vec![Arc::clone(log) as _],
        tool: vec![Arc::clone(log) as _],
        approval: vec![Arc::clone(log) as _],
        sandbox: vec![Arc::new(Idle)],
        handoff: vec![Arc::new(Idle)],
        check: vec![Arc::new(Idle)],
        compaction: vec![Arc::new(Idle)],
    }
}

#[tokio::test]
async fn each_step_is_told_once_when_it_is_recorded() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let turns = vec![vec![call("pay", "a")], vec![Item::assistant("done")]];
    let (mut host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
    let log = Arc::new(Log { journal: Arc::clone(&journal), told: Mutex::default() });
    host.hooks = hooks(&log);
    let mut new = new_run("r");
    new.entry.agent.policy =
        serde_json::from_value(json!({"rules": [{"tool": "pay", "action": "ask"}]})).unwrap();
    assert_eq!(start(&host, new).await.unwrap().status, Status::Waiting);
    let asked = ["1 started", "3 model requested", "4 model completed", "5 approval requested", "6 finished"];
    assert_eq!(*log.told.lock().unwrap(), asked);

    // Answered where these hooks are not; they are told when the run is taken up.
    let run = RunId("r".into());
    let waiting = journal.runs(Some(&run)).await.unwrap()[0].summary["approvals"][0]["id"].clone();
    let yes = Answer { allow: true, always: false, by: "ann".into(), reason: None, input: json!(null) };
    answer(journal.as_ref(), &run, waiting.as_str().unwrap(), yes, 1_700_000_000_000).await.unwrap();
    log.told.lock().unwrap().clear();
    assert_eq!(resume(&host, &run).await.unwrap().status, Status::Completed);
    assert_eq!(
        *log.told.lock().unwrap(),
        [
            "7 approval answered",
            "9 tool requested",
            "10 tool completed",
            "11 model requested",
            "12 model completed",
            "13 finished"
        ]
    );
}

struct Bad;

impl ModelHook for Bad {
    fn requested<'a>(&'a self, _: &'a Moment, _: &'a ModelRequested) -> BoxFuture<'a, HookResult> {
        Box::pin(async { Err("no disk".into()) })
    }

    fn completed<'a>(&'a self, _: &'a Moment, _: &'a ModelCompleted) -> BoxFuture<'a, HookResult> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_hours(1)).await;
            Ok(())
        })
    }
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn recorded(&self, _: &Record) {}

    fn live(&self, live: Live) {
        if let Live::Note(note) = live {
            self.0.lock().unwrap().push(note);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_or_is_late_is_noted_and_changes_nothing() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let (mut host, _) = host(
        Arc::clone(&journal) as Arc<dyn Journal>,
        script(vec![vec![Item::assistant("done")]]),
        tools(&world),
    );
    let notes = Arc::new(Notes::default());
    host.observer = Arc::clone(&notes) as Arc<dyn Observer>;
    host.hooks.model = vec![Arc::new(Bad)];
    assert_eq!(start(&host, new_run("r")).await.unwrap().output.as_deref(), Some("done"));
    assert_eq!(
        *notes.0.lock().unwrap(),
        [
            "a hook failed, the run goes on: ModelHook::requested: no disk",
            "a hook took longer than 10s, the run goes on: ModelHook::completed",
        ]
    );
    assert!(events(journal.as_ref(), "r").await.len() >= 4);
}
