//! The tool `apply_patch`: edits files, all of a patch or nothing.
//!
//! Name, grammar, description and result texts are the OpenAI Agents SDK's (MIT licence). What the SDK loses is kept:
//! a patch that fails anywhere writes nothing, nothing is overwritten by a create or a move, and a file's mode stays.
//! The text side is in `diff` and `patch`, the planning in `plan`.
//!
//! A call that a crash interrupted is brought to its end, not guessed at: the journal has each file's digest before
//! and after, so every file shows by itself whether it was written.

use std::collections::BTreeSet;

use mooring_model::{ToolKind, ToolSpec};
use mooring_sandbox::{SandboxError, SandboxSession, WriteOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::patch::{Operation, SyntaxError, parse_json_patch, parse_patch};
use crate::plan::{Change, PatchError, Record, digest, load, plan, summary};
use crate::{BoxFuture, Effect, Reconciled, Tool, ToolContext, ToolInput, ToolResult};

/// The tool.
#[derive(Debug, Default)]
pub(crate) struct ApplyPatch {
    /// Two patches at once would not see each other's writes.
    writing: Mutex<()>,
}

/// What `prepare` leaves in the journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Prepared {
    files: Vec<Record>,
}

impl Tool for ApplyPatch {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "apply_patch".to_owned(),
            description: include_str!("apply_patch.txt").trim_end().to_owned(),
            kind: ToolKind::Custom {
                syntax: "lark".to_owned(),
                definition: include_str!("apply_patch.lark").trim_end().to_owned(),
            },
        }
    }

    fn effect(&self) -> Effect {
        Effect::AtMostOnce
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
    ) -> BoxFuture<'a, Result<Value, ToolResult>> {
        Box::pin(async move {
            let changes = planned(context, input, &BTreeSet::new()).await.map_err(|error| refused(&error))?;
            Ok(json!(prepared_of(&changes)))
        })
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
        prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async move {
            let _one_at_a_time = self.writing.lock().await;
            // Computed again rather than carried along: the journal holds no contents.
            let changes = match planned(context, input, &BTreeSet::new()).await {
                Ok(changes) if json!(prepared_of(&changes)) == *prepared => changes,
                Err(error) if error.session_lost() => return refused(&error),
                Ok(_) | Err(_) => {
                    return ToolResult::failed(
                        "apply_patch: a file of this patch was changed meanwhile. Nothing was written. Read the \
                         files as they are now and send a new patch.",
                    );
                }
            };
            match write(context.session.as_ref(), &changes).await {
                Ok(()) => done(context, input, prepared).unwrap_or_else(|error| refused(&error)),
                Err(failure) => failure,
            }
        })
    }

    fn reconcile<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
        prepared: &'a Value,
    ) -> BoxFuture<'a, Reconciled> {
        Box::pin(async move {
            let _one_at_a_time = self.writing.lock().await;
            match roll_forward(context, input, prepared).await {
                Some(outcome) => outcome,
                None => Reconciled::Unknown,
            }
        })
    }
}

/// Brings an interrupted patch to its end. `None` where a file is neither as before nor as after.
async fn roll_forward(context: &ToolContext, input: &ToolInput, prepared: &Value) -> Option<Reconciled> {
    let session = context.session.as_ref();
    let records = Prepared::deserialize(prepared).ok()?.files;
    let mut settled = BTreeSet::new();
    let mut pending = 0;
    for record in &records {
        let now = load(session, &record.path).await.ok()?.map(|file| digest(&file.data));
        if now == record.after {
            settled.insert(record.path.clone());
        } else if now == record.before {
            pending += 1;
        } else {
            return None;
        }
    }
    let begun = records.iter().any(|record| record.before != record.after && settled.contains(&record.path));
    if pending > 0 && !begun {
        return Some(Reconciled::NotStarted);
    }
    if pending > 0 {
        let changes = planned(context, input, &settled).await.ok()?;
        if changes.len() != pending || !changes.iter().all(|change| records.contains(&change.record())) {
            return None;
        }
        write(session, &changes).await.ok()?;
    }
    Some(Reconciled::Done(done(context, input, prepared).ok()?))
}

async fn planned(
    context: &ToolContext,
    input: &ToolInput,
    settled: &BTreeSet<String>,
) -> Result<Vec<Change>, PatchError> {
    plan(context.session.as_ref(), &operations(input)?, settled).await
}

fn operations(input: &ToolInput) -> Result<Vec<Operation>, SyntaxError> {
    match input {
        ToolInput::Text(text) => parse_patch(text),
        ToolInput::Json(json) => match json.get("input") {
            Some(Value::String(text)) => parse_patch(text),
            _ => parse_json_patch(json),
        },
    }
}

fn prepared_of(changes: &[Change]) -> Prepared {
    Prepared { files: changes.iter().map(Change::record).collect() }
}

/// Writes changes in their order. Where one fails, those before it are taken back.
async fn write(session: &dyn SandboxSession, changes: &[Change]) -> Result<(), ToolResult> {
    for (nth, change) in changes.iter().enumerate() {
        let written = match twice_named(session, &changes[..nth], change).await {
            Ok(()) => step(session, change, change.before.is_none()).await,
            Err(error) => Err(error),
        };
        let Err(error) = written else { continue };
        // Of a lost sandbox nobody knows whether it still did this one, and nothing can be taken back.
        let left = if error.session_lost() {
            changes[..=nth].iter().map(|change| change.path.as_str()).collect()
        } else {
            take_back(session, &changes[..nth]).await
        };
        return Err(not_written(change, &error, &left));
    }
    Ok(())
}

/// Refuses a file that an earlier change of the patch wrote under another name, through a link to its directory: its
/// change was computed without that one.
async fn twice_named(
    session: &dyn SandboxSession,
    earlier: &[Change],
    change: &Change,
) -> Result<(), SandboxError> {
    let alike = change.before.is_some() && earlier.iter().any(|earlier| earlier.before == change.before);
    if !alike || load(session, &change.path).await.ok() == Some(change.before.clone()) {
        return Ok(());
    }
    Err(SandboxError::File {
        operation: "write",
        path: change.path.clone(),
        reason: "it changed while the patch was written; is it named twice, through a link to its directory?"
            .into(),
    })
}

async fn step(session: &dyn SandboxSession, change: &Change, create_new: bool) -> Result<(), SandboxError> {
    match &change.after {
        Some(file) => {
            let options = WriteOptions { create_new, mode: Some(file.mode), parents: true };
            session.write(&change.path, file.data.clone(), options).await
        }
        None => session.remove(&change.path, false).await,
    }
}

/// Undoes changes, last first. Returns the paths where that failed.
async fn take_back<'a>(session: &dyn SandboxSession, changes: &'a [Change]) -> Vec<&'a str> {
    let mut left = Vec::new();
    for change in changes.iter().rev() {
        let back = Change { path: change.path.clone(), before: None, after: change.before.clone() };
        if step(session, &back, false).await.is_err() {
            left.push(change.path.as_str());
        }
    }
    left
}

fn done(context: &ToolContext, input: &ToolInput, prepared: &Value) -> Result<ToolResult, PatchError> {
    let output = summary(context.session.root(), &operations(input)?)?;
    Ok(ToolResult { details: prepared.clone(), ..ToolResult::text(output) })
}

fn refused(error: &PatchError) -> ToolResult {
    ToolResult {
        session_lost: error.session_lost(),
        ..ToolResult::failed(format!("{error}\nNothing was written. {}", error.next_step()))
    }
}

fn not_written(change: &Change, error: &SandboxError, left: &[&str]) -> ToolResult {
    let state = if left.is_empty() {
        "Nothing was written. Remove the cause and send the patch again.".to_owned()
    } else {
        format!("Perhaps changed: {}. Look at these files before you go on.", left.join(", "))
    };
    ToolResult {
        session_lost: error.session_lost(),
        ..ToolResult::failed(format!("apply_patch stopped at {}: {error}\n{state}", change.path))
    }
}
