//! `moor resume`.

use std::process::ExitCode;
use std::sync::Arc;

use mooring_journal::event::RunStarted;
use mooring_journal::{Event, Journal, RunId};

use crate::args::ResumeArgs;
use crate::command::run::{observer, report};
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host::{self, Wiring};
use crate::team::Team;

pub(crate) async fn resume(args: &ResumeArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let journal: Arc<dyn Journal> = Arc::new(home.journal()?);
    drive(&home, journal, &RunId(args.run.clone()), args.json).await
}

/// Goes on with a run, to its end.
pub(crate) async fn drive(
    home: &Home,
    journal: Arc<dyn Journal>,
    run: &RunId,
    json: bool,
) -> Result<ExitCode, CommandError> {
    let config = home.config()?;
    let team = Team::again(&started(journal.as_ref(), run).await?)?;
    let wiring = Wiring::connect(home, &config, &team.mcp()).await?;
    let (cancel, _listening) = host::cancel_on_signals(crate::view::note)?;
    let observer = observer(json, config.prices.clone());
    let host = host::host(journal, team.hosts(&wiring)?, team.snapshots(home)?, observer, cancel);
    let result = report(run, json, mooring_harness::resume(&host, run).await);
    wiring.close().await;
    result
}

/// How a run began.
pub(crate) async fn started(journal: &dyn Journal, run: &RunId) -> Result<RunStarted, CommandError> {
    journal.runs(Some(run)).await?;
    match journal.read(run, 0, 1).await?.into_iter().next().map(|record| record.event) {
        Some(Event::RunStarted(started)) => Ok(*started),
        _ => Err(CommandError::input(format!(
            "run {run} has not begun: its driver died before the first event. Nothing had been done: start it again"
        ))),
    }
}
