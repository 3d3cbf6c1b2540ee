//! Recorded histories: every journal ever written loads, and says the same when written again. The files under
//! `tests/histories/` are never changed; new ones are added when the schema grows.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use mooring_journal::event::{
    ApprovalAnswered, ApprovalRequested, BudgetGranted, CancelRequested, Compacted, CompactionFailed,
    CompactionRequested, ContextAdded, DeadlinePassed, DriverAttached, Egress, Exposed, GuardrailChecked,
    HandedOff, History, Member, ModelCompleted, ModelFailed, ModelRequested, MountFailed, OutputChecked,
    Parent, Reward, RunError, RunFinished, RunForked, RunImported, RunStarted, SandboxLost, SandboxReady,
    SandboxRequested, SnapshotFailed, SnapshotTaken, Tenant, ToolCompleted, ToolRequested, ToolSuspended,
};
use mooring_journal::{Append, Claim, Durability, Event, Journal, Record, RunId, SqliteJournal, Stamped};
use serde_json::json;

use crate::support::{child_dir, read_all, run_id};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories")
}

fn lines(name: &str) -> Vec<String> {
    fs::read_to_string(folder().join(name)).unwrap().lines().map(str::to_owned).collect()
}

fn records(name: &str) -> Vec<Record> {
    let parse =
        |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
    lines(name).iter().map(parse).collect()
}

fn names(extension: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(extension))
        .collect();
    names.sort();
    names
}

#[test]
fn every_history_loads_and_is_written_back_the_same() {
    assert_eq!(
        names(".jsonl"),
        [
            "v1-agents.jsonl",
            "v1-approvals.jsonl",
            "v1-budgets.jsonl",
            "v1-compaction.jsonl",
            "v1-conversations.jsonl",
            "v1-egress.jsonl",
            "v1-every-event.jsonl",
            "v1-guardrails.jsonl",
            "v1-mounts.jsonl",
            "v1-moved.jsonl",
            "v1-ports.jsonl",
            "v1-snapshots.jsonl",
            "v1-unknown-events.jsonl",
        ]
    );
    for name in names(".jsonl") {
        let written: Vec<_> =
            records(&name).iter().map(|record| serde_json::to_string(record).unwrap()).collect();
        assert_eq!(written, lines(&name), "{name}");
    }
}

#[test]
fn the_histories_have_every_event() {
    let kinds = |records: &[Record]| -> BTreeSet<String> {
        let kind =
            |record: &Record| serde_json::to_value(record).unwrap()["type"].as_str().unwrap().to_owned();
        records.iter().map(kind).collect()
    };
    let known = |name: &String| name != "v1-unknown-events.jsonl";
    let history: Vec<Record> =
        names(".jsonl").iter().filter(|name| known(name)).flat_map(|name| records(name)).collect();
    assert_eq!(kinds(&history), kinds(&every_event()));
    assert!(!history.iter().any(|record| matches!(record.event, Event::Unknown(_))));
    assert!(
        records("v1-unknown-events.jsonl").iter().all(|record| matches!(record.event, Event::Unknown(_)))
    );
}

#[test]
fn the_form_of_every_event() {
    let lines: Vec<_> = every_event().iter().map(|record| serde_json::to_string(record).unwrap()).collect();
    insta::assert_snapshot!(lines.join("\n"));
    let back: Vec<Record> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(back, every_event());
}

/// An older writer left fields out that came later; a newer one knows fields that this one does not.
#[test]
fn fields_may_be_missing_or_new() {
    let head = r#""run":"r","seq":1,"epoch":1,"at_ms":0,"v":1"#;
    for record in every_event() {
        let kind = serde_json::to_value(&record).unwrap()["type"].as_str().unwrap().to_owned();
        let bare: Record = serde_json::from_str(&format!(r#"{{{head},"type":"{kind}"}}"#)).unwrap();
        assert!(!matches!(bare.event, Event::Unknown(_)), "{kind}");
        let more: Record =
            serde_json::from_str(&format!(r#"{{{head},"type":"{kind}","later":[1]}}"#)).unwrap();
        assert_eq!(more.event, bare.event, "{kind}");
    }
}

/// The database as version 1 wrote it opens, reads, and can be appended to.
#[tokio::test]
async fn every_database_opens() {
    assert_eq!(names(".db"), ["v1.db", "v2.db"]);
    for name in names(".db") {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        fs::copy(folder().join(&name), &path).unwrap();
        let journal = SqliteJournal::open(&path).unwrap();
        let history = records("v1-every-event.jsonl");
        let run = history[0].run.clone();
        assert_eq!(read_all(&journal, &run).await, history, "{name}");
        let row = journal.runs(Some(&run)).await.unwrap().remove(0);
        assert_eq!((row.created_ms, row.summary), (1_754_900_000_000, json!({"status": "failed"})), "{name}");
        assert_eq!(journal.signals(&run).await.unwrap(), ["cancel"], "{name}");
        let claim = journal.claim(&run, "test").await.unwrap();
        assert_eq!((claim.epoch, claim.last_seq), (3, history.len() as u64), "{name}");
        append(&journal, &claim, &history[0]).await;
        assert_eq!(read_all(&journal, &run).await.len(), history.len() + 1, "{name}");
    }
}

/// Made `v1.db`, from version 1 and the first history. To be run once for each version: `DIR` is where the file goes.
#[tokio::test]
#[ignore = "the database is kept, not made again"]
async fn make_database() {
    let journal = SqliteJournal::open(&child_dir().join("journal.db")).unwrap();
    let history = records("v1-every-event.jsonl");
    let run = history[0].run.clone();
    let mut claim = journal.create(&run, 1_754_900_000_000, "history").await.unwrap();
    for record in &history {
        if record.epoch > claim.epoch {
            drop(claim);
            claim = journal.claim(&run, "history").await.unwrap();
        }
        claim.last_seq = append(&journal, &claim, record).await;
    }
    journal.signal(&run, "cancel").await.unwrap();
    drop(journal.create(&run_id("another"), 1_754_900_000_001, "history").await.unwrap());
}

async fn append(journal: &SqliteJournal, claim: &Claim, record: &Record) -> u64 {
    let append = Append {
        run: record.run.clone(),
        epoch: claim.epoch,
        after: claim.last_seq,
        events: Arc::new(vec![Stamped { at_ms: record.at_ms, event: record.event.clone() }]),
        summary: Some(json!({"status": "failed"}).to_string()),
        durability: Durability::Power,
    };
    journal.append(append).await.unwrap()
}

fn member() -> Member {
    Member {
        agent: json!({"name": "mate"}),
        instructions: "instructions".to_owned(),
        tools: vec![json!({"name": "tool"})],
        limits: json!({"max_turns": 1}),
        manifest: json!({"version": 1}),
        manifest_base: Some("base".to_owned()),
        sandbox: json!({"isolation": "namespaces"}),
    }
}

/// One of each, all fields set. The compiler asks for a field that is new.
fn every_event() -> Vec<Record> {
    let events = [
        Event::RunStarted(Box::new(RunStarted {
            runtime: "runtime".to_owned(),
            agent: json!({"name": "agent"}),
            input: vec![json!({"type": "message"})],
            history: Some(History {
                run: run_id("before"),
                items: 2,
                responses: 1,
                answers: [("model".to_owned(), 1)].into(),
                summary: Some(0),
                read: vec!["sandbox".to_owned()],
            }),
            manifest: json!({"version": 1}),
            manifest_digest: "digest".to_owned(),
            manifest_base: Some("base".to_owned()),
            sandbox: json!({"backend": "local"}),
            limits: json!({"max_turns": 1}),
            prices: json!({"model": {"input": "1", "output": "2"}}),
            tenant: Some(Tenant {
                name: "tenant".to_owned(),
                account: "tenant 2026-08".to_owned(),
                limits: json!({"max_tokens": 1}),
            }),
            instructions: "instructions".to_owned(),
            tools: vec![json!({"name": "tool"})],
            team: [("mate".to_owned(), member())].into(),
            read: vec!["agent".to_owned()],
            parent: Some(Parent {
                run: RunId("parent".to_owned()),
                call_id: Some("call".to_owned()),
                seq: Some(1),
            }),
            depth: 1,
            labels: [("task".to_owned(), "label".to_owned())].into(),
        })),
        Event::DriverAttached(DriverAttached { pid: 1, runtime: "runtime".to_owned(), resumed: true }),
        Event::BudgetGranted(BudgetGranted {
            account: "tenant 2026-08".to_owned(),
            granted: json!({"max_tokens": 1}),
        }),
        Event::SandboxRequested(SandboxRequested {
            session_id: "session".to_owned(),
            backend: "local".to_owned(),
            staged: true,
        }),
        Event::SandboxReady(SandboxReady {
            session_id: "session".to_owned(),
            state: json!({"pid": 1}),
            isolation: json!({"level": "namespaces"}),
            staged: Some(json!({"files": 1})),
            ports: vec![Exposed { port: 8080, address: "127.0.0.1:8080".to_owned() }],
            duration_ms: 1,
        }),
        Event::SandboxLost(SandboxLost { session_id: "session".to_owned(), reason: "reason".to_owned() }),
        Event::SnapshotTaken(SnapshotTaken {
            snapshot: "snapshot".to_owned(),
            digest: "digest".to_owned(),
            session_id: "session".to_owned(),
            turn: 1,
            files: 1,
            bytes: 1,
            added_bytes: 1,
            duration_ms: 1,
        }),
        Event::SnapshotFailed(SnapshotFailed {
            session_id: "session".to_owned(),
            turn: 1,
            reason: "reason".to_owned(),
        }),
        Event::ContextAdded(ContextAdded {
            items: vec![json!({"type": "message"})],
            sources: vec!["AGENTS.md".to_owned()],
            problems: vec!["problem".to_owned()],
            provenance: "sandbox".to_owned(),
        }),
        Event::ModelRequested(ModelRequested {
            turn: 1,
            ordinal: 1,
            model: "model".to_owned(),
            settings: json!({"temperature": 0.5}),
            items: 1,
            compactions: 1,
        }),
        Event::ModelCompleted(Box::new(ModelCompleted {
            turn: 1,
            ordinal: 1,
            response_id: Some("response".to_owned()),
            model: "model".to_owned(),
            items: vec![json!({"type": "message"})],
            usage: json!({"input_tokens": 1}),
            stop_reason: json!("end"),
            capture: json!({"token_ids": [1], "logprobs": [-0.1], "policy_version": "1"}),
            cost: Some("0.00018".to_owned()),
            attempts: 1,
            retried_tokens: 1,
            first_output_ms: Some(1),
            duration_ms: 1,
        })),
        Event::ModelFailed(ModelFailed {
            turn: 1,
            kind: "kind".to_owned(),
            message: "message".to_owned(),
            retryable: true,
            retried_tokens: 1,
        }),
        Event::CompactionRequested(CompactionRequested {
            turn: 1,
            attempt: 1,
            from: 1,
            to: 2,
            digest: "digest".to_owned(),
            ordinal: 1,
            model: "model".to_owned(),
            settings: json!({"max_output_tokens": 1}),
        }),
        Event::Compacted(Box::new(Compacted {
            turn: 1,
            from: 1,
            to: 2,
            digest: "digest".to_owned(),
            items: vec![json!({"type": "message"})],
            ordinal: 1,
            model: "model".to_owned(),
            usage: json!({"input_tokens": 1}),
            cost: Some("0.00018".to_owned()),
            retried_tokens: 1,
            duration_ms: 1,
        })),
        Event::CompactionFailed(CompactionFailed {
            turn: 1,
            reason: "reason".to_owned(),
            usage: json!({"input_tokens": 1}),
            cost: Some("0.00018".to_owned()),
            retried_tokens: 1,
        }),
        Event::ApprovalRequested(ApprovalRequested {
            approval_id: "0123456789ab".to_owned(),
            turn: 1,
            call_id: "call".to_owned(),
            tool: "tool".to_owned(),
            digest: "digest".to_owned(),
            policy_version: "version".to_owned(),
            rule: Some(0),
            reason: "reason".to_owned(),
            expires_ms: 2000,
            input: true,
            schema: json!({"type": "object"}),
        }),
        Event::ApprovalAnswered(ApprovalAnswered {
            approval_id: "0123456789ab".to_owned(),
            decision: "allow".to_owned(),
            always: true,
            by: "ann".to_owned(),
            reason: Some("reason".to_owned()),
            input: json!({"name": "value"}),
        }),
        Event::ToolRequested(ToolRequested {
            turn: 1,
            call_id: "call".to_owned(),
            tool: "tool".to_owned(),
            arguments: "{}".to_owned(),
            effect: "pure".to_owned(),
            key: "key".to_owned(),
            prepared: json!({"exists": false}),
            child: Some(RunId("child".to_owned())),
            reserved: json!({"max_tokens": 1}),
        }),
        Event::ToolCompleted(Box::new(ToolCompleted {
            turn: 1,
            call_id: "call".to_owned(),
            tool: "tool".to_owned(),
            status: "completed".to_owned(),
            output: json!({"type": "function_call_output"}),
            details: json!({"exit": 0}),
            provenance: "sandbox".to_owned(),
            duration_ms: 1,
            handoff: Some("mate".to_owned()),
            spent: json!({"turns": 1}),
        })),
        Event::ToolSuspended(ToolSuspended {
            turn: 1,
            call_id: "call".to_owned(),
            tool: "tool".to_owned(),
            reason: "reason".to_owned(),
            child: Some(RunId("child".to_owned())),
            state: json!({"round": 1}),
        }),
        Event::HandedOff(Box::new(HandedOff {
            turn: 1,
            from: "agent".to_owned(),
            to: "mate".to_owned(),
            items: Some(vec![json!({"type": "message"})]),
            filter: "folded".to_owned(),
        })),
        Event::MountFailed(MountFailed {
            session_id: "sandbox-1".into(),
            mount: "data".into(),
            operation: "read".into(),
            path: "reports/may.csv".into(),
            reason: "access was denied; check the mount's credentials: AccessDenied".into(),
        }),
        Event::Egress(Box::new(Egress {
            session_id: "session".to_owned(),
            protocol: "https".to_owned(),
            host: "api.example.com".to_owned(),
            port: 443,
            method: Some("GET".to_owned()),
            path: Some("/v1".to_owned()),
            decision: "deny".to_owned(),
            code: Some("request".to_owned()),
            reason: Some("reason".to_owned()),
            secrets: vec!["token".to_owned()],
            count: 2,
            bytes_up: 3,
            bytes_down: 4,
            duration_ms: 5,
        })),
        Event::RunImported(RunImported {
            runtime: "runtime".to_owned(),
            exported_ms: 1000,
            session_id: "session".to_owned(),
            session: Some(json!({"session_id": "session"})),
            items: vec![json!({"type": "message"})],
        }),
        Event::RunForked(RunForked {
            from: RunId("other".to_owned()),
            at: 1,
            session: Some(json!({"session_id": "session"})),
            items: vec![json!({"type": "message"})],
            input: vec![json!({"type": "message"})],
        }),
        Event::GuardrailChecked(Box::new(GuardrailChecked {
            turn: 1,
            stage: "tool_output".to_owned(),
            name: "guardrail".to_owned(),
            verdict: "replace".to_owned(),
            info: json!("info"),
            call_id: Some("call".to_owned()),
            output: json!({"type": "function_call_output"}),
            child: Some(RunId("child".to_owned())),
            spent: json!({"turns": 1}),
            duration_ms: 1,
        })),
        Event::OutputChecked(OutputChecked {
            turn: 1,
            valid: false,
            errors: vec!["error".to_owned()],
            repair: json!({"type": "message"}),
        }),
        Event::CancelRequested(CancelRequested { by: "user".to_owned() }),
        Event::DeadlinePassed(DeadlinePassed { limit: "max_seconds".to_owned() }),
        Event::RunFinished(RunFinished {
            status: "failed".to_owned(),
            output: Some("output".to_owned()),
            error: Some(RunError { code: "model".to_owned(), message: "message".to_owned() }),
            usage: json!({"input_tokens": 1}),
            turns: 1,
        }),
        Event::Reward(Reward {
            source: "grader".to_owned(),
            value: 0.5,
            turn: Some(1),
            critique: Some("critique".to_owned()),
        }),
    ];
    let record = |(event, seq)| Record { run: run_id("run"), seq, epoch: 1, at_ms: 1000, v: 1, event };
    events.into_iter().zip(1..).map(record).collect()
}
