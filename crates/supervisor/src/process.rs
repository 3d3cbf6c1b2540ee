//! One command's life: its streams, its output, its deadline, its end.
//!
//! A command has ended when its main process has, and its output has: at end of file, or, where something in the
//! background holds the pipes, after a short silence. Stopping one is polite for a moment (SIGTERM to its group),
//! then final (SIGKILL to everything below its reaper, until nothing is left).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mooring_sandbox::{Outcome, Stream, TtySize};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::termios::Winsize;

use crate::exec::{STATUS_SIZE, Status};
use crate::kill::kill_below;
use crate::log::Log;
use crate::sys::Stage;
use crate::wire::Failure;

/// How long a command may go on after SIGTERM.
const GRACE: Duration = Duration::from_millis(200);
/// Between two rounds of killing.
const ROUND: Duration = Duration::from_millis(5);
/// Killing that lasts longer is lost: the sandbox ends, and the kernel kills all of it.
const HOPELESS: Duration = Duration::from_secs(10);
/// After the main process ended, output is waited for until this long a silence …
const SILENCE: Duration = Duration::from_millis(50);
/// … and no longer than this.
const DRAIN: Duration = Duration::from_millis(250);
/// How much standard input may wait for a command to read it.
const INPUT_LIMIT: usize = 4 << 20;
/// What a terminal takes as the end of input.
const END_OF_INPUT: u8 = 4;

/// Where a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody wants its end.
    Running,
    /// It was asked to end.
    Asked { until: Instant },
    /// It is being killed.
    Killing { since: Instant, next: Instant },
}

/// A reader that waits for output.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) request: u64,
    pub(crate) after: u64,
    pub(crate) max: usize,
    pub(crate) until: Instant,
}

pub(crate) struct Process {
    pub(crate) command: String,
    /// Its reaper; `None` once that is gone, and everything below it.
    pub(crate) reaper: Option<Pid>,
    pub(crate) stdin: Option<Stdin>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) status: Option<OwnedFd>,
    pub(crate) log: Log,
    pub(crate) deadline: Option<Instant>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) waiters: Vec<Waiter>,
    /// Who waits for it to be gone.
    pub(crate) stop_requests: Vec<u64>,
    /// Who waits for it to start.
    pub(crate) start_request: Option<u64>,
    pub(crate) released: bool,
    /// The client for whose reading it waits.
    pub(crate) paced_by: Option<u64>,
    /// How many processes the memory limit had killed before.
    pub(crate) kills_before: u64,
    /// Whether how large its files may grow is limited.
    pub(crate) disk_limited: bool,
    phase: Phase,
    main: Option<Pid>,
    /// How the main process ended, and when.
    ended: Option<(Option<i32>, Instant)>,
    /// How its end is to be told, where it was stopped.
    forced: Option<Outcome>,
    last_output: Instant,
    /// When it went on last, after it had waited for its reader.
    resumed: Option<Instant>,
}

/// What is left to be written to a command.
pub(crate) struct Stdin {
    pub(crate) fd: OwnedFd,
    pub(crate) terminal: bool,
    pub(crate) queue: VecDeque<u8>,
    /// Close it when the queue is empty.
    pub(crate) last: bool,
}

/// What to tell whoever asked for a start.
pub(crate) type StartAnswer = (u64, Result<(), Failure>);

impl Process {
    pub(crate) fn new(command: String, reaper: Pid, limit: usize, now: Instant) -> Self {
        Self {
            command,
            reaper: Some(reaper),
            stdin: None,
            stdout: None,
            stderr: None,
            status: None,
            log: Log::new(limit),
            deadline: None,
            outcome: None,
            waiters: Vec::new(),
            stop_requests: Vec::new(),
            start_request: None,
            released: false,
            paced_by: None,
            kills_before: 0,
            disk_limited: false,
            phase: Phase::Running,
            main: None,
            ended: None,
            forced: None,
            last_output: now,
            resumed: None,
        }
    }

    /// Whether it waits for its reader.
    pub(crate) fn is_held(&self) -> bool {
        self.paced_by.is_some() && self.log.room() == 0
    }

    /// Its reader has all that came before this. Gives whether it waited for that, and goes on.
    pub(crate) fn was_read(&mut self, before: u64, now: Instant) -> bool {
        if self.paced_by.is_none() {
            return false;
        }
        let held = self.is_held();
        self.log.forget(before);
        self.resume_from(held, now)
    }

    /// Where its reader has gone, it goes on without: what comes is kept as far as there is room. Gives whether it waited
    /// for that reader.
    pub(crate) fn reader_gone(&mut self, client: u64, now: Instant) -> bool {
        let held = self.is_held();
        self.paced_by.take_if(|reader| *reader == client);
        self.resume_from(held, now)
    }

    fn resume_from(&mut self, held: bool, now: Instant) -> bool {
        let resumes = held && !self.is_held();
        if resumes {
            self.resumed = Some(now);
        }
        resumes
    }

    /// Reads what is there of a stream. Level-triggered: more is read when the loop comes round again, so that no
    /// command can hold up another.
    pub(crate) fn drain(&mut self, stream: Stream, buffer: &mut [u8], now: Instant) {
        let source = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(fd) = source else { return };
        let room = if self.paced_by.is_some() { self.log.room().min(buffer.len()) } else { buffer.len() };
        if room == 0 {
            return;
        }
        match rustix::io::read(&*fd, &mut buffer[..room]) {
            // EIO: a terminal that nothing has open any more.
            Ok(0) | Err(Errno::IO) => *source = None,
            Ok(count) => {
                self.log.push(stream, &buffer[..count]);
                self.last_output = now;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => {
                let note = format!("[output lost: {errno}]\n");
                self.log.push(Stream::Stderr, note.as_bytes());
                *source = None;
            }
        }
    }

    /// Reads what the reaper says.
    pub(crate) fn hear(&mut self, now: Instant) -> Option<StartAnswer> {
        let fd = self.status.as_ref()?;
        let mut bytes = [0; STATUS_SIZE];
        match rustix::io::read(fd, &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(STATUS_SIZE) => match Status::from_bytes(bytes)? {
                Status::Started(pid) => {
                    self.main = Some(pid);
                    self.start_request.take().map(|request| (request, Ok(())))
                }
                Status::Failed(stage, errno) => {
                    self.released = true;
                    let failure = self.start_failure(stage, Errno::from_raw_os_error(errno));
                    self.start_request.take().map(|request| (request, Err(failure)))
                }
                Status::Ended(status) => {
                    self.ended.get_or_insert((Some(status), now));
                    None
                }
            },
            _ => {
                self.status = None;
                // The reaper is gone without a word: somebody in the sandbox killed it, even before it could say
                // that the command runs.
                self.ended.get_or_insert((None, now));
                self.start_request.take().map(|request| (request, Ok(())))
            }
        }
    }

    fn start_failure(&self, stage: Stage, errno: Errno) -> Failure {
        let what = match stage {
            Stage::Session => "the new process",
            Stage::Terminal => "its terminal",
            Stage::Descriptors => "its standard streams",
            Stage::Identity => "its user",
            Stage::Directory => "its working directory",
            Stage::Program => "the program",
        };
        let hint = match (stage, errno) {
            (Stage::Program, Errno::NOEXEC) => "; a script needs a first line such as #!/bin/sh",
            (Stage::Session, Errno::AGAIN) => "; the sandbox's limit on processes is reached",
            _ => "",
        };
        let reason = format!("{what}: {}{hint}", std::io::Error::from(errno));
        Failure::Start { command: self.command.clone(), reason }
    }

    /// Whether it is being ended.
    pub(crate) fn is_stopping(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Asks the command to end, and sees to it.
    pub(crate) fn stop(&mut self, outcome: Outcome, now: Instant) {
        if self.ended.is_none() && self.outcome.is_none() {
            self.forced.get_or_insert(outcome);
        }
        if self.phase == Phase::Running {
            if let (Some(main), None) = (self.main, self.ended) {
                // Without a group to ask it is killed below.
                let _ = kill_process_group(main, Signal::TERM);
                // A stopped process hears nothing.
                let _ = kill_process_group(main, Signal::CONT);
            }
            self.phase = Phase::Asked { until: now + GRACE };
        }
    }

    /// Ends it without grace.
    pub(crate) fn kill(&mut self, now: Instant) {
        self.stop(Outcome::Cancelled, now);
        if matches!(self.phase, Phase::Asked { .. }) {
            self.phase = Phase::Killing { since: now, next: now };
        }
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<(), Errno> {
        match (self.main, self.ended) {
            (Some(main), None) => {
                let signal = Signal::from_named_raw(signal).ok_or(Errno::INVAL)?;
                kill_process_group(main, signal)
            }
            _ => Ok(()),
        }
    }

    /// Whether nothing of it runs any more and nothing more can come.
    pub(crate) fn is_gone(&self) -> bool {
        self.reaper.is_none() && self.outcome.is_some()
    }

    /// Moves on with time. Gives the moment to look again; an error means that the sandbox cannot be controlled.
    pub(crate) fn advance(
        &mut self,
        now: Instant,
        kills: impl Fn() -> u64,
    ) -> Result<Option<Instant>, String> {
        let mut next = None;
        let mut at = |moment: Instant| next = Some(next.map_or(moment, |other: Instant| other.min(moment)));
        if let (Some(deadline), Phase::Running, None) = (self.deadline, self.phase, self.ended) {
            if deadline <= now {
                self.stop(Outcome::TimedOut, now);
            } else {
                at(deadline);
            }
        }
        if let Phase::Asked { until } = self.phase {
            if until <= now {
                self.phase = Phase::Killing { since: now, next: now };
            } else if self.reaper.is_some() {
                at(until);
            }
        }
        if let (Phase::Killing { since, next: round }, Some(reaper)) = (self.phase, self.reaper) {
            let mut round = round;
            if round <= now {
                if now - since > HOPELESS {
                    return Err(format!("'{}' cannot be killed", self.command));
                }
                let left = kill_below(reaper).map_err(|error| format!("cannot read /proc: {error}"))?;
                if !left && now > since + ROUND {
                    // Nothing runs below it, yet it waits: it was stopped. Its zombies go with it.
                    let _ = kill_process(reaper, Signal::KILL);
                }
                round = now + ROUND;
                self.phase = Phase::Killing { since, next: round };
            }
            at(round);
        }
        if self.outcome.is_none()
            && let Some((status, since)) = self.ended
        {
            let since = self.resumed.map_or(since, |resumed| resumed.max(since));
            let quiet = self.last_output.max(since) + SILENCE;
            let until = quiet.min(since + DRAIN);
            let stopping = self.forced.is_some() && self.reaper.is_some();
            // What it said last is in a pipe yet.
            let held = self.forced.is_none() && self.is_held();
            let closed = self.stdout.is_none() && self.stderr.is_none();
            if !stopping && !held && (closed || until <= now) {
                self.outcome = Some(self.settle(status, kills() > self.kills_before));
            } else if !stopping && !held {
                at(until);
            }
        }
        Ok(next)
    }

    /// How it ended, as seen from outside.
    fn settle(&self, status: Option<i32>, memory_killed: bool) -> Outcome {
        if let Some(outcome) = self.forced {
            return outcome;
        }
        let outcome = match status {
            Some(status) if libc::WIFEXITED(status) => Outcome::Exited { code: libc::WEXITSTATUS(status) },
            Some(status) => Outcome::Signalled { signal: libc::WTERMSIG(status) },
            None => Outcome::Signalled { signal: libc::SIGKILL },
        };
        let too_large =
            [Outcome::Signalled { signal: libc::SIGXFSZ }, Outcome::Exited { code: 128 + libc::SIGXFSZ }];
        if self.disk_limited && too_large.contains(&outcome) {
            return Outcome::OutOfDisk;
        }
        // A shell reports its killed child as 137.
        let killed =
            [Outcome::Signalled { signal: libc::SIGKILL }, Outcome::Exited { code: 128 + libc::SIGKILL }];
        if memory_killed && killed.contains(&outcome) { Outcome::OutOfMemory } else { outcome }
    }

    /// Called when its reaper was reaped.
    pub(crate) fn reaper_gone(&mut self, now: Instant) -> Option<StartAnswer> {
        // What it said last may still be in the pipe.
        let mut answer = None;
        while self.status.is_some() {
            let before = (self.main, self.ended.is_some(), self.released);
            answer = answer.or(self.hear(now));
            if (self.main, self.ended.is_some(), self.released) == before && self.status.is_some() {
                break;
            }
        }
        self.reaper = None;
        self.status = None;
        self.ended.get_or_insert((None, now));
        answer
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        let refuse = |reason: &str| Failure::Invalid { reason: reason.into() };
        let stdin = self.stdin.as_mut().ok_or_else(|| refuse("the command's standard input is not open"))?;
        if stdin.last {
            return Err(refuse("the command's standard input was closed"));
        }
        if stdin.queue.len() + data.len() > INPUT_LIMIT {
            return Err(Failure::StdinFull);
        }
        stdin.queue.extend(data);
        self.feed();
        Ok(())
    }

    pub(crate) fn close_stdin(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            if stdin.terminal && !stdin.last {
                stdin.queue.push_back(END_OF_INPUT);
            }
            stdin.last = true;
            self.feed();
        }
    }

    /// Writes what standard input takes.
    pub(crate) fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !stdin.queue.is_empty() {
            match rustix::io::write(&stdin.fd, stdin.queue.as_slices().0) {
                Ok(count) => drop(stdin.queue.drain(..count)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // Nobody reads it any more; that is the command's own affair.
                Err(_) => {
                    self.stdin = None;
                    return;
                }
            }
        }
        if stdin.last && !stdin.terminal {
            self.stdin = None;
        }
    }

    pub(crate) fn resize(&self, size: TtySize) -> Result<(), Failure> {
        let terminal = self.stdin.as_ref().filter(|stdin| stdin.terminal);
        let Some(stdin) = terminal else {
            return Err(Failure::Invalid { reason: "the command has no terminal".into() });
        };
        set_size(&stdin.fd, size)
            .map_err(|errno| Failure::Invalid { reason: format!("cannot resize: {errno}") })
    }
}

pub(crate) fn set_size(terminal: &OwnedFd, size: TtySize) -> Result<(), Errno> {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}
