//! The tools `exec_command` and `write_stdin`: commands in the sandbox, also ones that go on.
//!
//! Names, parameters, descriptions and result texts are the OpenAI Agents SDK's (MIT licence). What differs:
//! - Without `max_output_tokens`, output is cut to 10,000 tokens; the SDK does not cut it at all. No call gets more
//!   than 250,000.
//! - A call returns as soon as the command has ended. `yield_time_ms` is held between 250 and 30,000.
//! - A command without a terminal goes on in the same way after its call as one with a terminal.
//! - A command stays until it ends, is killed, or the run ends. At most 64 are kept; the output says which one went
//!   for a new one.
//! - A command that a signal ended shows 128 and the signal's number as its code, as a shell does, and says so. A
//!   command that its deadline, the memory limit or a cancellation ended is said in words.
//! - Output that is cut is kept whole in the workspace (see `spill`), and a line before `Output:` names the file.
//! - The chunk id comes from the call's key and the read's number, so that a call tried again has the same one.

use std::sync::Arc;
use std::time::Duration;

use mooring_model::{ToolKind, ToolSpec};
use mooring_sandbox::{CommandLine, ExecRequest, Outcome, SandboxError, Stdin, TtySize};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::processes::{Processes, Reading, Running};
use crate::spill::spill;
use crate::{BoxFuture, Effect, Tool, ToolContext, ToolInput, ToolResult, ToolStatus, arguments};

/// How long a call waits, in milliseconds.
const YIELD_MS: (u64, u64) = (250, 30_000);

/// Tokens of output where the model does not say.
const DEFAULT_TOKENS: u64 = 10_000;

/// Tokens of output, whatever the model says.
const MOST_TOKENS: u64 = 250_000;

/// The size of a terminal, as terminals have always had.
const TTY: TtySize = TtySize { rows: 24, cols: 80 };

/// The tool that starts commands.
#[derive(Debug)]
pub(crate) struct ExecCommand {
    processes: Arc<Processes>,
}

/// The tool that types into running commands and reads them on.
#[derive(Debug)]
pub(crate) struct WriteStdin {
    processes: Arc<Processes>,
}

/// Both, with one table of commands.
pub(crate) fn tools() -> (ExecCommand, WriteStdin) {
    let processes = Arc::new(Processes::default());
    (ExecCommand { processes: Arc::clone(&processes) }, WriteStdin { processes })
}

#[derive(Debug, Deserialize)]
struct ExecArguments {
    cmd: String,
    workdir: Option<String>,
    shell: Option<String>,
    #[serde(default = "yes")]
    login: bool,
    #[serde(default)]
    tty: bool,
    #[serde(default = "exec_yield_ms")]
    yield_time_ms: u64,
    max_output_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct WriteArguments {
    session_id: i64,
    #[serde(default)]
    chars: String,
    #[serde(default = "write_yield_ms")]
    yield_time_ms: u64,
    max_output_tokens: Option<u64>,
}

impl Tool for ExecCommand {
    fn spec(&self) -> ToolSpec {
        let optional = |title: &str, description: &str| {
            json!({
                "anyOf": [{ "type": "string" }, { "type": "null" }],
                "default": null,
                "description": description,
                "title": title,
            })
        };
        let parameters = json!({
            "properties": {
                "cmd": {
                    "description": "The command line to run.",
                    "minLength": 1,
                    "title": "Cmd",
                    "type": "string",
                },
                "workdir": optional(
                    "Workdir",
                    "Directory to run it in, relative to the workspace. Default: the workspace itself.",
                ),
                "shell": optional("Shell", "Shell to run it with. Default: bash, or sh where there is no bash."),
                "login": {
                    "default": true,
                    "description": "Start the shell as a login shell (-l). Default: true.",
                    "title": "Login",
                    "type": "boolean",
                },
                "tty": {
                    "default": false,
                    "description": "Run it in a terminal, so that write_stdin can type to it. Default: false, plain \
                                    pipes.",
                    "title": "Tty",
                    "type": "boolean",
                },
                "yield_time_ms": yield_time_schema(exec_yield_ms()),
                "max_output_tokens": max_output_tokens_schema(),
            },
            "required": ["cmd"],
            "title": "ExecCommandArgs",
            "type": "object",
        });
        ToolSpec {
            name: "exec_command".to_owned(),
            description:
                "Runs a shell command. Gives its output, and a session ID while it is still running."
                    .to_owned(),
            kind: ToolKind::Function { parameters, strict: false },
        }
    }

    fn effect(&self) -> Effect {
        Effect::AtMostOnce
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
        _prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async move {
            let call: ExecArguments = match arguments(input) {
                Ok(call) => call,
                Err(refusal) => return refusal,
            };
            if call.cmd.is_empty() || call.max_output_tokens == Some(0) {
                let field = if call.cmd.is_empty() { "cmd" } else { "max_output_tokens" };
                return ToolResult::failed(format!(
                    "Invalid tool arguments for {field}. Check the tool schema and try again."
                ));
            }
            let started = Instant::now();
            let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
            let (shell, cwd) = (given(call.shell), given(call.workdir));
            let mut request =
                ExecRequest::new(CommandLine::Shell { line: call.cmd, shell, login: call.login });
            request.cwd = cwd;
            if call.tty {
                request.tty = Some(TTY);
                request.stdin = Stdin::Open;
            }
            let process = match context.session.spawn(request).await {
                Ok(process) => process,
                Err(error) => return not_started(&error),
            };
            let running = Arc::new(Running::new(process, context.session.id(), call.tty));
            let note = self.processes.add(Arc::clone(&running)).await;
            let limits = (call.yield_time_ms, call.max_output_tokens);
            read(&self.processes, context, &running, limits, started, note).await
        })
    }
}

impl Tool for WriteStdin {
    fn spec(&self) -> ToolSpec {
        let parameters = json!({
            "properties": {
                "session_id": {
                    "description": "The session ID that exec_command gave.",
                    "title": "Session Id",
                    "type": "integer",
                },
                "chars": {
                    "default": "",
                    "description": "What to type; nothing to only read on.",
                    "title": "Chars",
                    "type": "string",
                },
                "yield_time_ms": yield_time_schema(write_yield_ms()),
                "max_output_tokens": max_output_tokens_schema(),
            },
            "required": ["session_id"],
            "title": "WriteStdinArgs",
            "type": "object",
        });
        ToolSpec {
            name: "write_stdin".to_owned(),
            description: "Types to a running command, and gives the output since the last look.".to_owned(),
            kind: ToolKind::Function { parameters, strict: false },
        }
    }

    fn effect(&self) -> Effect {
        Effect::AtMostOnce
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
        _prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async move {
            let call: WriteArguments = match arguments(input) {
                Ok(call) => call,
                Err(refusal) => return refusal,
            };
            if call.max_output_tokens == Some(0) {
                return ToolResult::failed(
                    "Invalid tool arguments for max_output_tokens. Check the tool schema and try again.",
                );
            }
            let started = Instant::now();
            let Some(running) = self.processes.find(call.session_id, context.session.id()) else {
                let text = format!("write_stdin failed: PTY session not found: {}", call.session_id);
                return no_stdin(context, started, &text);
            };
            let mut note = None;
            if !call.chars.is_empty() {
                if !running.tty {
                    return no_stdin(
                        context,
                        started,
                        "stdin is not available for this process. Start the command with `tty=true` in \
                         `exec_command` before using `write_stdin`.",
                    );
                }
                match running.write(call.chars).await {
                    Ok(()) => {}
                    Err(error) if error.session_lost() => {
                        self.processes.forget(&running).await;
                        return lost(&error);
                    }
                    // Most often the command has just ended; what it still said is worth reading.
                    Err(error) => note = Some(format!("Nothing was written: {error}.")),
                }
            }
            let limits = (call.yield_time_ms, call.max_output_tokens);
            read(&self.processes, context, &running, limits, started, note).await
        })
    }
}

/// Reads a command on and reports. `limits` are the time in milliseconds and the tokens that the model asked for.
async fn read(
    processes: &Processes,
    context: &ToolContext,
    running: &Running,
    (yield_time_ms, tokens): (u64, Option<u64>),
    started: Instant,
    note: Option<String>,
) -> ToolResult {
    let wait = Duration::from_millis(yield_time_ms.clamp(YIELD_MS.0, YIELD_MS.1));
    let tokens = tokens.unwrap_or(DEFAULT_TOKENS).min(MOST_TOKENS) as usize;
    let reading = match running.read(wait, tokens, context.progress.as_ref()).await {
        Ok(reading) => reading,
        Err(error) => {
            processes.forget(running).await;
            return lost(&error);
        }
    };
    if reading.outcome.is_some() {
        processes.forget(running).await;
    }
    report(context, running.process.id(), reading, started, note).await
}

async fn report(
    context: &ToolContext,
    id: u64,
    reading: Reading,
    started: Instant,
    note: Option<String>,
) -> ToolResult {
    let Reading { nth, cut, long, dropped, outcome } = reading;
    let mut lines = header(context, nth, started);
    lines.extend(
        outcome.map_or_else(|| format!("Process running with session ID {id}"), said).lines().map(Into::into),
    );
    lines.extend(cut.tokens.map(|tokens| format!("Original token count: {tokens}")));
    let mut details = json!({
        "outcome": outcome,
        "session_id": if outcome.is_none() { Some(id) } else { None },
        "omitted": cut.omitted + dropped,
    });
    if let Some(long) = long {
        let spilled = spill(context.session.as_ref(), &context.key, long, dropped).await;
        lines.push(spilled.line);
        details["output_file"] = json!(spilled.path);
    }
    lines.push("Output:".to_owned());
    lines.extend(note);
    lines.push(cut.text);
    let lost = outcome == Some(Outcome::TransportLost);
    ToolResult {
        status: if lost { ToolStatus::Failed } else { ToolStatus::Completed },
        details,
        session_lost: lost,
        ..ToolResult::text(lines.join("\n"))
    }
}

/// The SDK's form for input that cannot be written. The code is not that of any process, but models know the form.
fn no_stdin(context: &ToolContext, started: Instant, reason: &str) -> ToolResult {
    let mut lines = header(context, 0, started);
    lines.extend(["Process exited with code 1", "Output:", reason].map(str::to_owned));
    ToolResult::failed(lines.join("\n"))
}

fn header(context: &ToolContext, nth: u64, started: Instant) -> Vec<String> {
    let chunk = crate::hex(&Sha256::digest(format!("{}:{nth}", context.key))[..3]);
    vec![format!("Chunk ID: {chunk}"), format!("Wall time: {:.4} seconds", started.elapsed().as_secs_f64())]
}

fn said(outcome: Outcome) -> String {
    match outcome {
        Outcome::Exited { code } => format!("Process exited with code {code}"),
        Outcome::Signalled { signal } => {
            format!(
                "Process exited with code {}\nProcess was ended by signal {}",
                128 + signal,
                signal_name(signal)
            )
        }
        Outcome::TimedOut => "Process timed out: it and everything it started was killed".to_owned(),
        Outcome::OutOfMemory => "Process ran out of memory: the sandbox's limit ended it".to_owned(),
        Outcome::OutOfDisk => {
            "Process ran out of disk space: the limit on the workspace ended it; remove files that are not needed"
                .to_owned()
        }
        Outcome::TransportLost => {
            "Process lost: the sandbox went away while it ran, and how far it came is not known".to_owned()
        }
        Outcome::Cancelled => "Process was cancelled: it and everything it started was killed".to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    // Linux numbers: a sandbox runs Linux, whatever this program runs on.
    let names = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM",
    ];
    let name = usize::try_from(signal - 1).ok().and_then(|index| names.get(index));
    name.map_or_else(|| signal.to_string(), |name| format!("{signal} (SIG{name})"))
}

fn not_started(error: &SandboxError) -> ToolResult {
    let reason = match error {
        SandboxError::PathEscape { .. } => {
            "Invalid workdir. Use a path within the workspace or an explicitly granted path.".to_owned()
        }
        error => format!("exec_command failed: {error}"),
    };
    ToolResult { session_lost: error.session_lost(), ..ToolResult::failed(reason) }
}

fn lost(error: &SandboxError) -> ToolResult {
    ToolResult {
        details: json!({ "outcome": Outcome::TransportLost, "session_id": null, "omitted": 0 }),
        session_lost: error.session_lost(),
        ..ToolResult::failed(format!(
            "The command's output cannot be read: {error}. The command was ended. Check what it did before you run it \
             again."
        ))
    }
}

fn yield_time_schema(default: u64) -> Value {
    json!({
        "default": default,
        "description": "How many milliseconds to wait for the command to end before giving what there is.",
        "minimum": 0,
        "title": "Yield Time Ms",
        "type": "integer",
    })
}

fn max_output_tokens_schema() -> Value {
    json!({
        "anyOf": [{ "minimum": 1, "type": "integer" }, { "type": "null" }],
        "default": null,
        "description": "The most tokens of output to give; more is cut in the middle.",
        "title": "Max Output Tokens",
    })
}

fn yes() -> bool {
    true
}

fn exec_yield_ms() -> u64 {
    10_000
}

fn write_yield_ms() -> u64 {
    250
}
