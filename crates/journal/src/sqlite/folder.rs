//! Folds the write-ahead log into the file, beside the appends: a checkpoint syncs both files, which takes as long as
//! a thousand appends, and none of them needs to wait for it.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::schema::open_reader;
use super::trouble::Home;
use crate::JournalError;

/// A thread with a connection of its own. Ends, after what it is at, when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    nudge: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Folder {
    pub(crate) fn start(home: &Arc<Home>) -> Result<Self, JournalError> {
        let conn = open_reader(home).map_err(|trouble| home.explain(trouble))?;
        let (nudge, nudges) = sync_channel(0);
        let thread = std::thread::Builder::new().name("journal-fold".to_owned()).spawn(move || {
            while nudges.recv().is_ok() {
                // What fails or is in others' way is left for the next time: the log holds it all.
                let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            }
        });
        match thread {
            Ok(thread) => Ok(Self { nudge: Some(nudge), thread: Some(thread) }),
            Err(error) => Err(home.failed(format!("its thread could not be started: {error}"))),
        }
    }

    /// Asks for the log to be folded, unless that is being done.
    pub(crate) fn nudge(&self) {
        if let Some(nudge) = &self.nudge {
            // Refused: it is at it.
            let _ = nudge.try_send(());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.nudge = None;
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and has nothing to give back.
            let _ = thread.join();
        }
    }
}
