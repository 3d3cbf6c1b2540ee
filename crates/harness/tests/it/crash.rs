//! The driver dies at every moment there is, and the run still comes to the same end: nothing lost, nothing twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mooring_harness::{Answer, HarnessError, NewRun, State, Status, answer, resume, settle, start};
use mooring_journal::event::Tenant;
use mooring_journal::{
    Amounts, Append, BoxFuture, Claim, Event, Holding, Journal, JournalError, MemoryJournal, Record, RunId,
    RunRow,
};
use mooring_model::Item;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{World, call, events, host, new_run, script, tools};

/// A journal whose process dies at its nth append: either just before the events are there, or just after they are,
/// before the driver hears of it.
#[derive(Debug)]
pub(crate) struct Dying {
    pub(crate) inner: MemoryJournal,
    pub(crate) appends_left: AtomicU64,
    pub(crate) after: bool,
}

impl Dying {
    pub(crate) fn new(inner: MemoryJournal, nth: u64, after: bool) -> Self {
        Self { inner, appends_left: nth.into(), after }
    }
}

fn dead() -> JournalError {
    JournalError::Store { store: "test".into(), reason: "the process died".into() }
}

impl Journal for Dying {
    fn create<'a>(
        &'a self,
        run: &'a RunId,
        at: i64,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Claim, JournalError>> {
        self.inner.create(run, at, owner)
    }

    fn claim<'a>(&'a self, run: &'a RunId, owner: &'a str) -> BoxFuture<'a, Result<Claim, JournalError>> {
        self.inner.claim(run, owner)
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async move {
            let dies = self.appends_left.fetch_sub(1, Ordering::Relaxed) == 1;
            if dies && !self.after {
                return Err(dead());
            }
            let appended = self.inner.append(append).await?;
            if dies { Err(dead()) } else { Ok(appended) }
        })
    }

    fn read<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        self.inner.read(run, after, limit)
    }

    fn runs<'a>(&'a self, run: Option<&'a RunId>) -> BoxFuture<'a, Result<Vec<RunRow>, JournalError>> {
        self.inner.runs(run)
    }

    fn signal<'a>(&'a self, run: &'a RunId, word: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        self.inner.signal(run, word)
    }

    fn signals<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Vec<String>, JournalError>> {
        self.inner.signals(run)
    }

    fn reserve<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        want: &'a Amounts,
        limit: &'a Amounts,
    ) -> BoxFuture<'a, Result<Amounts, JournalError>> {
        self.inner.reserve(account, holder, want, limit)
    }

    fn settle<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        spent: &'a Amounts,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        self.inner.settle(account, holder, spent)
    }

    fn holdings(&self) -> BoxFuture<'_, Result<Vec<Holding>, JournalError>> {
        self.inner.holdings()
    }
}

/// Where the driver dies.
#[derive(Debug, Clone)]
enum Death {
    /// Around its nth append.
    AtAppend { nth: u64, after: bool },
    /// While a call runs, before or after it took effect.
    InCall { call_id: String, after: bool },
}

/// A run: for each turn the tools it calls. The ids are unique in the run.
fn turns(plan: &[Vec<&'static str>]) -> Vec<Vec<Item>> {
    let mut turns: Vec<Vec<Item>> = Vec::new();
    for (turn, tools) in plan.iter().enumerate() {
        turns.push(
            tools.iter().enumerate().map(|(n, tool)| call(tool, &format!("{tool}-{turn}-{n}"))).collect(),
        );
    }
    turns.push(vec![Item::assistant("done")]);
    turns
}

fn tool_of(call_id: &str) -> &str {
    call_id.split('-').next().unwrap_or_default()
}

/// The run of these tests: payments need an approval.
fn asking() -> NewRun {
    let mut new = new_run("r");
    new.entry.agent.policy =
        serde_json::from_value(json!({"rules": [{"tool": "pay", "action": "ask"}]})).unwrap();
    // Somebody pays, and what is set aside must come back whatever happens.
    let limits = json!({"max_tokens": 1_000_000, "max_tool_calls": 1_000});
    new.terms.tenant = Some(Tenant { name: "acme".into(), account: "acme".into(), limits });
    new
}

/// What the run waits for.
async fn waiting(journal: &MemoryJournal) -> Vec<String> {
    let state = State::fold(&events(journal, "r").await).unwrap().unwrap();
    state.approvals().map(|(_, asked)| asked.approval_id.clone()).collect()
}

/// Drives the run through its deaths to its end, and checks what must hold. Gives the number of deaths.
async fn survive(plan: &[Vec<&'static str>], deaths: &[Death]) -> usize {
    let memory = MemoryJournal::new();
    let world = Arc::new(World::default());
    let run = RunId("r".into());
    let mut died = 0;
    let mut deaths = deaths.iter();
    // A process that only ended to wait for an approval has its death still before it.
    let mut kept: Option<Arc<Dying>> = None;
    loop {
        let journal = kept.take().unwrap_or_else(|| {
            let death = deaths.next();
            let (nth, after) = match death {
                Some(Death::AtAppend { nth, after }) => (*nth, *after),
                _ => (u64::MAX, false),
            };
            if let Some(Death::InCall { call_id, after }) = death {
                let at = if *after { &world.stuck_after } else { &world.stuck_before };
                *at.lock().unwrap() = Some(call_id.clone());
            }
            Arc::new(Dying::new(memory.clone(), nth, after))
        });
        let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns(plan)), tools(&world));
        let drive = async {
            match memory.runs(Some(&run)).await {
                Err(_) => start(&host, asking()).await,
                Ok(_) => match resume(&host, &run).await {
                    // It died before its first event: nothing was done, so starting it anew repeats nothing.
                    Err(HarnessError::Empty { .. }) => {
                        assert!(world.began.lock().unwrap().is_empty());
                        Err(HarnessError::Empty { run: run.clone() })
                    }
                    result => result,
                },
            }
        };
        let result = tokio::select! {
            result = drive => result,
            () = world.stuck.notified() => {
                died += 1;
                continue;
            }
        };
        match result {
            Err(HarnessError::Empty { .. }) => return died,
            Err(HarnessError::Journal(JournalError::Store { .. })) => died += 1,
            Err(HarnessError::Completed { .. }) => break,
            Err(error) => panic!("{error}"),
            // Answered by somebody else, in no process of the run's.
            Ok(finished) if finished.status == Status::Waiting => {
                for id in waiting(&memory).await {
                    let yes = Answer {
                        allow: true,
                        always: false,
                        by: "ann".into(),
                        reason: None,
                        input: Value::Null,
                    };
                    answer(&memory, &run, &id, yes, 1_700_000_000_000).await.unwrap();
                }
                kept = Some(journal);
            }
            Ok(finished) => {
                assert_eq!((finished.status, finished.output.as_deref()), (Status::Completed, Some("done")));
                break;
            }
        }
    }

    let records = events(&memory, "r").await;
    let state = State::fold(&records).unwrap().unwrap();
    // Where the last driver died before it settled the account, anybody may.
    settle(&memory, "acme", &run, "ann").await.unwrap();
    let holding = memory.holdings().await.unwrap().remove(0);
    assert_eq!((holding.open, holding.amounts["max_tokens"]), (false, state.spent.usage.total()));
    assert_eq!(holding.amounts["max_tool_calls"], state.spent.tool_calls);
    let count = |wanted: fn(&Event) -> bool| records.iter().filter(|record| wanted(&record.event)).count();
    let asked = count(|event| matches!(event, Event::ApprovalRequested(_)));
    let payments = plan.iter().flatten().filter(|tool| **tool == "pay").count();
    assert_eq!(asked, payments, "each payment is asked for once");
    assert_eq!(count(|event| matches!(event, Event::ApprovalAnswered(_))), payments);
    // Every call is answered exactly once, and the conversation is whole.
    let mut open = BTreeSet::new();
    let mut answered = BTreeSet::new();
    for item in &state.items {
        match item {
            Item::FunctionCall { call_id, .. } => assert!(open.insert(call_id.clone())),
            Item::FunctionCallOutput { call_id, .. } => {
                assert!(open.remove(call_id) && answered.insert(call_id.clone()));
            }
            _ => {}
        }
    }
    assert!(open.is_empty());
    for record in &records {
        let Event::ToolCompleted(completed) = &record.event else { continue };
        let done = world.done(&completed.call_id);
        match (tool_of(&completed.call_id), completed.status.as_str()) {
            // May run again; must have run.
            ("look" | "put", "completed") => assert!(done >= 1, "{completed:?}"),
            // A call that is said to be done was done, and once.
            ("pay" | "patch", "completed") => assert_eq!(done, 1, "{completed:?}"),
            // A call in doubt was done once or never, and the model was told.
            ("pay", "outcome_unknown") => {
                assert!(done <= 1);
                assert!(completed.output["output"].as_str().unwrap().contains("not repeated"));
            }
            other => panic!("{other:?}: {completed:?}"),
        }
    }
    let calls: BTreeSet<String> = turns(plan)
        .into_iter()
        .flatten()
        .filter_map(|item| match item {
            Item::FunctionCall { call_id, .. } => Some(call_id),
            _ => None,
        })
        .collect();
    assert_eq!(answered, calls, "no call was lost");
    died
}

const PLAN: &[&[&str]] = &[&["pay"], &["look", "patch", "pay"], &["put", "put"], &["patch"]];

fn fixed_plan() -> Vec<Vec<&'static str>> {
    PLAN.iter().map(|tools| tools.to_vec()).collect()
}

#[tokio::test]
async fn the_driver_dies_at_every_append() {
    let plan = fixed_plan();
    let mut deaths = 0;
    for after in [false, true] {
        for nth in 1..40 {
            deaths += survive(&plan, &[Death::AtAppend { nth, after }]).await;
        }
    }
    assert!(deaths >= 20, "the run has that many appends: {deaths}");
}

#[tokio::test]
async fn the_driver_dies_in_every_call() {
    let plan = fixed_plan();
    for (turn, tools) in plan.iter().enumerate() {
        for (n, tool) in tools.iter().enumerate() {
            for after in [false, true] {
                let call_id = format!("{tool}-{turn}-{n}");
                assert_eq!(survive(&plan, &[Death::InCall { call_id, after }]).await, 1);
            }
        }
    }
}

#[tokio::test]
async fn the_driver_dies_at_every_append_of_its_resumption_too() {
    let plan = fixed_plan();
    for first in 1..14 {
        for second in 1..8 {
            let deaths = [
                Death::AtAppend { nth: first, after: first % 2 == 0 },
                Death::AtAppend { nth: second, after: second % 2 == 0 },
            ];
            survive(&plan, &deaths).await;
        }
    }
}

fn any_plan() -> impl Strategy<Value = Vec<Vec<&'static str>>> {
    let tool = prop_oneof![Just("look"), Just("put"), Just("pay"), Just("patch")];
    proptest::collection::vec(proptest::collection::vec(tool, 1..5), 1..6)
}

fn any_deaths() -> impl Strategy<Value = Vec<Death>> {
    let at_append = (1_u64..20, any::<bool>()).prop_map(|(nth, after)| Death::AtAppend { nth, after });
    let tool = prop_oneof![Just("look"), Just("put"), Just("pay"), Just("patch")];
    let in_call = (tool, 0..6, 0..5, any::<bool>())
        .prop_map(|(tool, turn, n, after)| Death::InCall { call_id: format!("{tool}-{turn}-{n}"), after });
    proptest::collection::vec(prop_oneof![at_append, in_call], 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_run_survives_any_deaths(plan in any_plan(), deaths in any_deaths()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(survive(&plan, &deaths));
    }
}
