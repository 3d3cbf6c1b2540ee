//! Taking a snapshot of the workspace where the run asks for it. One that fails is recorded, and the run goes on: it is
//! the agent's work that counts.

use std::time::Duration;

use mooring_journal::event::{SnapshotFailed, SnapshotTaken};
use mooring_journal::{Durability, Event};
use mooring_snapshot::{NewSnapshot, Snapshot};

use super::{Driver, elapsed_ms};
use crate::HarnessError;

/// How long a snapshot may take. The first reads the whole workspace.
const DEADLINE: Duration = Duration::from_mins(10);

impl Driver<'_> {
    pub(super) async fn take_snapshot(&mut self) -> Result<(), HarnessError> {
        // So that the snapshot holds what every event before it did.
        self.flush(Durability::Process).await?;
        let began = self.now();
        let (session_id, taken) = match (&self.host.snapshots, &self.session) {
            (Some(store), Some(session)) => {
                let new = NewSnapshot {
                    id: format!("{}-{}", self.run, self.state.last_seq),
                    // Taken again after a crash that kept it out of the journal.
                    replaces: true,
                    manifest_digest: self.state.started.manifest_digest.clone(),
                    taken_ms: began,
                };
                let taken = tokio::time::timeout(DEADLINE, store.take(session.as_ref(), new)).await;
                let taken = taken.map_err(|_| format!("it took longer than {} s", DEADLINE.as_secs()));
                let taken = taken.and_then(|taken| taken.map_err(|error| error.to_string()));
                (session.id().to_owned(), taken)
            }
            (None, _) => (String::new(), Err("this process keeps no snapshots".into())),
            (_, None) => (String::new(), Err("the sandbox is not running".into())),
        };
        let turn = self.state.turns;
        self.push(match taken {
            Ok(Snapshot { id, digest, files, bytes, added_bytes, .. }) => {
                Event::SnapshotTaken(SnapshotTaken {
                    snapshot: id,
                    digest,
                    session_id,
                    turn,
                    files,
                    bytes,
                    added_bytes,
                    duration_ms: elapsed_ms(began, self.now()),
                })
            }
            Err(reason) => Event::SnapshotFailed(SnapshotFailed { session_id, turn, reason }),
        })
    }
}
