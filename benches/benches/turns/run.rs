//! One run of ours: a scripted model, a tool that does nothing, and marks at each turn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::stream;
use mooring_benches::{Error, machine};
use mooring_capability::{BoxFuture, Effect, Tool, ToolContext, ToolInput, ToolResult};
use mooring_harness::{AgentHost, AgentSpec, Host, Limits, Member, NewRun, Observer, Status, Terms, start};
use mooring_journal::{Event, Journal, Record, RunId};
use mooring_manifest::Manifest;
use mooring_model::{
    Capture, Item, ModelClient, ModelRequest, ModelResponse, ModelStream, ScriptModel, StopReason, ToolKind,
    ToolSpec, Usage,
};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// Drives one run to its end.
pub(crate) async fn drive(
    journal: Arc<dyn Journal>,
    model: Arc<dyn ModelClient>,
    effect: Effect,
    marks: Arc<Marks>,
    id: String,
) -> Result<(), Error> {
    let host = Host {
        journal,
        agents: Arc::new(BTreeMap::from([(
            "bench".into(),
            AgentHost {
                model,
                summariser: None,
                tools: vec![Arc::new(Note { effect })],
                guardrails: Vec::new(),
                filters: Vec::new(),
                sandbox: None,
            },
        )])),
        snapshots: None,
        observer: marks,
        hooks: mooring_harness::Hooks::default(),
        now_ms: Arc::new(now_ms),
        cancel: CancellationToken::new(),
        pid: std::process::id(),
        runtime: "bench".into(),
    };
    let new = NewRun {
        history: None,
        sandbox_state: None,
        session_id: format!("{id}-session"),
        id: RunId(id),
        entry: Member {
            agent: AgentSpec { name: "bench".into(), model: "script:bench".into(), ..AgentSpec::default() },
            limits: Limits { max_turns: 1_000_000, ..Limits::default() },
            instructions: "Be brief.".into(),
            manifest: Manifest::default(),
            manifest_base: "/".into(),
            sandbox: Value::Null,
        },
        team: BTreeMap::new(),
        input: vec![Item::user("take notes")],
        read: Vec::new(),
        workspace: None,
        parent: None,
        depth: 0,
        terms: Terms::default(),
        labels: BTreeMap::new(),
    };
    let finished = start(&host, new).await?;
    if finished.status != Status::Completed {
        return Err(format!("the run did not complete: {:?}", finished.error).into());
    }
    Ok(())
}

/// A model that calls the tool in each of `turns` turns, then ends.
pub(crate) fn script(turns: usize) -> Arc<dyn ModelClient> {
    let call = |turn| Item::FunctionCall {
        call_id: format!("call-{turn}"),
        name: "note".into(),
        arguments: r#"{"text": "hello"}"#.into(),
        extra: Map::new(),
    };
    let items = (0..turns).map(call).chain([Item::assistant("done")]);
    let response = |item| ModelResponse {
        id: None,
        model: "script:bench".into(),
        items: vec![item],
        usage: Usage::default(),
        stop_reason: StopReason::Stop,
        capture: Capture::default(),
    };
    Arc::new(ScriptModel::from_responses("script:bench", items.map(response).collect()))
}

/// A model that never answers.
#[derive(Debug, Default)]
pub(crate) struct Silence(AtomicUsize);

impl Silence {
    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl ModelClient for Silence {
    fn name(&self) -> &'static str {
        "silence"
    }

    fn stream<'a>(&'a self, _request: ModelRequest<'a>) -> ModelStream<'a> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(stream::pending())
    }
}

/// A tool that does nothing.
#[derive(Debug)]
struct Note {
    effect: Effect,
}

impl Tool for Note {
    fn spec(&self) -> ToolSpec {
        let parameters = json!({
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": false,
        });
        ToolSpec {
            name: "note".into(),
            description: "Takes a note.".into(),
            kind: ToolKind::Function { parameters, strict: true },
        }
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn call<'a>(
        &'a self,
        _context: &'a ToolContext,
        _input: &'a ToolInput,
        _prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async { ToolResult::text("noted") })
    }
}

/// The wall and the CPU clock at each call of the model.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<Vec<(Instant, Duration)>>);

impl Marks {
    /// Nanoseconds from each call of the model to the next: of the wall clock and of the CPU's.
    pub(crate) fn gaps(&self) -> (Vec<f64>, Vec<f64>) {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ns = |gap: Duration| gap.as_nanos() as f64;
        marks
            .windows(2)
            .map(|pair| (ns(pair[1].0 - pair[0].0), ns(pair[1].1.saturating_sub(pair[0].1))))
            .unzip()
    }
}

impl Observer for Marks {
    fn recorded(&self, record: &Record) {
        if let Event::ModelRequested(_) = record.event {
            let mark = (Instant::now(), machine::cpu_time());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
