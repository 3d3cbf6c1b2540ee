//! `moor run`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use mooring_capability::system_instructions;
use mooring_harness::{AgentSpec, Finished, HarnessError, NewRun, Observer};
use mooring_journal::RunId;
use mooring_manifest::Manifest;
use mooring_model::Item;
use serde_json::json;

use crate::agent_file::{AgentFile, absolute_script, read_manifest};
use crate::args::{Backend, RunArgs};
use crate::command_error::{CommandError, exit_code};
use crate::home::{Home, absolute};
use crate::host;
use crate::view::live::{JsonLines, Terminal};

pub(crate) async fn run(args: RunArgs) -> Result<ExitCode, CommandError> {
    let here = absolute(Path::new("."))?;
    let home = Home::find()?;
    let config = home.config()?;
    let agent_path = args.agent.clone().unwrap_or_else(|| here.join("(no agent file)"));
    let mut file = match &args.agent {
        Some(path) => AgentFile::read(path)?,
        None => AgentFile::default(),
    };
    if let Some(model) = &args.model {
        file.model = Some(absolute_script(model, &here));
        file.base_url = None;
    }
    if let Some(Backend::Local) = args.sandbox {
        file.sandbox.backend = Some("local".into());
    }
    if args.isolation.is_some() {
        file.sandbox.isolation = args.isolation;
    }
    let Some(model) = file.model.clone().or(config.model.clone()) else {
        return Err(CommandError::input(
            "no model: give --model openai/NAME, anthropic/NAME, chat/NAME or script:FILE, or set `model` in the \
             agent file or in the configuration file",
        ));
    };
    let manifest = match &args.manifest {
        Some(path) => Some(read_manifest(path)?),
        None => file.manifest(&agent_path)?,
    };
    let (manifest, manifest_base) = manifest.unwrap_or_else(|| (Manifest::default(), here.clone()));

    let agent = AgentSpec {
        name: file.name.clone(),
        model,
        base_url: file.base_url.clone(),
        instructions: file.instructions.clone(),
        capabilities: file.capabilities.clone(),
        settings: file.settings.clone(),
        policy: file.policy.clone(),
    };
    let origin = match (&args.model, &args.agent) {
        (Some(_), _) => "--model".to_owned(),
        (None, Some(path)) if file.model.is_some() => format!("{}: model", path.display()),
        _ => format!("{}: model", home.config_file.display()),
    };
    let model = host::model(&agent, &config).map_err(|error| error.at(&origin))?;
    let capabilities = host::capabilities(&agent.capabilities)?;
    let sandbox = if capabilities.is_empty() {
        None
    } else {
        let sandbox = host::local_sandbox(&home, &file.sandbox);
        Some(sandbox.map_err(|error| error.at(&agent_path.display().to_string()))?)
    };
    let new = NewRun {
        id: RunId(uuid::Uuid::now_v7().to_string()),
        session_id: uuid::Uuid::now_v7().to_string(),
        instructions: system_instructions(
            agent.instructions.as_deref(),
            &capabilities,
            &manifest.describe(3),
            &manifest.root,
        ),
        agent,
        limits: file.limits.clone(),
        input: vec![Item::user(args.prompt)],
        manifest,
        manifest_base,
        workspace: args.workspace.as_deref().map(absolute).transpose()?,
        sandbox: json!(file.sandbox),
        parent: None,
        labels: BTreeMap::new(),
    };
    let journal = Arc::new(home.journal()?);
    let observer = observer(args.json);
    let cancel = host::cancel_on_signals(crate::view::note)?;
    let tools = capabilities.into_iter().flat_map(|capability| capability.tools).collect();
    let host = host::host(journal, model, sandbox, tools, observer, cancel);
    let id = new.id.clone();
    report(&id, args.json, mooring_harness::start(&host, new).await)
}

/// Who watches: people on a terminal, or a program.
pub(crate) fn observer(json: bool) -> Arc<dyn Observer> {
    if json || !crate::view::people() { Arc::new(JsonLines) } else { Terminal::start() }
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
