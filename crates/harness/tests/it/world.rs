//! A world that tools change, and that remembers every change whatever becomes of the driver.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use mooring_capability::{BoxFuture, Effect, Reconciled, Tool, ToolContext, ToolInput, ToolResult};
use mooring_harness::{AgentHost, AgentSpec, Hooks, Host, Limits, Member, NewRun, Observer, Terms};
use mooring_journal::{Journal, Record, RunId};
use mooring_manifest::Manifest;
use mooring_model::{
    Capture, Item, ModelClient, ModelResponse, ScriptModel, StopReason, ToolKind, ToolSpec, Usage,
};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What happened outside of the harness: how often each call began, and how often it took effect.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) began: Mutex<BTreeMap<String, u32>>,
    pub(crate) done: Mutex<BTreeMap<String, u32>>,
    /// The call that waits for ever once it has taken effect, as if the process died before it could say so.
    pub(crate) stuck_after: Mutex<Option<String>>,
    /// The call that waits for ever before it takes effect.
    pub(crate) stuck_before: Mutex<Option<String>>,
    pub(crate) stuck: Notify,
}

impl World {
    pub(crate) fn done(&self, key: &str) -> u32 {
        self.done.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    async fn hold(&self, at: &Mutex<Option<String>>, key: &str) {
        if at.lock().unwrap().take_if(|stuck| stuck == key).is_some() {
            self.stuck.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// A tool of some effect that changes the world once a call.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) name: &'static str,
    pub(crate) effect: Effect,
    /// Whether it can find out afterwards what became of a call.
    pub(crate) reconciles: bool,
    pub(crate) world: Arc<World>,
}

fn key_of(input: &ToolInput) -> String {
    match input {
        ToolInput::Json(arguments) => arguments["key"].as_str().unwrap_or_default().to_owned(),
        ToolInput::Text(text) => text.clone(),
    }
}

impl Tool for Change {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.into(),
            description: "changes the world".into(),
            kind: ToolKind::Function { parameters: json!({"type": "object"}), strict: false },
        }
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn call<'a>(
        &'a self,
        _context: &'a ToolContext,
        input: &'a ToolInput,
        _prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async move {
            let key = key_of(input);
            *self.world.began.lock().unwrap().entry(key.clone()).or_default() += 1;
            self.world.hold(&self.world.stuck_before, &key).await;
            *self.world.done.lock().unwrap().entry(key.clone()).or_default() += 1;
            self.world.hold(&self.world.stuck_after, &key).await;
            ToolResult::text(format!("changed {key}"))
        })
    }

    fn reconcile<'a>(
        &'a self,
        _context: &'a ToolContext,
        input: &'a ToolInput,
        _prepared: &'a Value,
    ) -> BoxFuture<'a, Reconciled> {
        Box::pin(async move {
            let key = key_of(input);
            match (self.reconciles, self.world.done(&key)) {
                (false, _) => Reconciled::Unknown,
                (true, 0) => Reconciled::NotStarted,
                (true, _) => Reconciled::Done(ToolResult::text(format!("changed {key}"))),
            }
        })
    }
}

/// One tool of each kind.
pub(crate) fn tools(world: &Arc<World>) -> Vec<Arc<dyn Tool>> {
    let tool = |name, effect, reconciles| -> Arc<dyn Tool> {
        Arc::new(Change { name, effect, reconciles, world: Arc::clone(world) })
    };
    vec![
        tool("look", Effect::Pure, false),
        tool("put", Effect::Idempotent, false),
        tool("pay", Effect::AtMostOnce, false),
        tool("patch", Effect::AtMostOnce, true),
    ]
}

pub(crate) fn call(tool: &str, call_id: &str) -> Item {
    Item::FunctionCall {
        call_id: call_id.into(),
        name: tool.into(),
        arguments: json!({"key": call_id}).to_string(),
        extra: Map::new(),
    }
}

pub(crate) fn response(items: Vec<Item>) -> ModelResponse {
    ModelResponse {
        id: None,
        model: "test".into(),
        items,
        usage: Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() },
        stop_reason: StopReason::Stop,
        capture: Capture::default(),
    }
}

pub(crate) fn script(turns: Vec<Vec<Item>>) -> Arc<dyn ModelClient> {
    Arc::new(ScriptModel::from_responses("script:test", turns.into_iter().map(response).collect()))
}

/// An agent with a model and tools, and nothing else.
pub(crate) fn seat(model: Arc<dyn ModelClient>, tools: Vec<Arc<dyn Tool>>) -> AgentHost {
    AgentHost { model, summariser: None, tools, guardrails: Vec::new(), filters: Vec::new(), sandbox: None }
}

/// Keeps what it sees.
#[derive(Debug, Default)]
pub(crate) struct Seen(pub(crate) Mutex<Vec<Record>>);

impl Observer for Seen {
    fn recorded(&self, record: &Record) {
        self.0.lock().unwrap().push(record.clone());
    }
}

pub(crate) fn host(
    journal: Arc<dyn Journal>,
    model: Arc<dyn ModelClient>,
    tools: Vec<Arc<dyn Tool>>,
) -> (Host, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let clock = AtomicI64::new(1_700_000_000_000);
    let host = Host {
        journal,
        agents: Arc::new(BTreeMap::from([("tester".into(), seat(model, tools))])),
        snapshots: None,
        observer: Arc::clone(&seen) as Arc<dyn Observer>,
        hooks: Hooks::default(),
        now_ms: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
        cancel: CancellationToken::new(),
        pid: 7,
        runtime: "test".into(),
    };
    (host, seen)
}

pub(crate) fn member(name: &str) -> Member {
    Member {
        agent: AgentSpec { name: name.into(), model: "script:test".into(), ..AgentSpec::default() },
        limits: Limits { max_turns: 20, ..Limits::default() },
        instructions: "Be careful.".into(),
        manifest: Manifest::default(),
        manifest_base: "/".into(),
        sandbox: Value::Null,
    }
}

pub(crate) fn new_run(id: &str) -> NewRun {
    NewRun {
        id: RunId(id.into()),
        session_id: format!("{id}-session"),
        entry: member("tester"),
        team: BTreeMap::new(),
        input: vec![Item::user("change the world")],
        read: Vec::new(),
        history: None,
        sandbox_state: None,
        workspace: None,
        parent: None,
        depth: 0,
        terms: Terms::default(),
        labels: BTreeMap::new(),
    }
}

/// All events of a run.
pub(crate) async fn events(journal: &dyn Journal, id: &str) -> Vec<Record> {
    journal.read(&RunId(id.into()), 0, 10_000).await.unwrap()
}
