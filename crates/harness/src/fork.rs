//! Forks: a new run that begins with what another had come to at some event, and goes on from there by itself.
//!
//! The new run's journal begins with the other's events, so that nothing of what a run is made of needs a second form.
//! What had an outcome by then keeps it and is not done again. What was under way is in doubt, as after a crash, and
//! is told as such. Sub-agents that were at work are forked with their caller, at the same moment. What people had
//! allowed holds for the run that they were asked about: a call that had not begun is asked for again.

use std::sync::Arc;

use mooring_journal::event::{Parent, RunForked, RunStarted, SnapshotTaken};
use mooring_journal::{Append, BoxFuture, Durability, Event, Journal, Record, RunId, Stamped};
use mooring_manifest::Manifest;
use mooring_model::Item;
use mooring_sandbox::{CreateRequest, SandboxClient};
use mooring_snapshot::SnapshotStore;
use serde_json::Value;

use crate::driver::{PAGE, json, summary};
use crate::run::session_of;
use crate::{HarnessError, State};

/// What the model is told where it goes on in a workspace that was made anew.
const ANEW: &str = "Note of the runtime: this conversation goes on in a new sandbox. Its workspace was made anew from \
    the manifest, so what was changed in the one before is not there, and what was said of its files may no longer \
    hold. Look before you build on it.";

/// What the model is told where it goes on in a workspace that was restored.
const RESTORED: &str = "Note of the runtime: this conversation goes on in a new sandbox, with the workspace as it was \
    after turn {turn}. What was changed in it after that turn is not there, and no process of the one before runs.";

/// A fork to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Fork {
    /// The new run's id, never used before.
    pub id: RunId,
    /// The id of its sandbox session, never used before.
    pub session_id: String,
    /// The last event of the other run that the new one has too.
    pub at: u64,
    /// What the user says at this point.
    pub input: Option<String>,
    /// The workspace that it goes on in, restored from a snapshot; `None`: it is made anew.
    pub workspace: Option<RestoredWorkspace>,
}

/// A workspace of the run that is forked, in a sandbox session of the new run's.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredWorkspace {
    /// The state of the session, by which it is found.
    pub session: Value,
    /// The turn after which the snapshot was taken.
    pub turn: u64,
}

/// A fork that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forked {
    /// The new run. It goes on when it is resumed.
    pub run: RunId,
    /// Whether the other run had a workspace by then, so that this one's is made anew.
    pub anew: bool,
}

/// One run to copy: the root, or a sub-agent's.
struct Copy<'a> {
    from: &'a RunId,
    id: RunId,
    session_id: String,
    at: u64,
    parent: Parent,
    input: Option<String>,
    workspace: Option<RestoredWorkspace>,
}

/// Makes a new run that begins with the events of another up to one of them. The other may be over, or at work.
///
/// # Errors
/// [`HarnessError::NoEvent`] where the run has no event of that number; [`HarnessError::Journal`].
pub async fn fork(
    journal: &dyn Journal,
    from: &RunId,
    fork: Fork,
    owner: &str,
    now_ms: i64,
) -> Result<Forked, HarnessError> {
    let records = upto(journal, from, fork.at).await?;
    if fork.at == 0 || records.len() as u64 != fork.at {
        let last = journal.runs(Some(from)).await?.first().map_or(0, |row| row.last_seq);
        return Err(HarnessError::NoEvent { run: from.clone(), seq: fork.at, last });
    }
    let run = fork.id.clone();
    let copy = Copy {
        from,
        id: fork.id,
        session_id: fork.session_id,
        at: fork.at,
        parent: Parent { run: from.clone(), call_id: None, seq: Some(fork.at) },
        input: fork.input,
        workspace: fork.workspace,
    };
    let anew = write(journal, copy, records, owner, now_ms).await?;
    Ok(Forked { run, anew })
}

/// The last snapshot of a run's own workspace at or before an event, if there is one.
///
/// # Errors
/// [`HarnessError::Journal`].
pub async fn nearest_snapshot(
    journal: &dyn Journal,
    run: &RunId,
    at: u64,
) -> Result<Option<SnapshotTaken>, HarnessError> {
    let taken = upto(journal, run, at).await?.into_iter().rev().find_map(|record| match record.event {
        Event::SnapshotTaken(taken) => Some(taken),
        _ => None,
    });
    Ok(taken)
}

/// Restores a snapshot into a new sandbox session, for the fork that is to go on in it.
///
/// # Errors
/// [`HarnessError::Refused`] where the sandbox does not start, [`HarnessError::Snapshot`] where it cannot be restored.
pub async fn restore_workspace(
    snapshots: &SnapshotStore,
    client: &Arc<dyn SandboxClient>,
    manifest: Manifest,
    taken: &SnapshotTaken,
    session_id: &str,
) -> Result<RestoredWorkspace, HarnessError> {
    let request = CreateRequest { session_id: session_id.to_owned(), manifest, workspace: None };
    let session = client.create(request).await?;
    session.start().await?;
    let restored = snapshots.restore(&taken.snapshot, session.as_ref()).await;
    session.stop().await?;
    restored?;
    Ok(RestoredWorkspace { session: json(&session.state()), turn: taken.turn })
}

/// A run's first events; fewer where it has fewer.
async fn upto(journal: &dyn Journal, run: &RunId, seq: u64) -> Result<Vec<Record>, HarnessError> {
    let mut records = Vec::new();
    while (records.len() as u64) < seq {
        let after = records.len() as u64;
        let limit = usize::try_from(seq - after).unwrap_or(PAGE).min(PAGE);
        let page = journal.read(run, after, limit).await?;
        if page.is_empty() {
            break;
        }
        records.extend(page);
    }
    Ok(records)
}

/// Writes the copy of a run and of those that it had at work; says whether its workspace is made anew.
fn write<'a>(
    journal: &'a dyn Journal,
    copy: Copy<'a>,
    mut records: Vec<Record>,
    owner: &'a str,
    now_ms: i64,
) -> BoxFuture<'a, Result<bool, HarnessError>> {
    Box::pin(async move {
        let wrong = |source| HarnessError::Fold { run: copy.from.clone(), source };
        let before = State::fold(&records).map_err(wrong)?;
        let Some(before) = before else { return Err(HarnessError::Empty { run: copy.from.clone() }) };
        // Where nothing came after it, what a sub-agent has done since belongs to this moment too.
        let last = journal.read(copy.from, copy.at, 1).await?.is_empty();
        let latest = records.iter().map(|record| record.at_ms).max().unwrap_or_default();
        let moment = if last { i64::MAX } else { latest };
        // Before their caller: a fork that is not whole has none that could be resumed.
        for call in before.open_calls() {
            let Some(child) = &call.child else { continue };
            let id = before.child_id(&copy.id, call);
            let parent = Parent { run: copy.id.clone(), call_id: Some(call.call_id.clone()), seq: None };
            fork_child(journal, child, id, parent, moment, owner, now_ms).await?;
        }
        let restored = copy.workspace;
        let anew = if restored.is_some() { None } else { anew(&before) };
        let told =
            restored.as_ref().map(|place| Item::user(RESTORED.replace("{turn}", &place.turn.to_string())));
        let forked = RunForked {
            from: copy.from.clone(),
            at: copy.at,
            session: restored.map(|place| place.session),
            items: told.iter().chain(&anew).map(json).collect(),
            input: copy.input.map(Item::user).iter().map(json).collect(),
        };
        let Some(Record { event: Event::RunStarted(started), .. }) = records.first_mut() else {
            return Err(HarnessError::Empty { run: copy.from.clone() });
        };
        disown(started, copy.parent, copy.session_id);
        let mut events: Vec<Stamped> =
            records.into_iter().map(|record| Stamped { at_ms: record.at_ms, event: record.event }).collect();
        events.push(Stamped { at_ms: now_ms, event: Event::RunForked(forked) });
        let Some(state) =
            State::replay(events.iter().map(|stamped| (&stamped.event, stamped.at_ms))).map_err(wrong)?
        else {
            return Err(HarnessError::Empty { run: copy.from.clone() });
        };
        let claim = journal.create(&copy.id, now_ms, owner).await?;
        let append = Append {
            run: copy.id,
            epoch: claim.epoch,
            after: claim.last_seq,
            events: Arc::new(events),
            summary: Some(summary(&state)),
            durability: Durability::Power,
        };
        journal.append(append).await?;
        Ok(anew.is_some())
    })
}

/// The copy of a sub-agent's run, as it stood at a moment. One that had not begun by then begins with its caller.
async fn fork_child(
    journal: &dyn Journal,
    from: &RunId,
    id: RunId,
    parent: Parent,
    moment: i64,
    owner: &str,
    now_ms: i64,
) -> Result<(), HarnessError> {
    let mut records = match upto(journal, from, u64::MAX).await {
        Err(HarnessError::Journal(mooring_journal::JournalError::UnknownRun { .. })) => return Ok(()),
        records => records?,
    };
    // Rather too much than too little where a clock went back: what is not in the copy may be done again.
    let at = records.iter().rposition(|record| record.at_ms <= moment).map_or(0, |index| index + 1);
    records.truncate(at);
    if at == 0 {
        return Ok(());
    }
    let copy =
        Copy { from, session_id: session_of(&id), id, at: at as u64, parent, input: None, workspace: None };
    write(journal, copy, records, owner, now_ms).await.map(drop)
}

/// What names the other run, its workspace and its conversation in the first event.
fn disown(started: &mut RunStarted, parent: Parent, session_id: String) {
    started.parent = Some(parent);
    // The other run's conversation goes on with its own runs.
    started.labels.remove("session");
    if let Value::Object(sandbox) = &mut started.sandbox {
        sandbox.insert("session_id".into(), session_id.into());
        sandbox.insert("workspace".into(), Value::Null);
        sandbox.insert("state".into(), Value::Null);
    }
}

/// What the model is told where a run goes on in a workspace that is made anew; `None` where it has seen no other.
pub fn anew(state: &State) -> Option<Item> {
    let seen = state.turns > 0 || state.started.history.is_some();
    (seen && state.sandbox.session.is_some()).then(|| Item::user(ANEW))
}
