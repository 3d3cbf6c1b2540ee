//! The commands of one run that the shell tools started: a bounded table, and reading from it.
//!
//! Output is read by cursor, so that nothing is lost between two calls, and each stream has its own decoder, so that
//! a character that arrives in two parts is delivered whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{Cursor, Outcome, OutputChunk, Process, SandboxError, Stream};
use tokio::time::Instant;

use crate::spill::SPILL_TOKENS;
use crate::truncate::{Cut, Excerpt};

/// So many commands may be known at once.
const PROCESSES: usize = 64;

/// How much is read at once.
const READ: usize = 64 << 10;

/// How much longer than asked a read may take before the sandbox counts as lost.
const GRACE: Duration = Duration::from_secs(15);

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    /// Held while room is made for a new command, so that calls at once do not overfill the table.
    adding: tokio::sync::Mutex<()>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By session id, each with the time of its last use in calls.
    entries: BTreeMap<u64, (u64, Arc<Running>)>,
    calls: u64,
}

impl Processes {
    /// Adds a command, after making room for it. Says what went for it, if anything.
    pub(crate) async fn add(&self, running: Arc<Running>) -> Option<String> {
        let _one_at_a_time = self.adding.lock().await;
        let note = self.make_room().await;
        let mut table = self.lock();
        table.calls += 1;
        let calls = table.calls;
        table.entries.insert(running.process.id(), (calls, running));
        note
    }

    /// A command of this sandbox session, and marks it as used.
    pub(crate) fn find(&self, id: i64, session: &str) -> Option<Arc<Running>> {
        let mut table = self.lock();
        table.calls += 1;
        let calls = table.calls;
        let (used, running) = table.entries.get_mut(&u64::try_from(id).ok()?)?;
        // Another sandbox may give the same number to another command.
        if running.session != session {
            return None;
        }
        *used = calls;
        Some(Arc::clone(running))
    }

    /// Forgets a command, and ends it where it still runs.
    pub(crate) async fn forget(&self, running: &Running) {
        self.lock().entries.remove(&running.process.id());
        // A command that cannot be released goes with its session.
        tokio::time::timeout(GRACE, running.process.release()).await.ok();
    }

    async fn make_room(&self) -> Option<String> {
        let mut by_age: Vec<_> = self.lock().entries.values().cloned().collect();
        if by_age.len() < PROCESSES {
            return None;
        }
        by_age.sort_by_key(|(used, _)| *used);
        let mut ended = None;
        for (_, running) in &by_age {
            if running.has_ended().await {
                ended = Some(running);
                break;
            }
        }
        let gone = ended.or(by_age.first().map(|(_, running)| running))?;
        self.forget(gone).await;
        let id = gone.process.id();
        Some(if ended.is_some() {
            format!("Session {id} had ended and was forgotten: at most {PROCESSES} sessions are kept.")
        } else {
            format!(
                "Session {id} was cancelled: at most {PROCESSES} sessions are kept, and it was used least recently."
            )
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that was started.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Arc<dyn Process>,
    pub(crate) tty: bool,
    /// The id of the sandbox session that it runs in.
    session: String,
    reader: tokio::sync::Mutex<Reader>,
}

#[derive(Debug, Default)]
struct Reader {
    cursor: Cursor,
    reads: u64,
    stdout: Decoder,
    stderr: Decoder,
}

/// What one read gave.
#[derive(Debug)]
pub(crate) struct Reading {
    /// How many reads of this command came before.
    pub(crate) nth: u64,
    pub(crate) cut: Cut,
    /// The same with a far higher limit, where `cut` is not all of it.
    pub(crate) long: Option<Cut>,
    /// Bytes that the sandbox dropped before they were read.
    pub(crate) dropped: u64,
    /// Set where the command has ended.
    pub(crate) outcome: Option<Outcome>,
}

impl Running {
    pub(crate) fn new(process: Arc<dyn Process>, session: &str, tty: bool) -> Self {
        Self { process, tty, session: session.to_owned(), reader: tokio::sync::Mutex::default() }
    }

    /// Reads until the command ends or `wait` is over.
    pub(crate) async fn read(
        &self,
        wait: Duration,
        max_tokens: usize,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Reading, SandboxError> {
        let mut reader = self.reader.lock().await;
        let until = Instant::now() + wait;
        let mut excerpt = Excerpt::new(max_tokens);
        let mut long = Excerpt::new(SPILL_TOKENS);
        let mut show = |text: &str| {
            if !text.is_empty() {
                excerpt.push(text);
                long.push(text);
                progress(text);
            }
        };
        let mut dropped = 0;
        let outcome = loop {
            let left = until.saturating_duration_since(Instant::now());
            let chunk = self.chunk(reader.cursor, READ, left).await?;
            let silent = chunk.pieces.is_empty();
            for piece in chunk.pieces {
                let lost = piece.at.0.saturating_sub(reader.cursor.0);
                if lost > 0 {
                    dropped += lost;
                    show(&format!("\n[{lost} bytes of output are missing here: more came than is kept]\n"));
                }
                reader.cursor = Cursor(piece.at.0 + piece.data.len() as u64);
                let decoder = match piece.stream {
                    Stream::Stdout => &mut reader.stdout,
                    Stream::Stderr => &mut reader.stderr,
                };
                show(&decoder.decode(&piece.data));
            }
            reader.cursor = chunk.next;
            if chunk.outcome.is_some() {
                show(reader.stdout.finish());
                show(reader.stderr.finish());
                break chunk.outcome;
            }
            // A command that writes without pause does not keep the call beyond its time.
            if left.is_zero() || (silent && until <= Instant::now()) {
                break None;
            }
        };
        reader.reads += 1;
        let cut = excerpt.finish();
        let long = cut.tokens.map(|_| long.finish());
        Ok(Reading { nth: reader.reads - 1, cut, long, dropped, outcome })
    }

    /// Whether it has ended, read or not. One that is being read counts as running.
    async fn has_ended(&self) -> bool {
        let Ok(reader) = self.reader.try_lock() else { return false };
        let mut cursor = reader.cursor;
        // One that writes faster than this reads has not ended.
        for _ in 0..4 {
            match self.chunk(cursor, 1 << 20, Duration::ZERO).await {
                Ok(chunk) if chunk.outcome.is_some() => return true,
                Ok(chunk) if chunk.next > cursor => cursor = chunk.next,
                Ok(_) => return false,
                Err(_) => return true,
            }
        }
        false
    }

    async fn chunk(
        &self,
        after: Cursor,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<OutputChunk, SandboxError> {
        let read = self.process.output(after, max_bytes, wait);
        tokio::time::timeout(wait + GRACE, read).await.unwrap_or_else(|_| {
            Err(SandboxError::Deadline {
                operation: format!("read the output of session {}", self.process.id()),
                seconds: (wait + GRACE).as_secs(),
            })
        })
    }

    /// Types into the command.
    pub(crate) async fn write(&self, text: String) -> Result<(), SandboxError> {
        let write = self.process.write_stdin(Bytes::from(text));
        tokio::time::timeout(GRACE, write).await.unwrap_or_else(|_| {
            Err(SandboxError::Deadline {
                operation: format!("write to session {}", self.process.id()),
                seconds: GRACE.as_secs(),
            })
        })
    }
}

/// UTF-8 in pieces. What is no UTF-8 becomes U+FFFD; a character's first bytes wait for the rest.
#[derive(Debug, Default)]
struct Decoder {
    held: Vec<u8>,
}

impl Decoder {
    fn decode(&mut self, data: &[u8]) -> String {
        let bytes = [self.held.as_slice(), data].concat();
        self.held.clear();
        let mut text = String::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        while let Err(error) = std::str::from_utf8(rest) {
            let (valid, after) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(bad) = error.error_len() else {
                self.held = after.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &after[bad..];
        }
        text.push_str(&String::from_utf8_lossy(rest));
        text
    }

    /// What is left when no more comes.
    fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.held).is_empty() { "" } else { "\u{fffd}" }
    }
}
