//! The store's file: its tables, its lock, and the list of snapshots.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, TransactionBehavior, params};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::SnapshotError;
use crate::tree::Digest;

/// The schema's version, in the file's own field for it.
const VERSION: i32 = 1;

/// How long to wait for others who write, or prune.
const PATIENCE: Duration = Duration::from_mins(2);

/// Small objects are many; a page that holds several keeps them together.
const TABLES: &str = "
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA page_size = 8192;
    PRAGMA journal_mode = WAL;
    BEGIN IMMEDIATE;
    CREATE TABLE object (digest BLOB PRIMARY KEY, size INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE snapshot (
        id TEXT PRIMARY KEY, root BLOB NOT NULL, session TEXT NOT NULL, manifest_digest TEXT NOT NULL,
        taken_ms INTEGER NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL, added_bytes INTEGER NOT NULL
    );
    CREATE TABLE seen (session TEXT PRIMARY KEY, data BLOB NOT NULL);
    PRAGMA user_version = 1;
    COMMIT;
";

/// Snapshots in a directory of this host. Cheap to clone; every method blocks unless it is `async`.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    conn: Mutex<Connection>,
}

/// What a snapshot is taken for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its id, chosen by the caller.
    pub id: String,
    /// Whether it takes the place of one that has its id, so that what a crash interrupted is simply done again. Else
    /// that is refused, and the other one stays.
    pub replaces: bool,
    /// SHA-256 of the workspace's manifest, hex.
    pub manifest_digest: String,
    /// When, in milliseconds since the Unix epoch.
    pub taken_ms: i64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// BLAKE3 over all that it holds, hex: two workspaces with the same files have the same one.
    pub digest: String,
    /// The sandbox session that it was taken of.
    pub session: String,
    /// SHA-256 of the workspace's manifest, hex.
    pub manifest_digest: String,
    /// When, in milliseconds since the Unix epoch.
    pub taken_ms: i64,
    /// Regular files.
    pub files: u64,
    /// Their bytes, holes included.
    pub bytes: u64,
    /// Bytes that it added to the store.
    pub added_bytes: u64,
    /// What the digest is of.
    #[serde(skip, default = "no_digest")]
    pub(crate) root: Digest,
}

impl Snapshot {
    /// What [`SnapshotStore::diff`] and [`SnapshotStore::restore_root`] take.
    pub fn root(&self) -> Digest {
        self.root
    }
}

fn no_digest() -> Digest {
    Digest([0; 32])
}

/// Why work in the store did not get done.
pub(crate) enum Trouble {
    Sqlite(rusqlite::Error),
    Snapshot(SnapshotError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<SnapshotError> for Trouble {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

impl SnapshotStore {
    /// Opens the store in `directory`, or makes it there.
    ///
    /// # Errors
    /// [`SnapshotError::Store`] where the file is out of reach, another program's, or a newer version's.
    pub fn open(directory: &Path) -> Result<Self, SnapshotError> {
        let failed = |reason: String| SnapshotError::Store { store: directory.display().to_string(), reason };
        // For its owner alone: it holds what agents wrote.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| failed(error.to_string()))?;
        let conn = connect(&directory.join("snapshots.db")).map_err(|error| failed(error.to_string()))?;
        let shared = Shared { directory: directory.to_owned(), conn: Mutex::new(conn) };
        let store = Self { shared: Arc::new(shared) };
        if store.version()? == 0 {
            // Whoever comes second finds the tables made.
            let _alone = store.lock(true)?;
            if store.version()? == 0 {
                store.with(|conn| Ok(conn.execute_batch(TABLES)?))?;
            }
        }
        match store.version()? {
            VERSION => Ok(store),
            newer => {
                Err(failed(format!("it was written by a newer version (form {newer}); use that version")))
            }
        }
    }

    fn version(&self) -> Result<i32, SnapshotError> {
        self.with(|conn| Ok(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?))
    }

    /// All snapshots, the newest first.
    pub fn list(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        self.with(|conn| {
            let mut query =
                conn.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshot ORDER BY taken_ms DESC, id"))?;
            Ok(query.query_map([], snapshot)?.collect::<Result<_, _>>()?)
        })
    }

    /// A snapshot by its id.
    ///
    /// # Errors
    /// [`SnapshotError::Unknown`].
    pub fn get(&self, id: &str) -> Result<Snapshot, SnapshotError> {
        let found = self.with(|conn| {
            let mut query = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshot WHERE id = ?1"))?;
            Ok(query.query_row(params![id], snapshot).optional()?)
        })?;
        found.ok_or_else(|| SnapshotError::Unknown { id: id.to_owned() })
    }

    /// Forgets a snapshot. What nothing else needs goes with the next [`SnapshotStore::prune`].
    ///
    /// # Errors
    /// [`SnapshotError::Unknown`].
    pub fn remove(&self, id: &str) -> Result<(), SnapshotError> {
        let removed =
            self.change(|conn| Ok(conn.execute("DELETE FROM snapshot WHERE id = ?1", params![id])?))?;
        if removed == 0 { Err(SnapshotError::Unknown { id: id.to_owned() }) } else { Ok(()) }
    }

    pub(crate) fn failed(&self, reason: impl Into<String>) -> SnapshotError {
        SnapshotError::Store { store: self.shared.directory.display().to_string(), reason: reason.into() }
    }

    /// Keeps others from pruning; `alone`, from everything. Goes with the file, and so with the process.
    pub(crate) fn lock(&self, alone: bool) -> Result<File, SnapshotError> {
        let path = self.shared.directory.join("lock");
        let mut options = fs_err::OpenOptions::new();
        let opened = options.create(true).truncate(false).write(true).open(path);
        let file = opened.map_err(|error| self.failed(error.to_string()))?.into_parts().0;
        let how = if alone {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        let began = Instant::now();
        loop {
            match rustix::fs::flock(&file, how) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Err(self.busy()),
                Err(error) => return Err(self.failed(error.to_string())),
            }
        }
    }

    /// Reads.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Trouble>,
    ) -> Result<T, SnapshotError> {
        let conn = self.shared.conn.lock().unwrap_or_else(PoisonError::into_inner);
        work(&conn).map_err(|trouble| self.explain(trouble))
    }

    /// Writes: all of `work` or nothing, and on the disk when it returns.
    pub(crate) fn change<T>(
        &self,
        work: impl Fn(&Connection) -> Result<T, Trouble>,
    ) -> Result<T, SnapshotError> {
        let mut conn = self.shared.conn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = || -> Result<T, Trouble> {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        changed().map_err(|trouble| self.explain(trouble))
    }

    fn busy(&self) -> SnapshotError {
        let store = self.shared.directory.display().to_string();
        SnapshotError::Busy { store, seconds: PATIENCE.as_secs() }
    }

    fn explain(&self, trouble: Trouble) -> SnapshotError {
        match trouble {
            Trouble::Snapshot(error) => error,
            Trouble::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => self.busy(),
                Some(ErrorCode::DiskFull) => {
                    self.failed("there is no space left; free some, or run `moor sandbox prune`")
                }
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    self.failed(format!("it is damaged ({error}); move it away to begin a new one"))
                }
                _ => self.failed(error.to_string()),
            },
        }
    }
}

pub(crate) const COLUMNS: &str = "id, root, session, manifest_digest, taken_ms, files, bytes, added_bytes";

fn snapshot(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    let root = Digest(row.get(1)?);
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Snapshot {
        id: row.get(0)?,
        digest: root.to_string(),
        session: row.get(2)?,
        manifest_digest: row.get(3)?,
        taken_ms: row.get(4)?,
        files: count(row.get(5)?),
        bytes: count(row.get(6)?),
        added_bytes: count(row.get(7)?),
        root,
    })
}

/// Records a snapshot, in the transaction that writes what it needs.
pub(crate) fn record(conn: &Connection, snapshot: &Snapshot, replaces: bool) -> Result<(), Trouble> {
    let conflict = if replaces { "REPLACE" } else { "IGNORE" };
    let recorded = conn.execute(
        &format!("INSERT OR {conflict} INTO snapshot ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        params![
            snapshot.id,
            snapshot.root.0,
            snapshot.session,
            snapshot.manifest_digest,
            snapshot.taken_ms,
            snapshot.files as i64,
            snapshot.bytes as i64,
            snapshot.added_bytes as i64,
        ],
    )?;
    match recorded {
        0 => Err(SnapshotError::Exists { id: snapshot.id.clone() }.into()),
        _ => Ok(()),
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(PATIENCE)?;
    // On the disk before a snapshot counts as taken.
    conn.pragma_update(None, "synchronous", "FULL")?;
    Ok(conn)
}
