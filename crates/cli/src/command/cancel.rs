//! `moor cancel`: leaves word for the run's driver, or ends a run that has none.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mooring_harness::Silent;
use mooring_journal::{Journal, JournalError, RunId};
use tokio_util::sync::CancellationToken;

use crate::args::CancelArgs;
use crate::command::resume::started;
use crate::command_error::CommandError;
use crate::home::{Config, Home};
use crate::host::{self, Wiring};
use crate::team::Team;

/// How long to wait for a driver to end its run.
const WAIT: Duration = Duration::from_secs(30);

pub(crate) async fn cancel(args: &CancelArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let journal: Arc<dyn Journal> = Arc::new(home.journal()?);
    let run = RunId(args.run.clone());
    let rows = journal.runs(Some(&run)).await?;
    let status = rows.first().and_then(|row| row.summary["status"].as_str().map(str::to_owned));
    if let Some(status) = status.filter(|status| !matches!(status.as_str(), "running" | "waiting")) {
        crate::view::line(&format!("run {run} is over already: {status}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !rows.first().is_some_and(|row| row.driven) {
        let team = Team::again(&started(journal.as_ref(), &run).await?)?;
        let config = Config::default();
        let token = CancellationToken::new();
        token.cancel();
        let agents = team.hosts(&Wiring::idle(&home, &config))?;
        let host = host::host(Arc::clone(&journal), agents, None, Arc::new(Silent), token);
        mooring_harness::resume(&host, &run).await?;
        crate::view::line(&format!("run {run} cancelled"))?;
        return Ok(ExitCode::SUCCESS);
    }
    journal.signal(&run, "cancel").await?;
    let ended = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let rows = journal.runs(Some(&run)).await?;
            if rows.first().is_some_and(|row| !row.driven || row.summary["status"] != "running") {
                return Ok::<_, JournalError>(());
            }
        }
    };
    match tokio::time::timeout(WAIT, ended).await {
        Ok(result) => result?,
        Err(_) => {
            return Err(CommandError::failed(format!(
                "the driver of run {run} did not end it within {} s; the request stays with it. `moor runs` shows \
                 whether it is still driven",
                WAIT.as_secs()
            )));
        }
    }
    crate::view::line(&format!("run {run} cancelled"))?;
    Ok(ExitCode::SUCCESS)
}
