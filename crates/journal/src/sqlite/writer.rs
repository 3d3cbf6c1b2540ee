//! The connection that writes, and two ways to it.
//!
//! An append that needs no sync and finds the connection free is done on the caller's thread: some 30 µs of work on
//! the page cache. To wake another thread and be woken by it costs as much again, and an agent's turn waits for it.
//! All that can take long goes to one thread: syncs, waiting for another process, and whatever came while the
//! connection was busy. It takes all that waits into one transaction: group commit.
//!
//! Work that the journal's rules refuse has written nothing and does not disturb its neighbours. When SQLite fails,
//! the transaction is rolled back and each piece of work gets one of its own, so that each fails for itself alone.
//! Savepoints would do the same, at a cost to every append instead of to the failing ones.
//!
//! Power: `synchronous = FULL` for the transaction makes SQLite sync the log once, between writing the commit and
//! publishing it. `NORMAL` never syncs at a commit; what the operating system was given outlives the process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, FileControl};
use tokio::sync::{mpsc, oneshot};

use super::folder::Folder;
use super::schema::BUSY;
use super::trouble::{Home, Trouble};
use crate::{Durability, JournalError};

/// Work that may wait, and the most that one transaction takes.
const QUEUE: usize = 256;

/// Pages of the log not yet in the file from which on they are folded into it, beside the appends: 4 MiB.
const FOLD_AT: i64 = 1024;

/// Pages in the log from which on appends wait for that: 16 MiB. The log starts over only where all of it has been
/// folded, which appends without a pause keep from happening.
const STOP_AT: i64 = 4 * FOLD_AT;

/// How long appends wait at most while somebody else folds a log that is too long.
const FOLD_WAIT: Duration = Duration::from_secs(5);

/// Transactions between two looks at the log's length.
const LOOK_EVERY: u32 = 32;

/// The way to the connection. Ends the thread, after all accepted work, when dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    home: Arc<Home>,
    side: Mutex<Side>,
    /// Work that is on its way to the thread or being done by it. While there is any, nobody overtakes it.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Side {
    // First: the connection that writes is the last to close, and folds what is left.
    folder: Folder,
    conn: Connection,
    /// Transactions since the last look at the log's length.
    since_look: u32,
    /// Whether appends must wait until it is folded.
    log_is_too_long: bool,
}

impl Writer {
    pub(crate) fn start(conn: Connection, home: Arc<Home>) -> Result<Self, JournalError> {
        let folder = Folder::start(&home)?;
        let side = Mutex::new(Side { folder, conn, since_look: 0, log_is_too_long: false });
        let shared = Arc::new(Shared { home, side, waiting: AtomicUsize::new(0) });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn({
            let shared = shared.clone();
            move || serve(&shared, jobs)
        });
        match thread {
            Ok(thread) => Ok(Self { shared, queue: Some(queue), thread: Some(thread) }),
            Err(error) => Err(shared.home.failed(format!("its thread could not be started: {error}"))),
        }
    }

    /// Does `work` in a transaction and answers after the commit. `work` may be called again after a rollback.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnMut(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Work { run: work, durability, done: None, reply });
        let left = if durability == Durability::Process { self.try_here(job) } else { Some(job) };
        if let Some(job) = left {
            self.send(job).await?;
        }
        answer.await.map_err(|_| self.ended())?
    }

    /// Does the work on this thread if that cannot take long; gives it back otherwise.
    fn try_here(&self, mut job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        if self.shared.waiting.load(Ordering::Acquire) > 0 {
            return Some(job);
        }
        let Ok(mut side) = self.shared.side.try_lock() else { return Some(job) };
        match side.transact(&self.shared.home, std::slice::from_mut(&mut job), Duration::ZERO) {
            Err(Failure::Busy(_)) => return Some(job),
            result => job.answer(result.map_err(Failure::into_error)),
        }
        side.look();
        if side.log_is_too_long {
            drop(side);
            // A full queue is as good: it wakes the thread too.
            self.shared.waiting.fetch_add(1, Ordering::AcqRel);
            let nudge = self.queue.as_ref().map(|queue| queue.try_send(Box::new(Nudge)));
            if !matches!(nudge, Some(Ok(()))) {
                self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            }
        }
        None
    }

    async fn send(&self, job: Box<dyn Job>) -> Result<(), JournalError> {
        let queue = self.queue.as_ref().ok_or_else(|| self.ended())?;
        let permit = queue.reserve().await.map_err(|_| self.ended())?;
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        permit.send(job);
        Ok(())
    }

    fn ended(&self) -> JournalError {
        self.shared.home.failed("its thread has ended; start the program again")
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

/// Wakes the thread, which then folds the log.
struct Nudge;

impl Job for Nudge {
    fn durability(&self) -> Durability {
        Durability::Process
    }

    fn work(&mut self, _: &Connection) -> Result<(), rusqlite::Error> {
        Ok(())
    }

    fn answer(self: Box<Self>, _: Result<(), JournalError>) {}
}

fn serve(shared: &Shared, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut batch = Vec::with_capacity(QUEUE);
    while let Some(first) = jobs.blocking_recv() {
        batch.push(first);
        let mut side = shared.lock();
        while batch.len() < QUEUE
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        let taken = batch.len();
        side.commit(&shared.home, &mut batch);
        side.look();
        // After the answers: nobody waits for it but who comes meanwhile.
        side.fold();
        shared.waiting.fetch_sub(taken, Ordering::AcqRel);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Side {
    /// Does all of the batch in one transaction, or, where that fails, each in its own.
    fn commit(&mut self, home: &Home, batch: &mut Vec<Box<dyn Job>>) {
        let together = self.transact(home, batch, BUSY);
        let alone = batch.len() > 1 && matches!(together, Err(Failure::Work(_)));
        for mut job in batch.drain(..) {
            let committed = if alone {
                self.transact(home, std::slice::from_mut(&mut job), BUSY)
            } else {
                together.clone()
            };
            job.answer(committed.map_err(Failure::into_error));
        }
    }

    fn transact(
        &mut self,
        home: &Home,
        jobs: &mut [Box<dyn Job>],
        patience: Duration,
    ) -> Result<(), Failure> {
        self.since_look += 1;
        let conn = &self.conn;
        check_unmoved(conn, home)?;
        let power = jobs.iter().any(|job| job.durability() == Durability::Power);
        let begin = || {
            conn.busy_timeout(patience)?;
            if power {
                conn.execute_batch("PRAGMA synchronous = FULL")?;
            }
            conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])
        };
        let result = match begin() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Err(Failure::Busy(home.sqlite(&error)))
            }
            Err(error) => Err(Failure::Start(home.sqlite(&error))),
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

    /// Looks at the log's length, now and then.
    fn look(&mut self) {
        if self.since_look < LOOK_EVERY {
            return;
        }
        self.since_look = 0;
        let pages = self.conn.prepare_cached("PRAGMA wal_checkpoint(NOOP)").and_then(|mut look| {
            look.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        });
        // Where it cannot be told, an attempt does no harm.
        let (pages, folded) = pages.unwrap_or((FOLD_AT, 0));
        self.log_is_too_long = pages >= STOP_AT;
        if pages - folded >= FOLD_AT {
            self.folder.nudge();
        }
    }

    /// Folds the log while no append can come between. While another thread or process folds it, this waits; what
    /// fails or takes too long is left for the next time.
    fn fold(&mut self) {
        if !self.log_is_too_long {
            return;
        }
        self.log_is_too_long = false;
        let until = Instant::now() + FOLD_WAIT;
        loop {
            let busy = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, bool>(0));
            if !matches!(busy, Ok(true)) || Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Why a transaction did not happen.
#[derive(Clone)]
enum Failure {
    /// Another process writes.
    Busy(JournalError),
    /// No transaction can be had.
    Start(JournalError),
    /// Something in it, or its commit, failed.
    Work(JournalError),
}

impl Failure {
    fn into_error(self) -> JournalError {
        match self {
            Failure::Busy(error) | Failure::Start(error) | Failure::Work(error) => error,
        }
    }
}

/// Writes to a file that was deleted succeed and are lost. One `stat` a transaction tells.
fn check_unmoved(conn: &Connection, home: &Home) -> Result<(), Failure> {
    let mut moved = 0;
    conn.file_control(Some("main"), FileControl::HasMoved(&mut moved))
        .map_err(|error| Failure::Start(home.sqlite(&error)))?;
    if moved == 0 {
        return Ok(());
    }
    let reason = "the file was moved or deleted while in use; put it back, then start the program again";
    Err(Failure::Start(home.failed(reason)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema::open_writer;

    type Answer = oneshot::Receiver<Result<i64, JournalError>>;

    fn side() -> (tempfile::TempDir, Arc<Home>, Side) {
        let dir = tempfile::tempdir().unwrap();
        let home = Arc::new(Home::new(&dir.path().join("journal.db")).unwrap());
        let conn = open_writer(&home).unwrap();
        conn.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT").unwrap();
        let folder = Folder::start(&home).unwrap();
        (dir, home, Side { folder, conn, since_look: 0, log_is_too_long: false })
    }

    fn job(work: impl FnMut(&Connection) -> Result<i64, Trouble> + Send + 'static) -> (Box<dyn Job>, Answer) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Work { run: work, durability: Durability::Process, done: None, reply }), answer)
    }

    fn insert(n: i64) -> (Box<dyn Job>, Answer) {
        job(move |conn| Ok(conn.execute("INSERT INTO t VALUES (?1)", [n]).map(|_| n)?))
    }

    /// Commits a group; gives what each was told, and what is in the table.
    fn group(jobs: Vec<(Box<dyn Job>, Answer)>) -> (Vec<Result<i64, String>>, Vec<i64>) {
        let (_dir, home, mut side) = side();
        let (mut batch, answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        side.commit(&home, &mut batch);
        let told = answers.into_iter().map(|mut answer| answer.try_recv().unwrap());
        let told = told.map(|told| told.map_err(|error| error.to_string())).collect();
        let mut rows = side.conn.prepare("SELECT n FROM t ORDER BY n").unwrap();
        (told, rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap())
    }

    #[test]
    fn a_refusal_disturbs_nobody() {
        let refused = job(|_| {
            let reason = "refused".to_owned();
            Err(Trouble::Refused(JournalError::Store { store: "x".to_owned(), reason }))
        });
        let (told, rows) = group(vec![insert(1), refused, insert(2)]);
        assert_eq!(told, [Ok(1), Err("the journal x failed: refused".to_owned()), Ok(2)]);
        assert_eq!(rows, [1, 2]);
    }

    #[test]
    fn who_fails_fails_alone_and_leaves_nothing() {
        let fails = job(|conn| {
            conn.execute("INSERT INTO t VALUES (7)", [])?;
            conn.execute("INSERT INTO t VALUES (1)", [])?;
            Ok(7)
        });
        let (told, rows) = group(vec![insert(1), fails, insert(2)]);
        assert_eq!((&told[0], &told[2]), (&Ok(1), &Ok(2)));
        assert!(told[1].as_ref().is_err_and(|error| error.contains("UNIQUE")), "{told:?}");
        assert_eq!(rows, [1, 2]);
    }

    #[test]
    fn while_another_process_writes_nothing_is_done_here() {
        let (_dir, home, mut side) = side();
        let other = Connection::open(&home.path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (mut job, _answer) = insert(1);
        let told = side.transact(&home, std::slice::from_mut(&mut job), Duration::ZERO);
        assert!(matches!(told, Err(Failure::Busy(_))));
        other.execute_batch("COMMIT").unwrap();
        assert!(side.transact(&home, std::slice::from_mut(&mut job), Duration::ZERO).is_ok());
    }
}
