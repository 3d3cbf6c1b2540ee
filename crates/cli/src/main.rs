//! The program `moor`: arguments, environment and terminal of the library.
//!
//! Everything that the library must not know is here and only here: environment variables, home directories, the
//! clock, randomness, signals, standard output. Logic is not.

mod agent_checks;
mod agent_file;
mod args;
mod command;
mod command_error;
mod home;
mod host;
mod lock;
mod outputs;
mod team;
mod tenant;
mod view;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::SignalKind;

use crate::args::{Args, Command};
use crate::command_error::CommandError;

fn main() -> ExitCode {
    let args = Args::parse();
    // One TLS provider for the whole process. A second installation could only fail, and there is none.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CommandError::failed(format!("cannot start: {error}")).report(),
    };
    let result = runtime.block_on(dispatch(args.command));
    // A read from a terminal or a stuck disk must not keep the program.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match result {
        Ok(code) => code,
        Err(error) => error.report(),
    }
}

async fn dispatch(command: Command) -> Result<ExitCode, CommandError> {
    // A file size limit is an error of the write that meets it, not the end of the program.
    let _over_limit = tokio::signal::unix::signal(SignalKind::from_raw(libc::SIGXFSZ))?;
    match command {
        Command::Run(args) => command::run::run(args).await,
        Command::Chat(args) => command::chat::chat(args).await,
        Command::Resume(args) => command::resume::resume(&args).await,
        Command::Runs(args) => command::runs::runs(&args).await,
        Command::Show(args) => command::show::show(&args).await,
        Command::Events(args) => command::events::events(&args).await,
        Command::Budget(args) => command::budget::budget(&args).await,
        Command::Cancel(args) => command::cancel::cancel(&args).await,
        Command::Approvals(args) => command::approve::list(&args).await,
        Command::Approve(args) => command::approve::approve(args).await,
        Command::Deny(args) => command::approve::deny(args).await,
        Command::Fork(args) => command::fork::fork(args).await,
        Command::ExportState(args) => command::transfer::export(&args).await,
        Command::ImportState(args) => command::transfer::import(&args).await,
        Command::Manifest(command) => command::manifest::manifest(command).await,
        Command::Sandbox(command) => command::sandbox::run(command).await,
        Command::Doctor => command::doctor::doctor().await,
    }
}
