//! Commands: how one is asked for, how its output is read, how it ends.
//!
//! Output is addressed by a cursor instead of being pushed: whoever reads may stop, reconnect or never come, and
//! neither the command nor memory suffers. What was dropped is counted, never silently missing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BoxFuture, SandboxError};

/// How a command ended. The same on every backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    /// It ended by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: i32,
    },
    /// A signal that nobody here sent ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// Its deadline passed; it and everything it started was killed.
    TimedOut,
    /// The sandbox's memory limit ended it.
    OutOfMemory,
    /// The limit on what the workspace may hold ended it.
    OutOfDisk,
    /// The sandbox was lost while it ran; how far it came is not known.
    TransportLost,
    /// It was cancelled; it and everything it started was killed.
    Cancelled,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandLine {
    /// A program and its arguments, without a shell. The program is looked up in the sandbox's `PATH`.
    Argv(Vec<String>),
    /// A line for a shell.
    Shell {
        /// The line.
        line: String,
        /// The shell's program; `None`: `bash` where the sandbox has it, else `sh`.
        shell: Option<String>,
        /// Read the login profile (`-lc` instead of `-c`).
        login: bool,
    },
}

/// What a command reads from standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing: end of file at once.
    #[default]
    Null,
    /// These bytes, then end of file.
    Bytes(Bytes),
    /// What is sent with [`Process::write_stdin`].
    Open,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

impl Default for TtySize {
    fn default() -> Self {
        Self { rows: 24, cols: 80 }
    }
}

/// A command to run in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// What to run.
    pub command: CommandLine,
    /// Working directory: absolute in the sandbox, or relative to the workspace root. `None`: the root.
    pub cwd: Option<String>,
    /// Variables on top of the sandbox's own and the manifest's.
    pub env: BTreeMap<String, String>,
    /// The user to run as; `None`: the session's default user.
    pub user: Option<String>,
    /// Standard input. With a terminal, `Null` means a terminal that nobody types at.
    pub stdin: Stdin,
    /// Run in a terminal of this size. Standard output and error are one stream then.
    pub tty: Option<TtySize>,
    /// The command's deadline, kept inside the sandbox. `None`: until the session ends.
    pub timeout: Option<Duration>,
    /// How many bytes of output are kept for a reader, both streams together. Beyond it the oldest goes, except
    /// for the first half of this, which always stays.
    pub output_limit: usize,
    /// Whether the command waits for its reader instead, as it would in a pipe: nothing is dropped that was not read, and
    /// what was read is not kept. When the client that started it goes, it goes on by itself.
    pub paced: bool,
}

/// The default of [`ExecRequest::output_limit`]: 1 MiB.
pub const OUTPUT_LIMIT: usize = 1 << 20;

impl ExecRequest {
    /// A command by its arguments, with everything else at its default.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(CommandLine::Argv(argv.into_iter().map(Into::into).collect()))
    }

    /// A shell line, not a login shell, with everything else at its default.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(CommandLine::Shell { line: line.into(), shell: None, login: false })
    }

    /// A command with everything else at its default.
    pub fn new(command: CommandLine) -> Self {
        Self {
            command,
            cwd: None,
            env: BTreeMap::new(),
            user: None,
            stdin: Stdin::Null,
            tty: None,
            timeout: None,
            output_limit: OUTPUT_LIMIT,
            paced: false,
        }
    }

    /// The same with a deadline.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The same in another directory.
    pub fn cwd(mut self, cwd: impl Into<String>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }
}

/// Which stream a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A place in a command's output: how many bytes came before it, both streams together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor(pub u64);

/// Some bytes of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPiece {
    /// Where it starts.
    pub at: Cursor,
    /// Which stream.
    pub stream: Stream,
    /// The bytes.
    pub data: Bytes,
}

/// What a read of output gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// In order of arrival. A gap between two pieces was dropped.
    pub pieces: Vec<OutputPiece>,
    /// Where to read on.
    pub next: Cursor,
    /// Set once the command has ended and this chunk reaches the end of its output.
    pub outcome: Option<Outcome>,
}

/// A running or ended command.
pub trait Process: Send + Sync + std::fmt::Debug {
    /// Its number in the session; never used twice in one.
    fn id(&self) -> u64;

    /// Output from `after` on, at most about `max_bytes`. Waits up to `wait` for some to come or for the end.
    fn output(
        &self,
        after: Cursor,
        max_bytes: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<OutputChunk, SandboxError>>;

    /// Sends bytes to standard input or the terminal.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] where standard input is not open.
    fn write_stdin(&self, data: Bytes) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Ends standard input.
    fn close_stdin(&self) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Changes the terminal's size.
    fn resize(&self, size: TtySize) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Sends a signal to the command's process group.
    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Kills the command and everything it started; its outcome is [`Outcome::Cancelled`] unless it had ended.
    fn cancel(&self) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Forgets the command, and its output with it. Kills it first where it still runs.
    fn release(&self) -> BoxFuture<'_, Result<(), SandboxError>>;
}

/// One stream's output, with what was too much left out of its middle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// What was kept.
    pub data: Vec<u8>,
    /// How many bytes were dropped, on both streams together.
    pub omitted: u64,
}

impl Captured {
    /// As text, with what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

/// A command that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// How it ended.
    pub outcome: Outcome,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
}

/// Reads a process to its end. [`crate::SandboxSession::exec`] is `spawn` and this.
///
/// `deadline` is the harness's own, beside the one in the sandbox: when it passes without an answer, the outcome
/// is [`Outcome::TransportLost`].
pub async fn collect(process: &dyn Process, deadline: Option<Duration>) -> Result<ExecResult, SandboxError> {
    let mut result = ExecResult {
        outcome: Outcome::TransportLost,
        stdout: Captured::default(),
        stderr: Captured::default(),
    };
    let reading = async {
        let mut cursor = Cursor::default();
        loop {
            let chunk = process.output(cursor, 256 << 10, Duration::from_secs(30)).await?;
            for piece in chunk.pieces {
                let lost = piece.at.0.saturating_sub(cursor.0);
                cursor = Cursor(piece.at.0 + piece.data.len() as u64);
                result.stdout.omitted += lost;
                result.stderr.omitted += lost;
                match piece.stream {
                    Stream::Stdout => result.stdout.data.extend_from_slice(&piece.data),
                    Stream::Stderr => result.stderr.data.extend_from_slice(&piece.data),
                }
            }
            cursor = chunk.next;
            if let Some(outcome) = chunk.outcome {
                result.outcome = outcome;
                return Ok(());
            }
        }
    };
    match deadline {
        None => reading.await?,
        Some(limit) => {
            if let Ok(read) = tokio::time::timeout(limit, reading).await {
                read?;
            }
        }
    }
    Ok(result)
}
