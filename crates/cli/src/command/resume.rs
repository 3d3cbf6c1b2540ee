//! `moor resume`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use mooring_journal::event::RunStarted;
use mooring_journal::{Event, Journal, RunId};

use crate::args::ResumeArgs;
use crate::command::run::{copy_outputs, observer, report};
use crate::command::show::each;
use crate::command_error::CommandError;
use crate::home::{Home, absolute};
use crate::host::{self, Wiring};
use crate::outputs::Outputs;
use crate::team::Team;
use crate::view::story::Stories;

pub(crate) async fn resume(args: &ResumeArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let journal: Arc<dyn Journal> = Arc::new(home.journal()?);
    let outputs = args.outputs.as_deref().map(absolute).transpose()?;
    drive(&home, journal, &RunId(args.run.clone()), args.json, outputs).await
}

/// Goes on with a run, to its end.
pub(crate) async fn drive(
    home: &Home,
    journal: Arc<dyn Journal>,
    run: &RunId,
    json: bool,
    outputs: Option<PathBuf>,
) -> Result<ExitCode, CommandError> {
    let config = home.config()?;
    let team = Team::again(&started(journal.as_ref(), run).await?)?;
    let outputs = outputs.map(|directory| Outputs::new(directory, &team.entry.manifest)).transpose()?;
    let wiring = Wiring::connect(home, &config, &team.mcp()).await?;
    let (cancel, _listening) = host::cancel_on_signals(crate::view::note)?;
    let mut stories = Stories::new(config.prices.clone());
    if !json && crate::view::people() {
        catch_up(&mut stories, journal.as_ref(), run).await?;
    }
    let observer = observer(json, || stories);
    let host = host::host(journal, team.hosts(&wiring)?, team.snapshots(home)?, observer, cancel);
    let driven = mooring_harness::resume(&host, run).await;
    let copied = copy_outputs(outputs.as_ref(), &host, &driven).await;
    let result = report(run, json, driven).and_then(|code| copied.map(|()| code));
    wiring.close().await;
    result
}

/// Reads what was told before: when the run began, what it cost so far, what its open calls were asked to do, and the
/// same of the runs below it.
async fn catch_up(stories: &mut Stories, journal: &dyn Journal, run: &RunId) -> Result<(), CommandError> {
    let below = format!("{run}-");
    let rows = journal.runs(None).await?;
    let below = rows.into_iter().map(|row| row.id).filter(|id| id.0.starts_with(&below));
    for id in std::iter::once(run.clone()).chain(below) {
        each(journal, &id, 0, |record| drop(stories.tell(record))).await?;
    }
    Ok(())
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
