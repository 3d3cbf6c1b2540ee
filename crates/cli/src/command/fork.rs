//! `moor fork`.

use std::process::ExitCode;
use std::sync::Arc;

use mooring_harness::Fork;
use mooring_journal::{Journal, RunId};

use crate::args::ForkArgs;
use crate::command::resume::{self, started};
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host::now_ms;

pub(crate) async fn fork(args: ForkArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let journal: Arc<dyn Journal> = Arc::new(home.journal()?);
    let from = RunId(args.run);
    started(journal.as_ref(), &from).await?;
    let fork = Fork {
        id: RunId(uuid::Uuid::now_v7().to_string()),
        session_id: uuid::Uuid::now_v7().to_string(),
        at: args.at,
        input: args.input,
    };
    let forked = mooring_harness::fork(journal.as_ref(), &from, fork, "moor fork", now_ms()).await?;
    let run = forked.run;
    crate::view::note(&format!("run {run} goes on from event {} of run {from}", args.at));
    if forked.anew {
        crate::view::note(
            "its workspace is made anew from the manifest: there is no snapshot of the other run's workspace at that \
             event. The model is told",
        );
    }
    resume::drive(&home, journal, &run, args.json).await
}
