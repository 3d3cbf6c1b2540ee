//! `moor sandbox shell`: a terminal inside, with this one's size, keys and signals.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use mooring_sandbox::{CommandLine, ExecRequest, Outcome, Process, SandboxSession, Stdin, TtySize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::exec::{KEPT, exit_code, feed, show};
use super::network;
use super::record::Found;
use crate::args::sandbox::ShellArgs;
use crate::command_error::CommandError;
use crate::home::{Home, variable};

pub(crate) async fn shell(args: &ShellArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(CommandError::input(
            "a shell needs a terminal; use `moor sandbox exec -i SANDBOX sh` in a pipe",
        ));
    }
    let found = Found::find(&home, &args.sandbox).await?;
    let session = found.attach(&home).await?;
    let ran = run(session.as_ref(), args).await;
    network::leave(session.as_ref()).await;
    Ok(exit_code(ran?))
}

async fn run(session: &dyn SandboxSession, args: &ShellArgs) -> Result<Outcome, CommandError> {
    let mut request = ExecRequest::new(CommandLine::Shell {
        line: "if command -v bash > /dev/null; then exec bash -i; else exec sh -i; fi".into(),
        shell: None,
        login: false,
    });
    request.tty = Some(size()?);
    request.stdin = Stdin::Open;
    request.user.clone_from(&args.user);
    (request.output_limit, request.paced) = (KEPT, true);
    request.env.extend(variable("TERM").map(|term| ("TERM".to_owned(), term)));
    let process = session.spawn(request).await?;
    let raw = Raw::enter()?;
    let _feeding = feed(Arc::clone(&process));
    let _resizing = follow_size(Arc::clone(&process))?;
    let outcome = show(process.as_ref()).await;
    drop(raw);
    process.release().await?;
    outcome
}

fn size() -> Result<TtySize, CommandError> {
    let size = tcgetwinsize(std::io::stdout()).map_err(std::io::Error::from)?;
    Ok(TtySize { rows: size.ws_row.max(1), cols: size.ws_col.max(1) })
}

fn follow_size(process: Arc<dyn Process>) -> Result<AbortOnDropHandle<()>, CommandError> {
    let mut changed = signal(SignalKind::window_change())?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while changed.recv().await.is_some() {
            // A size that cannot be told or set now is told with the next change.
            if let Ok(size) = size() {
                let _ = process.resize(size).await;
            }
        }
    })))
}

/// This terminal passes every key on, for as long as this lives.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, CommandError> {
        let before = tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(std::io::Error::from)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone away needs no care.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
