//! The crash matrix: generated teams of agents, killed at every append and in their calls, with a store that fails, a
//! power that goes, and a clock that jumps. Whatever happens, nothing is lost and nothing is done twice.
//!
//! All of it follows from a seed. A case that fails says which; `MOORING_SEED=N` runs that one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use mooring_capability::{BoxFuture, Effect, Question, Reconciled, Tool, ToolContext, ToolInput, ToolResult};
use mooring_harness::{
    AgentHost, Answer, GuardrailSpec, Handoff, HandoffFilter, HarnessError, Hooks, Host, Member, NewRun,
    Silent, State, Status, SubAgent, SubSandbox, answer, fold, resume, settle, start,
};
use mooring_journal::event::Tenant;
use mooring_journal::{
    Amounts, Append, Claim, Durability, Event, Holding, Journal, JournalError, MemoryJournal, Record, RunId,
    RunRow,
};
use mooring_model::{Item, ToolKind, ToolSpec};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::typed::number;
use crate::world::{call, member, new_run, script};

/// How many crashes each of the tests below makes, at least.
const CRASHES: usize = 1_700;

/// SplitMix64: small, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What happened outside of the harness, by the key that each call has; it outlives every process.
#[derive(Debug, Default)]
struct World {
    done: Mutex<BTreeMap<String, u32>>,
    /// The process dies in this many calls from now, before or after the call has taken effect.
    dies: Mutex<Option<(u64, bool)>>,
    stuck: Notify,
}

impl World {
    async fn act(&self, key: &str) {
        let due = {
            let mut dies = self.dies.lock().unwrap();
            match dies.as_mut() {
                Some((0, after)) => {
                    let after = *after;
                    *dies = None;
                    Some(after)
                }
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if due == Some(false) {
            self.die().await;
        }
        *self.done.lock().unwrap().entry(key.to_owned()).or_default() += 1;
        if due == Some(true) {
            self.die().await;
        }
    }

    async fn die(&self) {
        self.stuck.notify_one();
        std::future::pending::<()>().await;
    }

    fn done(&self, key: &str) -> u32 {
        self.done.lock().unwrap().get(key).copied().unwrap_or(0)
    }
}

/// A tool that changes the world once a call.
#[derive(Debug)]
struct Act {
    name: &'static str,
    effect: Effect,
    reconciles: bool,
    world: Arc<World>,
}

impl Tool for Act {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.into(),
            description: "acts".into(),
            kind: ToolKind::Function { parameters: json!({"type": "object"}), strict: false },
        }
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        _input: &'a ToolInput,
        prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async move {
            // Calls of one turn end in any order.
            tokio::task::yield_now().await;
            if self.name == "form" {
                match prepared["answer"]["action"].as_str() {
                    Some("accept") => assert_eq!(prepared["state"], json!({"round": 1})),
                    Some(_) => return ToolResult::failed("declined"),
                    None => {
                        return ToolResult::asks(Question {
                            message: "How much?".into(),
                            schema: json!({"type": "object"}),
                            state: json!({"round": 1}),
                        });
                    }
                }
            }
            self.world.act(&context.key).await;
            ToolResult::text("acted")
        })
    }

    fn reconcile<'a>(
        &'a self,
        context: &'a ToolContext,
        _input: &'a ToolInput,
        _prepared: &'a Value,
    ) -> BoxFuture<'a, Reconciled> {
        Box::pin(async move {
            match (self.reconciles, self.world.done(&context.key)) {
                (false, _) => Reconciled::Unknown,
                (true, 0) => Reconciled::NotStarted,
                (true, _) => Reconciled::Done(ToolResult::text("acted")),
            }
        })
    }
}

const TOOLS: [(&str, Effect, bool); 6] = [
    ("look", Effect::Pure, false),
    ("put", Effect::Idempotent, false),
    ("pay", Effect::AtMostOnce, false),
    ("patch", Effect::AtMostOnce, true),
    ("book", Effect::Compensatable, false),
    // Asks a person before it acts.
    ("form", Effect::AtMostOnce, false),
];

/// What the store is told, in the order that it was: what a power failure cuts.
#[derive(Debug, Clone)]
enum Told {
    Create(RunId, i64),
    Append(Append),
}

/// How the store of one process fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The process dies at its nth append: before the events are there, or after, before the driver hears of it.
    Dies { nth: u64, after: bool },
    /// The nth append fails; the process lives and stops.
    Fails { nth: u64 },
    /// The power goes at the nth append: up to so many of the last appends that were not synced are gone.
    Power { nth: u64, lost: u64 },
    /// The process dies in its nth call, before or after the call takes effect.
    InCall { nth: u64, after: bool },
}

/// A journal as processes share it, and as one of them sees it fail.
#[derive(Debug)]
struct Store {
    inner: Mutex<MemoryJournal>,
    log: Mutex<Vec<Told>>,
    fault: Mutex<Option<Fault>>,
    appends: Mutex<u64>,
}

fn dead() -> JournalError {
    JournalError::Store { store: "test".into(), reason: "the process died".into() }
}

impl Store {
    fn new() -> Self {
        Self {
            inner: Mutex::new(MemoryJournal::new()),
            log: Mutex::default(),
            fault: Mutex::default(),
            appends: Mutex::default(),
        }
    }

    fn inner(&self) -> MemoryJournal {
        self.inner.lock().unwrap().clone()
    }

    /// A new process.
    fn begin(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
        *self.appends.lock().unwrap() = 0;
    }

    /// The disk after a power failure: everything up to the last sync, and perhaps more.
    async fn cut(&self, lost: u64) {
        let told = {
            let mut log = self.log.lock().unwrap();
            let synced =
                |told: &Told| matches!(told, Told::Append(append) if append.durability == Durability::Power);
            let safe = log.iter().rposition(synced).map_or(0, |at| at + 1);
            let left = safe.max(log.len().saturating_sub(usize::try_from(lost).unwrap()));
            log.truncate(left);
            log.clone()
        };
        let journal = MemoryJournal::new();
        let mut claims: BTreeMap<RunId, Claim> = BTreeMap::new();
        for told in told {
            match told {
                Told::Create(run, at) => {
                    claims.insert(run.clone(), journal.create(&run, at, "disk").await.unwrap());
                }
                Told::Append(mut append) => {
                    append.epoch = claims[&append.run].epoch;
                    journal.append(append).await.unwrap();
                }
            }
        }
        drop(claims);
        *self.inner.lock().unwrap() = journal;
    }
}

impl Journal for Store {
    fn create<'a>(
        &'a self,
        run: &'a RunId,
        at: i64,
        owner: &'a str,
    ) -> mooring_journal::BoxFuture<'a, Result<Claim, JournalError>> {
        Box::pin(async move {
            let claim = self.inner().create(run, at, owner).await?;
            self.log.lock().unwrap().push(Told::Create(run.clone(), at));
            Ok(claim)
        })
    }

    fn claim<'a>(
        &'a self,
        run: &'a RunId,
        owner: &'a str,
    ) -> mooring_journal::BoxFuture<'a, Result<Claim, JournalError>> {
        Box::pin(async move { self.inner().claim(run, owner).await })
    }

    fn append(&self, append: Append) -> mooring_journal::BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async move {
            let fault = *self.fault.lock().unwrap();
            let nth = {
                let mut appends = self.appends.lock().unwrap();
                *appends += 1;
                *appends
            };
            match fault {
                // Nobody in this process hears of the store again.
                Some(Fault::Dies { nth: at, after }) if nth > at || (nth == at && !after) => {
                    return Err(dead());
                }
                Some(Fault::Power { nth: at, .. }) if nth > at => return Err(dead()),
                Some(Fault::Fails { nth: at }) if nth == at => {
                    return Err(JournalError::Full { store: "test".into() });
                }
                _ => {}
            }
            let appended = self.inner().append(append.clone()).await?;
            self.log.lock().unwrap().push(Told::Append(append));
            match fault {
                Some(Fault::Dies { nth: at, .. } | Fault::Power { nth: at, .. }) if nth == at => Err(dead()),
                _ => Ok(appended),
            }
        })
    }

    fn read<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        limit: usize,
    ) -> mooring_journal::BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        Box::pin(async move { self.inner().read(run, after, limit).await })
    }

    fn runs<'a>(
        &'a self,
        run: Option<&'a RunId>,
    ) -> mooring_journal::BoxFuture<'a, Result<Vec<RunRow>, JournalError>> {
        Box::pin(async move { self.inner().runs(run).await })
    }

    fn signal<'a>(
        &'a self,
        run: &'a RunId,
        word: &'a str,
    ) -> mooring_journal::BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move { self.inner().signal(run, word).await })
    }

    fn signals<'a>(
        &'a self,
        run: &'a RunId,
    ) -> mooring_journal::BoxFuture<'a, Result<Vec<String>, JournalError>> {
        Box::pin(async move { self.inner().signals(run).await })
    }

    fn reserve<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        want: &'a Amounts,
        limit: &'a Amounts,
    ) -> mooring_journal::BoxFuture<'a, Result<Amounts, JournalError>> {
        Box::pin(async move { self.inner().reserve(account, holder, want, limit).await })
    }

    fn settle<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        spent: &'a Amounts,
    ) -> mooring_journal::BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move { self.inner().settle(account, holder, spent).await })
    }

    fn holdings(&self) -> mooring_journal::BoxFuture<'_, Result<Vec<Holding>, JournalError>> {
        Box::pin(async move { self.inner().holdings().await })
    }
}

/// A generated run: a tree of agents, each with a script, a policy and limits.
struct Plan {
    new: NewRun,
    scripts: BTreeMap<String, Vec<Vec<Item>>>,
}

impl Plan {
    fn generate(rng: &mut Rng) -> Self {
        let mut new = new_run("r");
        let mut scripts = BTreeMap::new();
        let depth = 1 + rng.below(3);
        let name = |level: u64| if level == 0 { "tester".to_owned() } else { format!("level{level}") };
        for level in 0..depth {
            let below = (level + 1 < depth).then(|| name(level + 1));
            let hands_over = level == 0 && rng.chance(40);
            let mut turns: Vec<Vec<Item>> = Vec::new();
            for turn in 0..=rng.below(3) {
                let calls = 1 + rng.below(if level == 0 { 4 } else { 3 });
                turns.push((0..calls).map(|n| one_call(rng, below.as_deref(), turn, n)).collect());
            }
            if hands_over {
                let mut last = vec![call("transfer_to_closer", "handoff")];
                last.extend((0..rng.below(3)).map(|n| one_call(rng, below.as_deref(), 9, n)));
                turns.push(last);
                scripts.insert(
                    "closer".to_owned(),
                    vec![vec![call("pay", "closing")], vec![Item::assistant("closed")]],
                );
                new.team.insert("closer".to_owned(), with_model(member("closer")));
            } else {
                turns.push(vec![Item::assistant("done")]);
            }
            scripts.insert(name(level), turns);
            let mut one = with_model(member(&name(level)));
            one.agent.policy = serde_json::from_value(policy(rng)).unwrap();
            one.limits.max_turns = 200;
            if rng.chance(15) {
                one.limits.max_tool_calls = Some(rng.below(8));
            }
            if rng.chance(10) {
                one.limits.max_tokens = Some(400 + rng.below(4_000));
            }
            if rng.chance(30) {
                let at_tokens = 20 + rng.below(60);
                let settings = json!({"at_tokens": at_tokens, "keep_turns": 1, "model": "script:notes"});
                one.agent.compaction = Some(serde_json::from_value(settings).unwrap());
            }
            if rng.chance(40) {
                one.agent.guardrails = guardrails(rng);
                scripts.insert("judge".to_owned(), vec![vec![Item::assistant(FAIR)]]);
                new.team.insert("judge".to_owned(), with_model(member("judge")));
            }
            if !hands_over && rng.chance(30) {
                // Its first answer is not what it must be.
                one.agent.output = Some(number());
                let turns = scripts.get_mut(&name(level)).unwrap();
                turns.push(vec![Item::assistant(r#"{"n": 1}"#)]);
            }
            if let Some(below) = below {
                one.agent.agents = vec![SubAgent {
                    agent: below,
                    tool: Some("give".into()),
                    description: String::new(),
                    sandbox: SubSandbox::Own,
                }];
            }
            if hands_over {
                let filter = if rng.chance(50) { HandoffFilter::All } else { HandoffFilter::NoTools };
                one.agent.handoffs =
                    vec![Handoff { agent: "closer".into(), tool: None, description: String::new(), filter }];
            }
            if level == 0 {
                new.entry = one;
            } else {
                new.team.insert(name(level), one);
            }
        }
        if rng.chance(30) {
            let limits = json!({"max_tokens": 100_000, "max_tool_calls": 5 + rng.below(100)});
            new.terms.tenant = Some(Tenant { name: "acme".into(), account: "acme".into(), limits });
        }
        Self { new, scripts }
    }

    fn host(&self, store: &Arc<Store>, world: &Arc<World>, clock: &Arc<AtomicI64>) -> Host {
        let tools = || -> Vec<Arc<dyn Tool>> {
            let tool = |(name, effect, reconciles)| -> Arc<dyn Tool> {
                Arc::new(Act { name, effect, reconciles, world: Arc::clone(world) })
            };
            TOOLS.into_iter().map(tool).collect()
        };
        let notes = || script((0..50).map(|_| vec![Item::assistant("notes")]).collect());
        let agent = |(name, turns): (&String, &Vec<Vec<Item>>)| {
            (
                name.clone(),
                AgentHost {
                    model: script(turns.clone()),
                    summariser: Some(notes()),
                    tools: tools(),
                    guardrails: Vec::new(),
                    filters: Vec::new(),
                    sandbox: None,
                },
            )
        };
        let clock = Arc::clone(clock);
        Host {
            journal: Arc::clone(store) as Arc<dyn Journal>,
            agents: Arc::new(self.scripts.iter().map(agent).collect()),
            snapshots: None,
            observer: Arc::new(Silent),
            hooks: Hooks::default(),
            now_ms: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
            cancel: CancellationToken::new(),
            pid: 1,
            runtime: "test".into(),
        }
    }
}

/// What an agent that judges answers.
const FAIR: &str = r#"{"trip": false, "reason": "fair"}"#;

/// Guardrails of every stage. One rejects some calls, one withholds what some gave; none trips.
fn guardrails(rng: &mut Rng) -> Vec<GuardrailSpec> {
    let all = json!([
        {"name": "judged", "on": "input", "agent": "judge"},
        {"name": "first", "on": "input", "pattern": "nowhere", "blocking": true},
        {"name": "no-third", "on": "tool_input", "tool": "p*", "pattern": "-2$", "action": "reject"},
        {"name": "withheld", "on": "tool_output", "tool": "p*", "pattern": "acted", "action": "reject"},
        {"name": "seen", "on": "tool_output", "pattern": "nowhere"},
        {"name": "last", "on": "output", "agent": "judge"},
    ]);
    let mut all: Vec<GuardrailSpec> = serde_json::from_value(all).unwrap();
    all.retain(|_| rng.chance(60));
    all
}

fn with_model(mut member: Member) -> Member {
    member.agent.model = format!("script:{}", member.agent.name);
    member
}

fn one_call(rng: &mut Rng, below: Option<&str>, turn: u64, n: u64) -> Item {
    if below.is_some() && rng.chance(30) {
        return Item::FunctionCall {
            call_id: format!("give-{turn}-{n}"),
            name: "give".into(),
            arguments: json!({"input": "go"}).to_string(),
            extra: Map::new(),
        };
    }
    let (tool, ..) = TOOLS[usize::try_from(rng.below(6)).unwrap()];
    call(tool, &format!("{tool}-{turn}-{n}"))
}

fn policy(rng: &mut Rng) -> Value {
    let mut rules = Vec::new();
    for tool in ["pay", "book", "give"] {
        match rng.below(10) {
            0..3 => rules.push(json!({"tool": tool, "action": "ask"})),
            3 => rules.push(json!({"tool": tool, "action": "deny"})),
            _ => {}
        }
    }
    json!({"rules": rules, "expires_s": 7 * 24 * 60 * 60})
}

/// Tells the seed of a case that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "this is seed {0}; MOORING_SEED={0} cargo nextest run -p mooring-harness matrix runs it alone",
                self.0
            );
        }
    }
}

/// Drives one run through its faults to its end, and checks what must hold. Gives the crashes, and the appends of
/// the first process.
async fn survive(plan: &Plan, faults: &[Fault], rng: &mut Rng) -> (usize, u64) {
    let store = Arc::new(Store::new());
    let world = Arc::new(World::default());
    let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
    let run = RunId("r".into());
    let mut crashes = 0;
    let mut first = 0;
    let mut faults = faults.iter().copied();
    for process in 0.. {
        assert!(process < 200, "the run comes to no end");
        let fault = faults.next();
        store.begin(fault);
        *world.dies.lock().unwrap() = match fault {
            Some(Fault::InCall { nth, after }) => Some((nth, after)),
            _ => None,
        };
        let host = plan.host(&store, &world, &clock);
        let drive = async {
            if store.inner().runs(Some(&run)).await.is_err() {
                return start(&host, plan.new.clone()).await;
            }
            resume(&host, &run).await
        };
        let result = tokio::select! {
            result = drive => result,
            () = world.stuck.notified() => Err(dead().into()),
        };
        if process == 0 {
            first = *store.appends.lock().unwrap();
        }
        match result {
            // Nothing is left of how it began. Nothing was done that may not be repeated, so it can be started anew.
            Err(HarnessError::Empty { .. }) => {
                let done = world.done.lock().unwrap();
                assert!(done.keys().all(|key| key.contains(":look-")), "{done:?}");
                return (crashes, first);
            }
            Err(HarnessError::Completed { .. }) => break,
            Err(HarnessError::Journal(_)) => {
                crashes += 1;
                if let Some(Fault::Power { lost, .. }) = fault {
                    store.cut(lost).await;
                }
            }
            Err(error) => panic!("{error}"),
            Ok(finished) if finished.status == Status::Waiting => {
                // Answers come from processes that live.
                store.begin(None);
                answer_some(store.as_ref(), rng, clock.load(Ordering::Relaxed)).await;
            }
            Ok(_) => break,
        }
        // The next process may be days away, or have a clock that is wrong.
        if rng.chance(20) {
            let days = i64::try_from(rng.below(20)).unwrap() - 6;
            clock.fetch_add(days * 24 * 60 * 60 * 1000, Ordering::Relaxed);
        }
    }
    let journal = store.inner();
    check(&journal, &world).await;
    if plan.new.terms.tenant.is_some() {
        // Where the last driver died before it settled the account, anybody may.
        settle(&journal, "acme", &run, "ann").await.unwrap();
        let spent = fold(&journal, &run, |_| {}).await.unwrap().spent;
        for holding in journal.holdings().await.unwrap() {
            let used = holding.amounts.get("max_tool_calls").copied();
            assert!(!holding.open && used.is_none_or(|used| used == spent.tool_calls), "{holding:?}");
        }
    }
    (crashes, first)
}

/// People answer some of what waits, at least one, in any order.
async fn answer_some(journal: &Store, rng: &mut Rng, now: i64) {
    let mut open: Vec<(RunId, String, bool)> = Vec::new();
    for row in journal.runs(None).await.unwrap() {
        for approval in row.summary["approvals"].as_array().unwrap() {
            let id = approval["id"].as_str().unwrap().to_owned();
            open.push((row.id.clone(), id, !approval["schema"].is_null()));
        }
    }
    assert!(!open.is_empty(), "a run that waits has a question");
    let mut left = 1 + rng.below(open.len() as u64);
    while left > 0 {
        let (run, id, input) = open.remove(usize::try_from(rng.below(open.len() as u64)).unwrap());
        let given = Answer {
            allow: rng.chance(75),
            always: rng.chance(20),
            by: "ann".into(),
            reason: None,
            input: if input { json!({"amount": 1}) } else { Value::Null },
        };
        answer(journal, &run, &id, given, now).await.unwrap();
        left -= 1;
    }
}

/// What must hold of every run, whatever happened to it.
async fn check(journal: &MemoryJournal, world: &World) {
    let mut intended = BTreeSet::new();
    for row in journal.runs(None).await.unwrap() {
        let run = &row.id;
        let records = journal.read(run, 0, 100_000).await.unwrap();
        if records.is_empty() {
            continue;
        }
        let state = State::fold(&records).unwrap().unwrap();
        assert_ne!(state.status, Status::Running, "{run} is over");
        let mut requested: BTreeMap<(u64, String), u32> = BTreeMap::new();
        let mut answered = BTreeSet::new();
        let mut asked = BTreeSet::new();
        let mut checked = BTreeSet::new();
        let mut judged = BTreeSet::new();
        for record in &records {
            match &record.event {
                Event::GuardrailChecked(check) if check.verdict != "cancelled" => {
                    let what = (check.turn, check.name.clone(), check.call_id.clone());
                    assert!(
                        check.verdict == "trip" || checked.insert(what),
                        "{run}: checked once: {check:?}"
                    );
                }
                Event::OutputChecked(check) => assert!(judged.insert(check.turn), "{run}: {check:?}"),
                Event::ToolRequested(intent) => {
                    // A second one where a person was asked in between, and no third.
                    let intents = requested.entry((intent.turn, intent.call_id.clone())).or_insert(0);
                    *intents += 1;
                    assert!(*intents == 1 || (intent.tool == "form" && *intents == 2), "{run}: {intent:?}");
                    intended.insert(intent.key.clone());
                }
                Event::ApprovalRequested(question) => {
                    let question = (question.turn, question.call_id.clone(), question.input);
                    assert!(asked.insert(question), "{run}: asked once");
                }
                Event::ToolCompleted(completed) => {
                    let call = (completed.turn, completed.call_id.clone());
                    assert!(answered.insert(call.clone()), "{run}: answered once: {completed:?}");
                    let done = world.done(&format!("{run}:{}:{}", completed.turn, completed.call_id));
                    match (completed.tool.as_str(), completed.status.as_str()) {
                        // May run again; must have run.
                        ("look" | "put", "completed") => assert!(done >= 1, "{run}: {completed:?}"),
                        ("pay" | "patch" | "book" | "form", "completed") => {
                            assert_eq!(done, 1, "{run}: {completed:?}");
                        }
                        // Done once or never, and the model was told.
                        ("pay" | "book" | "form", "outcome_unknown") => {
                            assert!(done <= 1, "{run}: {completed:?}");
                        }
                        (_, "denied") | ("form", "failed") => assert_eq!(done, 0, "{run}: {completed:?}"),
                        ("give", "completed" | "failed") | ("transfer_to_closer", "completed") => {}
                        other => panic!("{run}: {other:?}: {completed:?}"),
                    }
                }
                _ => {}
            }
        }
        // The conversation is whole, but for the calls that a budget did not allow.
        let mut open = BTreeSet::new();
        for item in &state.items {
            match item {
                Item::FunctionCall { call_id, .. } => assert!(open.insert(call_id.clone()), "{run}"),
                Item::FunctionCallOutput { call_id, .. } => assert!(open.remove(call_id), "{run}: {call_id}"),
                _ => {}
            }
        }
        let exhausted = state.finished.and_then(|end| end.error).is_some_and(|error| {
            // A judge has no budget either then.
            matches!(error.code.as_str(), "budget_exhausted" | "guardrail_tripped")
        });
        assert!(open.is_empty() || exhausted, "{run}: {open:?} have no answer");
    }
    // Write-ahead: what may not be repeated has an intent, whatever the power took.
    for key in world.done.lock().unwrap().keys() {
        assert!(intended.contains(key) || key.contains(":look-"), "{key} happened and no intent says so");
    }
}

async fn case(seed: u64) -> usize {
    let _told = Seed(seed);
    let mut rng = Rng(seed);
    let plan = Plan::generate(&mut rng);
    let (_, appends) = survive(&plan, &[], &mut rng).await;
    let mut crashes = 0;
    for nth in 1..=appends {
        for first in [
            Fault::Dies { nth, after: false },
            Fault::Dies { nth, after: true },
            Fault::Fails { nth },
            Fault::Power { nth, lost: rng.below(6) },
            Fault::InCall { nth: nth - 1, after: rng.chance(50) },
        ] {
            let mut faults = vec![first];
            for _ in 0..rng.below(4) {
                let nth = 1 + rng.below(12);
                faults.push(match rng.below(4) {
                    0 => Fault::Dies { nth, after: rng.chance(50) },
                    1 => Fault::Fails { nth },
                    2 => Fault::Power { nth, lost: rng.below(6) },
                    _ => Fault::InCall { nth: rng.below(5), after: rng.chance(50) },
                });
            }
            crashes += survive(&plan, &faults, &mut rng).await.0;
        }
    }
    crashes
}

/// Cases until there were enough crashes. The parts have seeds of their own, so that they can run side by side.
fn part(part: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Ok(seed) = std::env::var("MOORING_SEED") {
        println!("{} crashes", runtime.block_on(case(seed.parse().unwrap())));
        return;
    }
    let (mut cases, mut crashes) = (0, 0);
    for seed in part * 1_000_000.. {
        cases += 1;
        crashes += runtime.block_on(case(seed));
        if crashes >= CRASHES {
            break;
        }
    }
    println!("{cases} teams of agents, {crashes} crashes, nothing lost, nothing twice");
}

#[test]
fn part_one() {
    part(1);
}

#[test]
fn part_two() {
    part(2);
}

#[test]
fn part_three() {
    part(3);
}

#[test]
fn part_four() {
    part(4);
}

#[test]
fn part_five() {
    part(5);
}

#[test]
fn part_six() {
    part(6);
}
