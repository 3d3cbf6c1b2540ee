//! Conversations: runs of one name, each going on where the one before ended, in the same workspace.

use std::path::PathBuf;

use mooring_harness::{Status, fold};
use mooring_journal::event::History;
use mooring_journal::{Claim, Journal, RunId};
use mooring_manifest::Manifest;
use mooring_model::Item;
use serde_json::Value;

use crate::command_error::CommandError;

/// What a conversation's last run left.
#[derive(Debug)]
pub(crate) struct Before {
    /// Its items.
    pub(crate) items: Vec<Item>,
    /// For the record of the next run.
    pub(crate) history: History,
    /// How the last run began: what the next one takes over unless it is told otherwise.
    pub(crate) started: mooring_journal::event::RunStarted,
    /// The agent that had the conversation last.
    pub(crate) agent: String,
    /// The sandbox session to work on in.
    pub(crate) sandbox: Option<(String, Value)>,
    /// Kept while the next run goes on: two runs of one conversation would work in one workspace.
    pub(crate) claim: Claim,
}

/// The end of a conversation; `None` where there is none of that name yet.
pub(crate) async fn find(journal: &dyn Journal, name: &str) -> Result<Option<Before>, CommandError> {
    let rows = journal.runs(None).await?;
    let Some(row) = rows.iter().find(|row| row.summary["session"] == name) else { return Ok(None) };
    let run: RunId = row.id.clone();
    let claim = journal.claim(&run, &format!("conversation '{name}'")).await?;
    let state = fold(journal, &run, |_| {}).await?;
    if matches!(state.status, Status::Running | Status::Waiting) {
        let word = if state.status == Status::Waiting { "waits for an approval" } else { "was interrupted" };
        return Err(CommandError::input(format!(
            "the last run of the conversation '{name}' {word}. First go on with it: moor resume {run}"
        )));
    }
    let session_id = state.sandbox.session_id.clone();
    Ok(Some(Before {
        history: state.history(&run),
        sandbox: state.sandbox.session.clone().map(|session| (session_id, session)),
        items: state.items,
        agent: state.agent.name,
        started: *state.started,
        claim,
    }))
}

/// The manifest of a conversation's workspace, and the directory that its sources were relative to.
pub(crate) fn manifest(before: &Before) -> Result<(Manifest, PathBuf), CommandError> {
    let manifest = Manifest::from_value(&before.started.manifest).map_err(|error| {
        CommandError::failed(format!("the conversation's manifest cannot be read: {error}"))
    })?;
    Ok((manifest, before.started.manifest_base.clone().unwrap_or_default().into()))
}
