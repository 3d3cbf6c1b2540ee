//! Objects: bytes under their digest, put together and written in few transactions.
//!
//! Whoever writes holds the store's lock in its shared form until the snapshot that needs the objects is recorded;
//! pruning takes it alone. So nothing that was found or put is removed before somebody owns it.

use std::collections::HashSet;
use std::fs::File;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::SnapshotError;
use crate::store::{SnapshotStore, Trouble};
use crate::tree::{Content, Data, Digest, Entry, decode, encode};

/// How much is held in memory before it is written.
const BATCH: usize = 32 << 20;

/// A quick level: most of a workspace is written once and read seldom.
const LEVEL: i32 = 1;

/// No object is larger: pieces of files have at most 1 MiB, and a directory of a million entries about 100.
const MAX_OBJECT: usize = 512 << 20;

/// Reads objects.
pub(crate) struct Reader<'s> {
    pub(crate) store: &'s SnapshotStore,
    _lock: File,
}

impl<'s> Reader<'s> {
    pub(crate) fn new(store: &'s SnapshotStore) -> Result<Self, SnapshotError> {
        Ok(Self { store, _lock: store.lock(false)? })
    }

    /// One that nobody writes beside.
    pub(crate) fn alone(store: &'s SnapshotStore) -> Result<Self, SnapshotError> {
        Ok(Self { store, _lock: store.lock(true)? })
    }

    /// An object's bytes, which are what their name says.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Vec<u8>, SnapshotError> {
        let found = self.store.with(|conn| {
            let mut query = conn.prepare_cached("SELECT size, data FROM object WHERE digest = ?1")?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
            Ok(query.query_row(params![digest.0], row).optional()?)
        })?;
        let Some((size, data)) = found else {
            return Err(SnapshotError::damaged(format!("object {digest} is missing")));
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(MAX_OBJECT);
        let bytes = if data.len() == size {
            data
        } else {
            zstd::bulk::decompress(&data, size)
                .map_err(|error| SnapshotError::damaged(format!("object {digest}: {error}")))?
        };
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(SnapshotError::damaged(format!("object {digest} is not what it was")))
        }
    }

    pub(crate) fn directory(&self, digest: &Digest) -> Result<Vec<Entry>, SnapshotError> {
        decode(&self.get(digest)?)
    }

    /// The objects that hold a file's data, in order.
    pub(crate) fn pieces(&self, content: &Content) -> Result<Vec<Digest>, SnapshotError> {
        match &content.data {
            Data::Empty => Ok(Vec::new()),
            Data::One(digest) => Ok(vec![*digest]),
            Data::Many(list) => decode(&self.get(list)?),
        }
    }
}

/// Writes objects.
pub(crate) struct Writer<'s> {
    store: &'s SnapshotStore,
    _lock: File,
    compressor: zstd::bulk::Compressor<'static>,
    waiting: Vec<(Digest, usize, Vec<u8>)>,
    /// All that this writer put, waiting or written.
    put: HashSet<Digest>,
    waiting_bytes: usize,
    /// What was new, as it lies in the store.
    pub(crate) added_bytes: u64,
}

impl<'s> Writer<'s> {
    pub(crate) fn new(store: &'s SnapshotStore) -> Result<Self, SnapshotError> {
        let compressor =
            zstd::bulk::Compressor::new(LEVEL).map_err(|error| store.failed(error.to_string()))?;
        Ok(Self {
            store,
            _lock: store.lock(false)?,
            compressor,
            waiting: Vec::new(),
            put: HashSet::new(),
            waiting_bytes: 0,
            added_bytes: 0,
        })
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<Digest, SnapshotError> {
        let digest = Digest::of(bytes);
        if self.put.contains(&digest) || self.has(&digest)? {
            return Ok(digest);
        }
        if bytes.len() > MAX_OBJECT {
            return Err(self.store.failed("a directory has too many entries for a snapshot"));
        }
        let packed = self.compressor.compress(bytes).map_err(|error| self.store.failed(error.to_string()))?;
        let packed = if packed.len() < bytes.len() { packed } else { bytes.to_vec() };
        self.waiting_bytes += packed.len();
        self.added_bytes += packed.len() as u64;
        self.waiting.push((digest, bytes.len(), packed));
        self.put.insert(digest);
        if self.waiting_bytes > BATCH {
            let waiting = std::mem::take(&mut self.waiting);
            self.waiting_bytes = 0;
            self.store.change(|conn| insert(conn, &waiting))?;
        }
        Ok(digest)
    }

    pub(crate) fn directory(&mut self, entries: &[Entry]) -> Result<Digest, SnapshotError> {
        self.put(&encode(&entries)?)
    }

    /// Writes what waits, and with it whatever makes it needed, in one transaction.
    pub(crate) fn finish(
        self,
        record: impl Fn(&Connection) -> Result<(), Trouble>,
    ) -> Result<(), SnapshotError> {
        self.store.change(|conn| {
            insert(conn, &self.waiting)?;
            record(conn)
        })
    }

    fn has(&self, digest: &Digest) -> Result<bool, SnapshotError> {
        self.store.with(|conn| {
            Ok(conn.prepare_cached("SELECT 1 FROM object WHERE digest = ?1")?.exists(params![digest.0])?)
        })
    }
}

fn insert(conn: &Connection, objects: &[(Digest, usize, Vec<u8>)]) -> Result<(), Trouble> {
    let mut insert =
        conn.prepare_cached("INSERT OR IGNORE INTO object (digest, size, data) VALUES (?1, ?2, ?3)")?;
    for (digest, size, data) in objects {
        insert.execute(params![digest.0, *size as i64, data])?;
    }
    Ok(())
}
