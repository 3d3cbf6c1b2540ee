//! `moor run`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use mooring_capability::system_instructions;
use mooring_harness::{AgentSpec, Finished, HarnessError, NewRun, Observer};
use mooring_journal::RunId;
use mooring_manifest::Manifest;
use mooring_model::{Item, Prices};
use serde_json::json;

use crate::agent_file::{AgentFile, Models, absolute_script};
use crate::args::{AgentArgs, Backend, IsolationArg, RunArgs};
use crate::command::conversation::{self, Before};
use crate::command_error::{CommandError, exit_code};
use crate::home::{Home, absolute};
use crate::host;
use crate::lock::read_locked;
use crate::view::live::{JsonLines, Terminal};

pub(crate) async fn run(args: RunArgs) -> Result<ExitCode, CommandError> {
    run_once(&args.agent, args.prompt).await
}

/// Runs an agent on one prompt, in a conversation where one is named.
pub(crate) async fn run_once(args: &AgentArgs, prompt: String) -> Result<ExitCode, CommandError> {
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
    let mut file = match (&args.agent, &before) {
        (Some(path), _) => AgentFile::read(path)?,
        (None, Some(before)) => AgentFile::again(&before.started, before.sandbox_table()?)?,
        (None, None) => AgentFile::default(),
    };
    if let Some(model) = &args.model {
        file.model = Models(vec![absolute_script(model, &here)]);
        file.base_url = None;
    }
    if let Some(Backend::Local) = args.sandbox {
        file.sandbox.backend = Some("local".into());
    }
    if args.isolation.is_some() {
        file.sandbox.isolation = args.isolation;
    }
    let named = !file.model.0.is_empty();
    let mut models = file.model.0.clone().into_iter().chain(config.model.clone().filter(|_| !named));
    let Some(model) = models.next() else {
        return Err(CommandError::input(
            "no model: give --model openai/NAME, anthropic/NAME, chat/NAME or script:FILE, or set `model` in the \
             agent file or in the configuration file",
        ));
    };
    let manifest = match (&before, &args.manifest) {
        (Some(before), _) => Some(conversation::manifest(before)?),
        (None, Some(path)) => Some(read_locked(path).await?),
        (None, None) => file.manifest(&agent_path).await?,
    };
    let (manifest, manifest_base) = manifest.unwrap_or_else(|| (Manifest::default(), here.clone()));

    let mut agent = AgentSpec {
        name: file.name.clone(),
        model,
        fallbacks: models.collect(),
        base_url: file.base_url.clone(),
        instructions: file.instructions.clone(),
        capabilities: file.capabilities.clone(),
        mcp: file.mcp.clone(),
        settings: file.settings.clone(),
        policy: file.policy.clone(),
        guidance: file.guidance,
    };
    let origin = match (&args.model, &args.agent) {
        (Some(_), _) => "--model".to_owned(),
        (None, Some(path)) if named => format!("{}: model", path.display()),
        (None, _) => format!("{}: model", home.config_file.display()),
    };
    let model = host::model(&agent, &config).map_err(|error| error.at(&origin))?;
    let capabilities = host::capabilities(&agent.capabilities)?;
    let servers = host::mcp(&agent.mcp, &config).await?;
    let sandbox = if capabilities.is_empty() {
        None
    } else {
        let sandbox = host::local_sandbox(&home, &file.sandbox);
        Some(sandbox.map_err(|error| error.at(&agent_path.display().to_string()))?)
    };
    let workspace = args.workspace.as_deref().map(absolute).transpose()?;
    let session_id = match &before {
        Some(Before { sandbox: Some((session_id, _)), .. }) => session_id.clone(),
        _ => uuid::Uuid::now_v7().to_string(),
    };
    let root = match file.sandbox.isolation {
        // Commands see the workspace where it lies.
        Some(IsolationArg::None) => {
            let private = || mooring_sandbox_local::private_workspace(&home.state, &session_id);
            workspace.clone().unwrap_or_else(private).display().to_string()
        }
        _ => manifest.root.clone(),
    };
    let instructions =
        system_instructions(agent.instructions.as_deref(), &capabilities, &manifest.describe(3), &root);
    let id = uuid::Uuid::now_v7().to_string();
    // One key for a whole conversation: its beginning stays the same.
    agent.settings.cache_key.get_or_insert_with(|| id.clone());
    let mut new = NewRun {
        id: RunId(id),
        session_id,
        instructions,
        agent,
        limits: file.limits.clone(),
        input: vec![Item::user(prompt)],
        history: None,
        sandbox_state: None,
        manifest,
        manifest_base,
        workspace,
        sandbox: json!(file.sandbox),
        parent: None,
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
    let observer = observer(args.json, config.prices);
    let (cancel, _listening) = host::cancel_on_signals(crate::view::note)?;
    let own = capabilities.into_iter().flat_map(|capability| capability.tools);
    let tools = own.chain(servers.tools()).collect();
    let host = host::host(journal, model, sandbox, tools, observer, cancel);
    let id = new.id.clone();
    let result = report(&id, args.json, mooring_harness::start(&host, new).await);
    servers.close().await;
    drop(claim);
    result
}

/// Who watches: people on a terminal, or a program.
pub(crate) fn observer(json: bool, prices: Prices) -> Arc<dyn Observer> {
    if json || !crate::view::people() { Arc::new(JsonLines) } else { Terminal::start(prices) }
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
