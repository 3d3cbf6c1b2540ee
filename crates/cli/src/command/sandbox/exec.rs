//! `moor sandbox exec`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{Cursor, ExecRequest, Outcome, Process, SandboxError, SandboxSession, Stdin, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::network;
use super::record::Found;
use crate::args::sandbox::ExecArgs;
use crate::command_error::CommandError;
use crate::home::Home;

/// How much is read at a time, and how long for.
const CHUNK: usize = 256 << 10;
const WAIT: Duration = Duration::from_secs(30);

/// How much output is held for us, before the command waits until we have printed it.
pub(crate) const KEPT: usize = 1 << 20;

/// Until a command that did not read its standard input is asked again whether it does.
const FULL: Duration = Duration::from_millis(10);

pub(crate) async fn exec(args: ExecArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let found = Found::find(&home, &args.sandbox).await?;
    let request = ExecRequest {
        cwd: args.cwd,
        env: variables(&args.env)?,
        user: args.user,
        stdin: if args.interactive { Stdin::Open } else { Stdin::Null },
        timeout: args.timeout.map(Duration::from_secs),
        output_limit: KEPT,
        paced: true,
        ..ExecRequest::argv(args.command)
    };
    let session = found.attach(&home).await?;
    let ran = run(session.as_ref(), request, args.interactive).await;
    network::leave(session.as_ref()).await;
    Ok(exit_code(ran?))
}

async fn run(
    session: &dyn SandboxSession,
    request: ExecRequest,
    interactive: bool,
) -> Result<Outcome, CommandError> {
    let failed = |error: std::io::Error| CommandError::failed(format!("cannot listen to signals: {error}"));
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let process = session.spawn(request).await?;
    let _feeding = interactive.then(|| feed(Arc::clone(&process)));
    // Whoever ends this means the command, which has nobody else.
    let signalled = tokio::select! {
        outcome = show(process.as_ref()) => Err(outcome),
        _ = tokio::signal::ctrl_c() => Ok(Outcome::Cancelled),
        _ = hangup.recv() => Ok(Outcome::Signalled { signal: SignalKind::hangup().as_raw_value() }),
        _ = terminate.recv() => Ok(Outcome::Signalled { signal: SignalKind::terminate().as_raw_value() }),
    };
    let outcome = match signalled {
        Ok(outcome) => {
            process.cancel().await?;
            outcome
        }
        Err(shown) => shown?,
    };
    // Releasing it would end what it left in the background. What it said was read; the supervisor's copy is small.
    if !matches!(outcome, Outcome::Exited { .. }) {
        process.release().await?;
    }
    Ok(outcome)
}

/// Prints what a process says until it has ended. One whose output nobody takes any more is ended, as in a pipe.
pub(crate) async fn show(process: &dyn Process) -> Result<Outcome, CommandError> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut cursor = Cursor::default();
    loop {
        let chunk = process.output(cursor, CHUNK, WAIT).await?;
        for piece in &chunk.pieces {
            let written = match piece.stream {
                Stream::Stdout => print(&mut stdout, &piece.data).await,
                Stream::Stderr => print(&mut stderr, &piece.data).await,
            };
            if let Err(error) = written {
                process.cancel().await?;
                return match error.kind() {
                    std::io::ErrorKind::BrokenPipe => {
                        Ok(Outcome::Signalled { signal: SignalKind::pipe().as_raw_value() })
                    }
                    _ => Err(CommandError::failed(format!("cannot print what the command says: {error}"))),
                };
            }
        }
        cursor = chunk.next;
        if let Some(outcome) = chunk.outcome {
            return Ok(outcome);
        }
    }
}

async fn print(mut to: impl AsyncWrite + Unpin, data: &[u8]) -> std::io::Result<()> {
    to.write_all(data).await?;
    to.flush().await
}

/// Sends standard input to a process, and its end.
pub(crate) fn feed(process: Arc<dyn Process>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut input = tokio::io::stdin();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = input.read(&mut buffer).await {
            if count == 0 {
                let _ = process.close_stdin().await;
                return;
            }
            let data = Bytes::copy_from_slice(&buffer[..count]);
            loop {
                match process.write_stdin(data.clone()).await {
                    Ok(()) => break,
                    Err(SandboxError::StdinFull) => tokio::time::sleep(FULL).await,
                    // A process that has ended or closed its input takes no more; its outcome says the rest.
                    Err(_) => return,
                }
            }
        }
    }))
}

/// As a shell would give it.
pub(crate) fn exit_code(outcome: Outcome) -> ExitCode {
    let code = match outcome {
        Outcome::Exited { code } => u8::try_from(code).unwrap_or(1),
        Outcome::Signalled { signal } => u8::try_from(128 + signal).unwrap_or(1),
        Outcome::TimedOut => 124,
        Outcome::OutOfMemory => 137,
        // As one that SIGXFSZ ended.
        Outcome::OutOfDisk => 153,
        Outcome::Cancelled => 130,
        Outcome::TransportLost => 1,
    };
    match outcome {
        Outcome::TimedOut => crate::view::note("its time was over"),
        Outcome::OutOfMemory => crate::view::note("the sandbox's memory was used up"),
        Outcome::OutOfDisk => crate::view::note("the workspace would hold more than it may (resources.disk)"),
        Outcome::TransportLost => crate::view::note("the sandbox was lost"),
        _ => {}
    }
    ExitCode::from(code)
}

fn variables(all: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    let split = |one: &String| {
        let (name, value) = one
            .split_once('=')
            .ok_or_else(|| CommandError::input(format!("--env {one}: write it as NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    all.iter().map(split).collect()
}
