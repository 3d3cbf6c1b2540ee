//! `moor fork`.

use std::process::ExitCode;
use std::sync::Arc;

use mooring_harness::{Fork, RestoredWorkspace, nearest_snapshot, restore_workspace};
use mooring_journal::event::{RunStarted, SnapshotTaken};
use mooring_journal::{Journal, RunId};

use crate::args::ForkArgs;
use crate::command::resume::{self, started};
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host::{Wiring, now_ms};
use crate::team::Team;

pub(crate) async fn fork(args: ForkArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let journal: Arc<dyn Journal> = Arc::new(home.journal()?);
    let from = RunId(args.run);
    let begun = started(journal.as_ref(), &from).await?;
    let session_id = uuid::Uuid::now_v7().to_string();
    let workspace = match nearest_snapshot(journal.as_ref(), &from, args.at).await? {
        Some(taken) => Some(restore(&home, &begun, &taken, &session_id).await?),
        None => None,
    };
    let restored = workspace.as_ref().map(|place| place.turn);
    let fork = Fork {
        id: RunId(uuid::Uuid::now_v7().to_string()),
        session_id,
        at: args.at,
        input: args.input,
        workspace,
    };
    let forked = mooring_harness::fork(journal.as_ref(), &from, fork, "moor fork", now_ms()).await?;
    let run = forked.run;
    crate::view::note(&format!("run {run} goes on from event {} of run {from}", args.at));
    if let Some(turn) = restored {
        crate::view::note(&format!(
            "its workspace is the other run's after turn {turn}, from the nearest snapshot. The model is told"
        ));
    }
    if forked.anew {
        crate::view::note(
            "its workspace is made anew from the manifest: there is no snapshot of the other run's workspace at that \
             event. The model is told",
        );
    }
    resume::drive(&home, journal, &run, args.json, None).await
}

/// Restores a snapshot into a new session like the one that the run had.
async fn restore(
    home: &Home,
    begun: &RunStarted,
    taken: &SnapshotTaken,
    session_id: &str,
) -> Result<RestoredWorkspace, CommandError> {
    let config = home.config()?;
    let team = Team::again(begun)?;
    let hosts = team.hosts(&Wiring::idle(home, &config))?;
    let client = hosts.get(&team.entry.agent.name).and_then(|host| host.sandbox.clone());
    let Some(client) = client else {
        return Err(CommandError::failed(
            "the run has a snapshot of its workspace and no sandbox to restore it into",
        ));
    };
    let manifest = team.entry.manifest.clone();
    Ok(restore_workspace(&home.snapshots()?, &client, manifest, taken, session_id).await?)
}
