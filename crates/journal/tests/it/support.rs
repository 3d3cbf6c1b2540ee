//! What many tests need: events, appends, runs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mooring_journal::event::{CancelRequested, ToolCompleted};
use mooring_journal::{Append, Claim, Durability, Event, Journal, Record, RunId, Stamped};
use serde_json::json;

pub(crate) fn run_id(id: &str) -> RunId {
    RunId(id.to_owned())
}

/// The `n`th event of a run, recognisable, larger the larger `n` is.
pub(crate) fn event(n: u64) -> Event {
    if n.is_multiple_of(3) {
        return Event::CancelRequested(CancelRequested { by: format!("test {n}") });
    }
    Event::ToolCompleted(Box::new(ToolCompleted {
        turn: n,
        call_id: format!("call_{n}"),
        tool: "shell".to_owned(),
        status: "completed".to_owned(),
        output: json!({"type": "function_call_output", "output": "ü".repeat(n as usize * 7 % 3000)}),
        provenance: "sandbox".to_owned(),
        duration_ms: n,
        ..Default::default()
    }))
}

/// An append of `count` events that follows event `after`.
pub(crate) fn append(run: &RunId, epoch: u64, after: u64, count: u64) -> Append {
    let events = (after + 1..=after + count).map(|n| Stamped { at_ms: 1000 + n as i64, event: event(n) });
    let events = Arc::new(events.collect());
    Append { run: run.clone(), epoch, after, events, summary: None, durability: Durability::Process }
}

/// The record that [`append`] makes of event `seq`.
pub(crate) fn record(run: &RunId, epoch: u64, seq: u64) -> Record {
    Record { run: run.clone(), seq, epoch, at_ms: 1000 + seq as i64, v: 1, event: event(seq) }
}

/// A new run with `events` events.
pub(crate) async fn run_with(journal: &dyn Journal, id: &str, events: u64) -> (RunId, Claim) {
    let run = run_id(id);
    let mut claim = journal.create(&run, 1000, "test").await.unwrap();
    claim.last_seq = journal.append(append(&run, claim.epoch, 0, events)).await.unwrap();
    (run, claim)
}

pub(crate) async fn read_all(journal: &dyn Journal, run: &RunId) -> Vec<Record> {
    journal.read(run, 0, usize::MAX).await.unwrap()
}

/// Runs the test `name`, which is ignored otherwise, in a process of its own: `sh` gets `setup`, which must end in
/// `exec "$@"` or the like, and the environment `DIR`.
pub(crate) fn child(setup: &str, name: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", setup, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env("DIR", dir);
    command
}

/// The directory that [`child`] gave.
pub(crate) fn child_dir() -> PathBuf {
    std::env::var_os("DIR").expect("run by another test").into()
}

/// Runs a command to its end; gives what it said, or shows it if it failed.
pub(crate) fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What `sh` runs to be where it may mount: as root, or as an ordinary user who becomes root of a namespace.
pub(crate) fn unshare(script: &str) -> String {
    format!(
        r#"if [ "$(id -u)" = 0 ]; then own=-m; else own=-rm; fi; exec unshare $own sh -c '{script}' sh "$@""#
    )
}

/// A number that differs each time, below `limit`.
pub(crate) fn random(limit: u64) -> u64 {
    RandomState::new().build_hasher().finish() % limit
}
