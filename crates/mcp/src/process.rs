//! A server as a child process: in its own process group, with an environment of its own, and gone when it is dropped.
//!
//! The child is only waited for while its group is killed, never before: until then its number, which is the group's,
//! cannot go to another process.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::McpProblem;

/// How much of standard error is kept.
const STDERR_BYTES: usize = 8 * 1024;
/// How much of it is shown.
const SHOWN_LINES: usize = 10;
const SHOWN_CHARS: usize = 300;
/// How often a process is looked at while its end is awaited.
const LOOK: Duration = Duration::from_millis(10);
/// How long a server has to end by itself once its input is closed, then after SIGTERM, and after SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// A running server.
pub(crate) struct Process {
    child: Mutex<Child>,
    stderr: Arc<Mutex<Vec<u8>>>,
    drain: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a command whose program, arguments and environment are set.
    pub(crate) fn start(mut command: Command) -> Result<(Self, ChildStdout, ChildStdin), McpProblem> {
        let spawned = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let failed = |error| McpProblem::Start {
            command: command.as_std().get_program().to_string_lossy().into_owned(),
            cwd: command.as_std().get_current_dir().map(Into::into),
            error,
        };
        let mut child = spawned.map_err(failed)?;
        let pipes = (child.stdout.take(), child.stdin.take(), child.stderr.take());
        let mut process = Self { child: Mutex::new(child), stderr: Arc::default(), drain: None };
        let (Some(stdout), Some(stdin), Some(stderr)) = pipes else {
            return Err(failed(std::io::Error::other("it has no pipes")));
        };
        process.drain = Some(tokio::spawn(drain(stderr, process.stderr.clone())));
        Ok((process, stdout, stdin))
    }

    /// Kills its whole group. Quick, and harmless where it has ended.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Ends it: it had its input closed, and gets some time, then SIGTERM, then SIGKILL for the whole group.
    pub(crate) async fn stop(&self) -> Option<ExitStatus> {
        if !self.ends_within(GRACE).await {
            self.signal(Signal::SIGTERM);
            self.ends_within(GRACE).await;
        }
        self.reap().await
    }

    /// How it ended, where it does so on its own within the time. Its group is gone afterwards, one way or the other.
    pub(crate) async fn end(&self, within: Duration) -> Option<ExitStatus> {
        let ended = self.ends_within(within).await;
        let status = self.reap().await;
        // What it wrote last may still be in the pipe.
        let until = Instant::now() + within;
        while self.drain.as_ref().is_some_and(|drain| !drain.is_finished()) && Instant::now() < until {
            sleep(LOOK).await;
        }
        status.filter(|_| ended)
    }

    /// The last lines of its standard error, fit for a terminal.
    pub(crate) fn last_lines(&self) -> String {
        let bytes = lock(&self.stderr).clone();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(|line| {
            let shown = line.chars().filter(|character| !character.is_control());
            shown.take(SHOWN_CHARS).collect::<String>()
        });
        let lines: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    async fn ends_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            if self.has_ended() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    fn has_ended(&self) -> bool {
        let Some(pid) = pid(&lock(&self.child)) else { return true };
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive))
    }

    async fn reap(&self) -> Option<ExitStatus> {
        self.kill();
        self.ends_within(GRACE).await;
        lock(&self.child).try_wait().ok().flatten()
    }

    fn signal(&self, signal: Signal) {
        let child = lock(&self.child);
        if let Some(group) = pid(&child) {
            // An error says that nobody is left.
            let _ = killpg(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child itself is waited for by tokio.
        self.kill();
        if let Some(drain) = &self.drain {
            drain.abort();
        }
    }
}

/// The child's number, while it is still its own.
fn pid(child: &Child) -> Option<Pid> {
    Some(Pid::from_raw(i32::try_from(child.id()?).ok()?))
}

async fn drain(mut stderr: ChildStderr, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let mut kept = lock(&kept);
        kept.extend_from_slice(&buffer[..count]);
        let excess = kept.len().saturating_sub(STDERR_BYTES);
        kept.drain(..excess);
    }
}

/// What is behind these locks is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
