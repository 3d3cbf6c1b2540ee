//! `moor resume`.

use std::process::ExitCode;
use std::sync::Arc;

use mooring_harness::{AgentSpec, Host, Observer};
use mooring_journal::event::RunStarted;
use mooring_journal::{Event, Journal, RunId};
use mooring_model::{ModelClient, ScriptModel};
use tokio_util::sync::CancellationToken;

use crate::agent_file::SandboxTable;
use crate::args::ResumeArgs;
use crate::command::run::{observer, report};
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host;

pub(crate) async fn resume(args: &ResumeArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let config = home.config()?;
    let journal: Arc<dyn Journal> = Arc::new(home.journal()?);
    let run = RunId(args.run.clone());
    let started = started(journal.as_ref(), &run).await?;
    let agent = agent(&started)?;
    let model = host::model(&agent, &config)?;
    let (cancel, _listening) = host::cancel_on_signals(crate::view::note)?;
    let servers = host::mcp(&agent.mcp, &config).await?;
    let mut host =
        rebuild(&home, journal, &started, &agent, model, observer(args.json, config.prices), cancel)?;
    host.tools.extend(servers.tools());
    let result = report(&run, args.json, mooring_harness::resume(&host, &run).await);
    servers.close().await;
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

/// The agent of a run.
pub(crate) fn agent(started: &RunStarted) -> Result<AgentSpec, CommandError> {
    serde_json::from_value(started.agent.clone())
        .map_err(|error| CommandError::failed(format!("the run's agent cannot be read: {error}")))
}

/// A host like the one that the run began with.
pub(crate) fn rebuild(
    home: &Home,
    journal: Arc<dyn Journal>,
    started: &RunStarted,
    agent: &AgentSpec,
    model: Arc<dyn ModelClient>,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
) -> Result<Host, CommandError> {
    let sandbox = if started.sandbox.is_null() {
        None
    } else {
        let table: SandboxTable = serde_json::from_value(started.sandbox["options"].clone())
            .map_err(|error| CommandError::failed(format!("the run's sandbox cannot be read: {error}")))?;
        Some(host::local_sandbox(home, &table)?)
    };
    let capabilities = host::capabilities(&agent.capabilities)?;
    let tools = capabilities.into_iter().flat_map(|capability| capability.tools).collect();
    Ok(host::host(journal, model, sandbox, tools, observer, cancel))
}

/// A model that is never asked: for a run that is only brought to its end.
pub(crate) fn no_model() -> Arc<dyn ModelClient> {
    Arc::new(ScriptModel::from_responses("none", Vec::new()))
}
