//! What the last snapshot of a workspace saw on this host, so that the next one opens only what changed.
//!
//! A file is taken as unchanged where device, inode, size, modification time and change time are those that were seen.
//! No program can set the change time. It is coarse, though: a file that changed so shortly before it was read that
//! another change could carry the same time is not remembered, and is read again.

use std::collections::HashMap;
use std::time::Duration;

use mooring_archive::Node;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::SnapshotError;
use crate::store::{SnapshotStore, Trouble};
use crate::tree::{Content, decode, encode};

/// More than the kernel's tick.
const COARSE: Duration = Duration::from_millis(50);

/// A file as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    identity: (u64, u64),
    size: u64,
    mtime: (u64, u32),
    changed_ns: i128,
    content: Content,
}

pub(crate) struct Index<'s> {
    store: &'s SnapshotStore,
    session: &'s str,
    /// What was seen, once it was asked for: whoever walks the workspace is at work meanwhile.
    before: Option<HashMap<(u64, u64), Seen>>,
    now: Vec<Seen>,
    /// What changed after this may change again without a trace.
    settled_ns: i128,
}

impl<'s> Index<'s> {
    /// What was seen of a session's workspace.
    pub(crate) fn new(store: &'s SnapshotStore, session: &'s str) -> Self {
        let settled_ns = kernel_now() - COARSE.as_nanos() as i128;
        Self { store, session, before: None, now: Vec::new(), settled_ns }
    }

    /// The content of a file that did not change.
    pub(crate) fn unchanged(&mut self, node: &Node) -> Result<Option<Content>, SnapshotError> {
        let before = match &mut self.before {
            Some(before) => before,
            none => none.insert(load(self.store, self.session)?),
        };
        let Some(seen) = before.get(&node.identity).filter(|seen| {
            (seen.size, seen.mtime, seen.changed_ns) == (node.size, (node.mtime, node.nanos), node.changed_ns)
        }) else {
            return Ok(None);
        };
        let content = seen.content.clone();
        self.now.push(seen.clone());
        Ok(Some(content))
    }

    /// Remembers what was read.
    pub(crate) fn remember(&mut self, node: &Node, content: &Content) {
        if node.changed_ns < self.settled_ns {
            self.now.push(Seen {
                identity: node.identity,
                size: node.size,
                mtime: (node.mtime, node.nanos),
                changed_ns: node.changed_ns,
                content: content.clone(),
            });
        }
    }

    /// For the transaction that writes what was seen.
    pub(crate) fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        encode(&self.now)
    }
}

/// None, or one of another form, is as good as an empty one.
fn load(store: &SnapshotStore, session: &str) -> Result<HashMap<(u64, u64), Seen>, SnapshotError> {
    let data: Option<Vec<u8>> = store.with(|conn| {
        let mut query = conn.prepare_cached("SELECT data FROM seen WHERE session = ?1")?;
        Ok(query.query_row(params![session], |row| row.get(0)).optional()?)
    })?;
    let seen: Vec<Seen> = data.and_then(|data| decode(&data).ok()).unwrap_or_default();
    Ok(seen.into_iter().map(|seen| (seen.identity, seen)).collect())
}

pub(crate) fn keep(conn: &Connection, session: &str, data: &[u8]) -> Result<(), Trouble> {
    conn.execute("INSERT OR REPLACE INTO seen (session, data) VALUES (?1, ?2)", params![session, data])?;
    Ok(())
}

/// By the clock that file systems stamp with.
fn kernel_now() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}
