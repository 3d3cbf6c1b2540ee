//! A run with a sub-agent, in a journal in memory, and its file.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::sync::Arc;

use mooring_harness::{
    AgentHost, AgentSpec, Hooks, Host, Limits, Member, NewRun, Silent, SubAgent, SubSandbox, Terms, start,
};
use mooring_journal::{Journal, MemoryJournal, RunId};
use mooring_manifest::Manifest;
use mooring_model::{Capture, Item, ModelClient, ModelResponse, ScriptModel, StopReason, Usage};
use mooring_transfer::{Export, Exported, TransferError, export};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn script(turns: Vec<Item>) -> Arc<dyn ModelClient> {
    let response = |item| ModelResponse {
        id: None,
        model: "test".into(),
        items: vec![item],
        usage: Usage::default(),
        stop_reason: StopReason::Stop,
        capture: Capture::default(),
    };
    Arc::new(ScriptModel::from_responses("script:test", turns.into_iter().map(response).collect()))
}

fn member(name: &str, mates: &[&str]) -> Member {
    let mate = |name: &&str| SubAgent {
        agent: (*name).to_owned(),
        tool: None,
        description: String::new(),
        sandbox: SubSandbox::Own,
    };
    Member {
        agent: AgentSpec {
            name: name.into(),
            model: format!("script:{name}"),
            agents: mates.iter().map(mate).collect(),
            ..AgentSpec::default()
        },
        limits: Limits::default(),
        instructions: String::new(),
        manifest: Manifest::default(),
        manifest_base: "/".into(),
        sandbox: Value::Null,
    }
}

pub(crate) fn agents() -> BTreeMap<String, AgentHost> {
    let give = Item::FunctionCall {
        call_id: "w".into(),
        name: "worker".into(),
        arguments: json!({"input": "work"}).to_string(),
        extra: serde_json::Map::new(),
    };
    let host = |model| AgentHost {
        model,
        summariser: None,
        tools: Vec::new(),
        guardrails: Vec::new(),
        filters: Vec::new(),
        sandbox: None,
    };
    BTreeMap::from([
        ("boss".into(), host(script(vec![give, Item::assistant("all done")]))),
        ("worker".into(), host(script(vec![Item::assistant("worked")]))),
    ])
}

pub(crate) const RUN: &str = "r";

/// A journal with the run, completed.
pub(crate) async fn journal() -> Arc<MemoryJournal> {
    let journal = Arc::new(MemoryJournal::new());
    let clock = std::sync::atomic::AtomicI64::new(1_700_000_000_000);
    let host = Host {
        journal: Arc::clone(&journal) as Arc<dyn Journal>,
        agents: Arc::new(agents()),
        snapshots: None,
        observer: Arc::new(Silent),
        hooks: Hooks::default(),
        now_ms: Arc::new(move || clock.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
        cancel: CancellationToken::new(),
        pid: 1,
        runtime: "test".into(),
    };
    let new = NewRun {
        id: RunId(RUN.into()),
        session_id: "session".into(),
        entry: member("boss", &["worker"]),
        team: BTreeMap::from([("worker".into(), member("worker", &[]))]),
        input: vec![Item::user("go")],
        read: Vec::new(),
        history: None,
        sandbox_state: None,
        workspace: None,
        parent: None,
        depth: 0,
        terms: Terms::default(),
        labels: BTreeMap::new(),
    };
    start(&host, new).await.unwrap();
    journal
}

/// Exports a run to bytes.
pub(crate) async fn bring_out(
    journal: &dyn Journal,
    run: &str,
    spool: &Path,
) -> Result<(Exported, Vec<u8>), TransferError> {
    let how = Export {
        runtime: "test".into(),
        now_ms: 1_800_000_000_000,
        owner: "test".into(),
        workspaces: true,
        spool: spool.into(),
    };
    let mut file = tempfile::tempfile().unwrap();
    let exported = export(journal, &agents(), &RunId(run.into()), &how, file.try_clone().unwrap()).await?;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    Ok((exported, bytes))
}
