//! One thread owns the connection that writes. It takes all work that waits into one transaction: group commit.
//!
//! Work that the journal's rules refuse has written nothing and does not disturb its neighbours. When SQLite fails,
//! the transaction is rolled back and each piece of work gets one of its own, so that each fails for itself alone.
//! Savepoints would do the same, at a cost to every append instead of to the failing ones.
//!
//! Power: `synchronous = FULL` for the transaction makes SQLite sync the log once, between writing the commit and
//! publishing it. `NORMAL` never syncs at a commit; what the operating system was given outlives the process.

use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::{Connection, FileControl};
use tokio::sync::{mpsc, oneshot};

use super::trouble::{Home, Trouble};
use crate::{Durability, JournalError};

/// Work that may wait, and the most that one transaction takes.
const QUEUE: usize = 256;

/// The thread, and the way to it. Ends the thread, after all accepted work, when dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    home: Arc<Home>,
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(conn: Connection, home: Arc<Home>) -> Result<Self, JournalError> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn({
            let home = home.clone();
            move || serve(&conn, &home, jobs)
        });
        match thread {
            Ok(thread) => Ok(Self { home, queue: Some(queue), thread: Some(thread) }),
            Err(error) => Err(home.failed(format!("its thread could not be started: {error}"))),
        }
    }

    /// Does `work` in a transaction and answers after the commit. `work` may be called again after a rollback.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnMut(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Work { run: work, durability, done: None, reply });
        let ended = || self.home.failed("its thread has ended; start the program again");
        let queue = self.queue.as_ref().ok_or_else(ended)?;
        queue.send(job).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told its callers by hanging up.
            let _ = thread.join();
        }
    }
}

/// A piece of work, whatever it gives.
trait Job: Send {
    fn durability(&self) -> Durability;
    /// Fails only where the transaction must be rolled back.
    fn work(&mut self, conn: &Connection) -> Result<(), rusqlite::Error>;
    fn answer(self: Box<Self>, committed: Result<(), JournalError>);
}

struct Work<T, F> {
    run: F,
    durability: Durability,
    done: Option<Result<T, JournalError>>,
    reply: oneshot::Sender<Result<T, JournalError>>,
}

impl<T: Send, F: FnMut(&Connection) -> Result<T, Trouble> + Send> Job for Work<T, F> {
    fn durability(&self) -> Durability {
        self.durability
    }

    fn work(&mut self, conn: &Connection) -> Result<(), rusqlite::Error> {
        self.done = Some(match (self.run)(conn) {
            Ok(value) => Ok(value),
            Err(Trouble::Refused(error)) => Err(error),
            Err(Trouble::Sqlite(error)) => return Err(error),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), JournalError>) {
        let answer = match (committed, self.done) {
            (Err(error), _) => Some(Err(error)),
            (Ok(()), done) => done,
        };
        if let Some(answer) = answer {
            // Nobody waits any more: the caller was dropped.
            let _ = self.reply.send(answer);
        }
    }
}

fn serve(conn: &Connection, home: &Home, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut batch = Vec::with_capacity(QUEUE);
    while let Some(first) = jobs.blocking_recv() {
        batch.push(first);
        while batch.len() < QUEUE
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        commit(conn, home, &mut batch);
    }
}

/// Does all of the batch in one transaction, or, where that fails, each in its own.
fn commit(conn: &Connection, home: &Home, batch: &mut Vec<Box<dyn Job>>) {
    let together = transact(conn, home, batch);
    let alone = batch.len() > 1 && matches!(together, Err(Failure::Work(_)));
    for mut job in batch.drain(..) {
        let committed = match &together {
            _ if alone => transact(conn, home, std::slice::from_mut(&mut job)),
            Ok(()) => Ok(()),
            Err(failure) => Err(failure.clone()),
        };
        job.answer(committed.map_err(|failure| match failure {
            Failure::Start(error) | Failure::Work(error) => error,
        }));
    }
}

#[derive(Clone)]
enum Failure {
    /// No transaction could be had; none can be had for each alone either.
    Start(JournalError),
    /// Something in it, or its commit, failed.
    Work(JournalError),
}

fn transact(conn: &Connection, home: &Home, jobs: &mut [Box<dyn Job>]) -> Result<(), Failure> {
    let start = |error: rusqlite::Error| Failure::Start(home.sqlite(&error));
    check_unmoved(conn, home).map_err(Failure::Start)?;
    let power = jobs.iter().any(|job| job.durability() == Durability::Power);
    if power {
        conn.execute_batch("PRAGMA synchronous = FULL").map_err(start)?;
    }
    let result = match conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])) {
        Err(error) => Err(start(error)),
        Ok(_) => jobs
            .iter_mut()
            .try_for_each(|job| job.work(conn))
            .and_then(|()| conn.prepare_cached("COMMIT")?.execute([]).map(drop))
            .map_err(|error| Failure::Work(home.sqlite(&error))),
    };
    if !conn.is_autocommit() {
        // Where even this fails, the next BEGIN does too, and says so.
        let _ = conn.execute_batch("ROLLBACK");
    }
    if power {
        // Where this fails, later appends are synced as well: slower, not less safe.
        let _ = conn.execute_batch("PRAGMA synchronous = NORMAL");
    }
    result
}

/// Writes to a file that was deleted succeed and are lost. One `stat` a transaction tells.
fn check_unmoved(conn: &Connection, home: &Home) -> Result<(), JournalError> {
    let mut moved = 0;
    conn.file_control(Some("main"), FileControl::HasMoved(&mut moved))
        .map_err(|error| home.sqlite(&error))?;
    if moved == 0 {
        return Ok(());
    }
    Err(home.failed("the file was moved or deleted while in use; put it back, then start the program again"))
}
