//! The embedded store: one SQLite file in WAL mode, shared by all processes of a machine.
//!
//! One connection writes (see `writer`); reads go to a few others and never wait for it. Chosen over a connection for
//! each caller: those would queue for SQLite's one write lock, by sleeping.

mod accounts;
mod folder;
mod locks;
mod schema;
mod tables;
mod trouble;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use self::locks::{Lock, Locks};
use self::trouble::{Home, Trouble};
use self::writer::Writer;
use crate::chain;
use crate::{
    Amounts, Append, BoxFuture, Claim, Durability, Holding, Journal, JournalError, Record, RunId, RunRow,
};

/// Reads at one time.
const READERS: usize = 4;

/// A journal in a file.
///
/// Dropping it finishes the appends that were accepted. A future of [`Journal::append`] that is dropped before it
/// answers may or may not have appended.
///
/// ```
/// # tokio::runtime::Builder::new_multi_thread().build()?.block_on(async {
/// use mooring_journal::{Append, Durability, Event, Journal, RunId, SqliteJournal, Stamped, event::CancelRequested};
///
/// let dir = tempfile::tempdir()?;
/// let journal = SqliteJournal::open(&dir.path().join("journal.db"))?;
/// let run = RunId("0198c5e7".to_owned());
/// let claim = journal.create(&run, 1_700_000_000_000, "an example").await?;
/// let event = Event::CancelRequested(CancelRequested { by: "user".to_owned() });
/// let append = Append {
///     run: run.clone(),
///     epoch: claim.epoch,
///     after: claim.last_seq,
///     events: vec![Stamped { at_ms: 1_700_000_000_001, event }].into(),
///     summary: None,
///     durability: Durability::Power,
/// };
/// assert_eq!(journal.append(append).await?, 1);
/// assert_eq!(journal.read(&run, 0, 100).await?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SqliteJournal {
    home: Arc<Home>,
    locks: Locks,
    readers: Arc<Readers>,
    // Last: the connection that writes closes after those that read, and folds the log into the file.
    writer: Writer,
}

impl SqliteJournal {
    /// Opens the journal in the file `path`, or makes it; its directory must exist. Drivers' locks are kept in
    /// `locks` beside it. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`JournalError::Store`] where the file cannot be a journal: a directory, another program's file, one of a
    /// newer version, damaged, or out of reach. [`JournalError::Full`] where there is no space to make it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let home = Arc::new(Home::new(path)?);
        let conn = schema::open_writer(&home)?;
        Ok(Self {
            locks: Locks::new(home.clone()),
            readers: Arc::new(Readers {
                home: home.clone(),
                idle: Mutex::default(),
                permits: Semaphore::new(READERS),
            }),
            writer: Writer::start(conn, home.clone())?,
            home,
        })
    }

    /// Work in the write transaction that no power failure needs to spare: after one, no driver lives.
    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection, &Home) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, JournalError> {
        let home = self.home.clone();
        self.writer.run(Durability::Process, move |conn| work(conn, &home)).await
    }

    /// Work in the write transaction that a power failure must not undo: money was spent on its word.
    async fn write_safely<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection, &Home) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, JournalError> {
        let home = self.home.clone();
        self.writer.run(Durability::Power, move |conn| work(conn, &home)).await
    }

    /// Runs `work`, which blocks, with a connection that reads.
    async fn query<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &Home) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, JournalError> {
        let readers = self.readers.clone();
        // Never closed, so never an error.
        let _permit = self.readers.permits.acquire().await;
        self.block(move || readers.with(work)).await
    }

    async fn lock(&self, run: &RunId, owner: &str) -> Result<Lock, JournalError> {
        let (locks, run, owner) = (self.locks.clone(), run.clone(), owner.to_owned());
        self.block(move || locks.take(&run, &owner)).await
    }

    async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| self.home.failed(format!("a thread that read it has ended: {error}")))?
    }
}

impl Journal for SqliteJournal {
    fn create<'a>(
        &'a self,
        run: &'a RunId,
        at_ms: i64,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Claim, JournalError>> {
        Box::pin(async move {
            chain::check_run_id(run, &self.home.name)?;
            let id = run.clone();
            // Before the lock too: that a run exists says more than that it is driven.
            if self.query(move |conn, _| tables::exists(conn, &id)).await? {
                return Err(self.home.exists(run));
            }
            let lock = self.lock(run, owner).await?;
            let id = run.clone();
            self.write(move |conn, home| tables::create(conn, home, &id, at_ms)).await?;
            Ok(Claim { epoch: 1, last_seq: 0, guard: Box::new(lock) })
        })
    }

    fn claim<'a>(&'a self, run: &'a RunId, owner: &'a str) -> BoxFuture<'a, Result<Claim, JournalError>> {
        Box::pin(async move {
            let id = run.clone();
            if !self.query(move |conn, _| tables::exists(conn, &id)).await? {
                return Err(self.home.unknown(run));
            }
            chain::check_run_id(run, &self.home.name)?;
            let lock = self.lock(run, owner).await?;
            let id = run.clone();
            let (epoch, last_seq) =
                self.write(move |conn, home| tables::raise_epoch(conn, home, &id)).await?;
            Ok(Claim { epoch, last_seq, guard: Box::new(lock) })
        })
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async move {
            let Append { run, epoch, after, events, summary, durability } = append;
            // Here, not in the thread that writes: callers encode side by side.
            let encode =
                |event: &crate::Stamped| Ok((event.at_ms, chain::encode(&event.event, &self.home.name)?));
            let events = events.iter().map(encode).collect::<Result<_, JournalError>>()?;
            let encoded = tables::Encoded { run, epoch, after, events, summary };
            let home = self.home.clone();
            self.writer.run(durability, move |conn| tables::append(conn, &home, &encoded)).await
        })
    }

    fn read<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        let run = run.clone();
        Box::pin(self.query(move |conn, home| tables::read(&conn.transaction()?, home, &run, after, limit)))
    }

    fn runs<'a>(&'a self, run: Option<&'a RunId>) -> BoxFuture<'a, Result<Vec<RunRow>, JournalError>> {
        let (run, locks) = (run.cloned(), self.locks.clone());
        Box::pin(self.query(move |conn, home| {
            let mut rows = tables::list(conn, home, run.as_ref())?;
            let candidates = locks.candidates()?;
            for row in &mut rows {
                row.driven = candidates.contains(&row.id) && locks.is_held(&row.id)?;
            }
            Ok(rows)
        }))
    }

    fn signal<'a>(&'a self, run: &'a RunId, word: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        let (run, word) = (run.clone(), word.to_owned());
        Box::pin(self.write(move |conn, home| tables::add_signal(conn, home, &run, &word)))
    }

    fn signals<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Vec<String>, JournalError>> {
        let run = run.clone();
        Box::pin(async move {
            // Asked often and hardly ever with something to take: a look that locks nothing goes first, and is too
            // short to be worth another thread.
            if !self.readers.with(|conn, home| tables::has_signals(conn, home, &run))? {
                return Ok(Vec::new());
            }
            self.write(move |conn, home| tables::take_signals(conn, home, &run)).await
        })
    }

    fn reserve<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        want: &'a Amounts,
        limit: &'a Amounts,
    ) -> BoxFuture<'a, Result<Amounts, JournalError>> {
        let (account, holder) = (account.to_owned(), holder.clone());
        let (want, limit) = (want.clone(), limit.clone());
        Box::pin(
            self.write_safely(move |conn, home| {
                accounts::reserve(conn, home, &account, &holder, &want, &limit)
            }),
        )
    }

    fn settle<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        spent: &'a Amounts,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        let (account, holder, spent) = (account.to_owned(), holder.clone(), spent.clone());
        Box::pin(self.write_safely(move |conn, _| accounts::hold(conn, &account, &holder, false, &spent)))
    }

    fn holdings(&self) -> BoxFuture<'_, Result<Vec<Holding>, JournalError>> {
        Box::pin(self.query(|conn, home| accounts::list(conn, home, None)))
    }
}

/// Connections that read, opened when needed.
#[derive(Debug)]
struct Readers {
    home: Arc<Home>,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection, &Home) -> Result<T, Trouble>,
    ) -> Result<T, JournalError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let result = (|| {
            let mut conn = match idle {
                Some(conn) => conn,
                None => schema::open_reader(&self.home)?,
            };
            let done = work(&mut conn, &self.home);
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            done
        })();
        result.map_err(|trouble| self.home.explain(trouble))
    }
}
