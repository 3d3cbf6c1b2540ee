//! `moor sandbox`: sandboxes without an agent, and those that an agent worked in.

pub(crate) mod cp;
mod create;
mod exec;
mod list;
mod making;
mod network;
mod ports;
mod prune;
mod record;
mod rm;
mod shell;
mod snapshot;

use std::process::ExitCode;

use crate::args::sandbox::SandboxCommand;
use crate::command_error::CommandError;

pub(crate) async fn run(command: SandboxCommand) -> Result<ExitCode, CommandError> {
    match command {
        SandboxCommand::Create(args) => create::create(args).await,
        SandboxCommand::List(args) => list::list(&args),
        SandboxCommand::Exec(args) => exec::exec(args).await,
        SandboxCommand::Shell(args) => shell::shell(&args).await,
        SandboxCommand::Cp(args) => cp::cp(&args).await,
        SandboxCommand::Ports(args) => ports::ports(&args).await,
        SandboxCommand::Snapshot(args) => snapshot::snapshot(&args).await,
        SandboxCommand::Restore(args) => snapshot::restore(args).await,
        SandboxCommand::Fork(args) => create::fork(&args).await,
        SandboxCommand::Diff(args) => snapshot::diff(&args).await,
        SandboxCommand::Rm(args) => rm::rm(&args).await,
        SandboxCommand::Prune(args) => prune::prune(&args).await,
    }
}
