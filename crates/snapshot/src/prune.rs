//! Removing what no snapshot needs.

use std::collections::HashSet;

use rusqlite::params;

use crate::objects::Reader;
use crate::tree::{Data, Digest, Kind};
use crate::{SnapshotError, SnapshotStore};

/// Objects that are removed in one transaction.
const AT_ONCE: usize = 10_000;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Objects.
    pub objects: u64,
    /// Their bytes, as they lay in the store.
    pub bytes: u64,
}

impl SnapshotStore {
    /// Removes what no snapshot needs, and what was remembered of sessions that `sessions` does not name. Nobody takes
    /// or restores a snapshot meanwhile. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Busy`] while somebody does; [`SnapshotError::Damaged`] where it cannot be known what is
    /// needed, and then nothing is removed.
    pub fn prune(&self, sessions: &[String]) -> Result<Pruned, SnapshotError> {
        let reader = Reader::alone(self)?;
        let (mut needed, mut walked) = (HashSet::new(), HashSet::new());
        for snapshot in self.list()? {
            mark(&reader, &snapshot.root, &mut needed, &mut walked)?;
        }
        let kept: HashSet<&str> = sessions.iter().map(String::as_str).collect();
        let known: Vec<String> = self.with(|conn| {
            let mut query = conn.prepare("SELECT session FROM seen")?;
            Ok(query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })?;
        let forgotten: Vec<&String> =
            known.iter().filter(|session| !kept.contains(session.as_str())).collect();
        // What is remembered names objects: it must not outlive them.
        self.change(|conn| {
            for session in &forgotten {
                conn.execute("DELETE FROM seen WHERE session = ?1", params![session])?;
            }
            Ok(())
        })?;
        let mut pruned = Pruned::default();
        let all: Vec<(i64, [u8; 32], i64)> = self.with(|conn| {
            let mut query = conn.prepare("SELECT rowid, digest, length(data) FROM object")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        let unneeded: Vec<_> =
            all.iter().filter(|(_, digest, _)| !needed.contains(&Digest(*digest))).collect();
        if !unneeded.is_empty() {
            // The rest may name any of them.
            self.change(|conn| Ok(conn.execute("DELETE FROM seen", [])?))?;
        }
        for some in unneeded.chunks(AT_ONCE) {
            self.change(|conn| {
                let mut delete = conn.prepare_cached("DELETE FROM object WHERE rowid = ?1")?;
                some.iter().try_for_each(|(row, ..)| delete.execute(params![row]).map(drop))?;
                Ok(())
            })?;
            pruned.objects += some.len() as u64;
            pruned.bytes += some.iter().map(|(.., length)| u64::try_from(*length).unwrap_or(0)).sum::<u64>();
        }
        self.with(|conn| {
            // A page a step.
            let mut vacuum = conn.prepare("PRAGMA incremental_vacuum")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
            Ok(conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
        })?;
        Ok(pruned)
    }
}

/// Marks what a directory needs. `walked` are the lists that were looked into: a list may be a file's content too,
/// and what is needed as such was not looked into.
fn mark(
    reader: &Reader<'_>,
    directory: &Digest,
    needed: &mut HashSet<Digest>,
    walked: &mut HashSet<Digest>,
) -> Result<(), SnapshotError> {
    needed.insert(*directory);
    if !walked.insert(*directory) {
        return Ok(());
    }
    for entry in reader.directory(directory)? {
        match &entry.kind {
            Kind::Directory(below) => mark(reader, below, needed, walked)?,
            Kind::File(content) => {
                if let Data::Many(list) = &content.data {
                    needed.insert(*list);
                }
                needed.extend(reader.pieces(content)?);
            }
            Kind::Symlink(_) | Kind::Fifo | Kind::HardLink(_) => {}
        }
    }
    Ok(())
}
