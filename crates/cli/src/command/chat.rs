//! `moor chat`.

use std::io::Write as _;
use std::process::ExitCode;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::args::ChatArgs;
use crate::command::run::run_once;
use crate::command_error::CommandError;

pub(crate) async fn chat(args: ChatArgs) -> Result<ExitCode, CommandError> {
    let mut args = args.agent;
    let name = args.session.get_or_insert_with(|| format!("chat-{}", uuid::Uuid::now_v7())).clone();
    let people = !args.json && crate::view::people();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut code = ExitCode::SUCCESS;
    loop {
        if people {
            write!(std::io::stdout(), "\n› ").and_then(|()| std::io::stdout().flush()).ok();
        }
        let line = tokio::select! {
            line = lines.next_line() => line?,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(line) = line else { break };
        if line.trim().is_empty() {
            continue;
        }
        // A run that fails is told and does not end the conversation; bad input does.
        code = run_once(&args, line, None).await?;
        // The first run has made the workspace; the later ones work on in it.
        args.workspace = None;
    }
    if people {
        crate::view::note(&format!("\ngo on with: moor chat --session {name}"));
    }
    Ok(code)
}
