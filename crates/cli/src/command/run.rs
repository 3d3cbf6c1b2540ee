//! `moor run`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use mooring_harness::{Finished, HarnessError, Host, NewRun, Observer, Terms};
use mooring_journal::RunId;
use mooring_model::Item;
use serde_json::json;

use crate::agent_file::{AgentFile, Models, absolute_script};
use crate::args::{AgentArgs, IsolationArg, RunArgs};
use crate::command::conversation::{self, Before};
use crate::command_error::{CommandError, exit_code};
use crate::home::{Home, absolute};
use crate::host::{self, Wiring};
use crate::lock::read_locked;
use crate::outputs::Outputs;
use crate::team::{Loaded, Team};
use crate::tenant;
use crate::view::live::{JsonLines, Terminal};
use crate::view::story::Stories;

pub(crate) async fn run(args: RunArgs) -> Result<ExitCode, CommandError> {
    run_once(&args.agent, args.prompt, args.outputs).await
}

/// Runs an agent on one prompt, in a conversation where one is named.
pub(crate) async fn run_once(
    args: &AgentArgs,
    prompt: String,
    outputs: Option<PathBuf>,
) -> Result<ExitCode, CommandError> {
    let here = absolute(Path::new("."))?;
    let home = Home::find()?;
    let config = home.config()?;
    let journal = match &args.session {
        Some(_) => Some(Arc::new(home.journal()?)),
        // A run that is refused leaves no trace, not even a journal.
        None => None,
    };
    let before = match (&args.session, &journal) {
        (Some(name), Some(journal)) => conversation::find(journal.as_ref(), name).await?,
        _ => None,
    };
    if before.is_some() && (args.manifest.is_some() || args.workspace.is_some()) {
        return Err(CommandError::input(
            "the conversation has its workspace already: leave out --manifest and --workspace, or name a new --session",
        ));
    }
    let agent_path = args.agent.clone().unwrap_or_else(|| here.join("(no agent file)"));
    let mut tenant = args.tenant.clone();
    let mut team = match (&args.agent, &before) {
        (None, Some(before)) => {
            let payer = before.started.tenant.as_ref().map(|tenant| tenant.name.clone());
            tenant = tenant.or(payer);
            Team::again(&before.started)?.led_by(&before.agent)
        }
        (path, before) => {
            let mut file = path.as_deref().map_or_else(|| Ok(AgentFile::default()), AgentFile::read)?;
            let manifest = match (before, &args.manifest) {
                (Some(before), _) => Some(conversation::manifest(before)?),
                (None, Some(path)) => Some(read_locked(path)?),
                (None, None) => None,
            };
            // What is given here stands in for what the file says.
            if args.model.is_some() {
                file.model = Models::default();
                file.base_url = None;
            }
            tenant = tenant.or_else(|| file.tenant.take());
            let model = args.model.as_deref().map(|model| absolute_script(model, &here));
            let model = model.or_else(|| config.model.clone());
            let origin = match &args.model {
                Some(_) => "--model".to_owned(),
                None => format!("{}: model", home.config_file.display()),
            };
            let entry = Loaded::new(file, &agent_path, manifest, model.as_deref(), &origin)?;
            Team::read(entry, &agent_path, config.model.as_deref())?
        }
    };
    let entry = &mut team.entry;
    if let (None, Some(model)) = (&args.agent, &args.model)
        && before.is_some()
    {
        entry.agent.model = absolute_script(model, &here);
        entry.agent.fallbacks.clear();
        entry.agent.base_url = None;
        entry.origin = "--model".into();
    }
    if let Some(backend) = args.sandbox {
        entry.sandbox.backend = Some(backend.name().into());
    }
    if args.image.is_some() {
        entry.sandbox.image = args.image.clone();
    }
    if args.isolation.is_some() {
        entry.sandbox.isolation = args.isolation;
    }
    let tenant = tenant.or_else(|| config.tenant.clone());
    let tenant = tenant::find(&home, &config.tenants, tenant.as_deref(), host::now_ms())?;
    let wiring = Wiring::connect(&home, &config, &team.mcp()).await?;
    let agents = team.hosts(&wiring)?;
    let workspace = args.workspace.as_deref().map(absolute).transpose()?;
    let session_id = match &before {
        Some(Before { sandbox: Some((session_id, _)), .. }) => session_id.clone(),
        _ => uuid::Uuid::now_v7().to_string(),
    };
    let root = match team.entry.sandbox.isolation {
        // Commands see the workspace where it lies.
        Some(IsolationArg::None) => {
            let private = || mooring_sandbox_local::private_workspace(&home.state, &session_id);
            workspace.clone().unwrap_or_else(private).display().to_string()
        }
        _ => team.entry.manifest.root.clone(),
    };
    let outputs = outputs.as_deref().map(absolute).transpose()?;
    let outputs = outputs.map(|directory| Outputs::new(directory, &team.entry.manifest)).transpose()?;
    let snapshots = team.snapshots(&home)?;
    let (mut entry, members) = team.members(&root)?;
    let id = uuid::Uuid::now_v7().to_string();
    // One key for a whole conversation: its beginning stays the same.
    entry.agent.settings.cache_key.get_or_insert_with(|| id.clone());
    let mut new = NewRun {
        id: RunId(id),
        session_id,
        entry,
        team: members,
        input: vec![Item::user(prompt)],
        read: Vec::new(),
        history: None,
        sandbox_state: None,
        workspace,
        parent: None,
        depth: 0,
        terms: Terms { prices: config.prices.clone(), tenant },
        labels: args.session.iter().map(|name| ("session".to_owned(), name.clone())).collect(),
    };
    // Held until the run is over: see `Before`.
    let mut claim = None;
    if let Some(before) = before {
        new.input.splice(0..0, before.items);
        new.history = Some(before.history);
        new.sandbox_state = before.sandbox.map(|(_, state)| state);
        claim = Some(before.claim);
    }
    let journal = match journal {
        Some(journal) => journal,
        None => Arc::new(home.journal()?),
    };
    let observer = observer(args.json, || Stories::new(config.prices.clone()));
    let (cancel, _listening) = host::cancel_on_signals(crate::view::note)?;
    let host = host::host(journal, agents, snapshots, observer, cancel);
    let id = new.id.clone();
    let driven = mooring_harness::start(&host, new).await;
    let copied = copy_outputs(outputs.as_ref(), &host, &driven).await;
    let result = report(&id, args.json, driven).and_then(|code| copied.map(|()| code));
    wiring.close().await;
    drop(claim);
    result
}

/// Copies what a run left, where that was asked for.
pub(crate) async fn copy_outputs(
    outputs: Option<&Outputs>,
    host: &Host,
    driven: &Result<Finished, HarnessError>,
) -> Result<(), CommandError> {
    match (outputs, driven) {
        (Some(outputs), Ok(finished)) => outputs.copy(host, finished).await,
        _ => Ok(()),
    }
}

/// Who watches: people on a terminal, who are told how the stories go on, or a program.
pub(crate) fn observer(json: bool, stories: impl FnOnce() -> Stories) -> Arc<dyn Observer> {
    if json || !crate::view::people() { Arc::new(JsonLines) } else { Terminal::start(stories()) }
}

/// The exit code of a driven run, and for programs a last line whatever happens.
pub(crate) fn report(
    run: &RunId,
    json: bool,
    result: Result<Finished, HarnessError>,
) -> Result<ExitCode, CommandError> {
    match result {
        Ok(finished) => Ok(exit_code(finished.status)),
        Err(error) => {
            let interrupted = matches!(error, HarnessError::Journal(_) | HarnessError::Fold { .. });
            let error = CommandError::from(error);
            if interrupted && (json || !crate::view::people()) {
                // The journal cannot take this event; a reader of the stream must know all the same.
                let last = json!({
                    "type": "run_finished",
                    "run": run,
                    "status": "interrupted",
                    "output": null,
                    "error": {"code": "journal", "message": error.message()},
                    "usage": {},
                });
                writeln!(std::io::stdout(), "{last}").ok();
            }
            Err(error)
        }
    }
}
