//! The write-ahead log: it stays small, and is gone when the journal is closed, with all that was accepted.

use std::fs;

use futures::FutureExt;
use mooring_journal::{Append, Durability, Journal, SqliteJournal};

use crate::support::{append, read_all, run_with};

/// Four times the log's length at which it is folded, and one look's worth of appends.
const MOST: u64 = 20 << 20;

#[tokio::test]
async fn it_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (db, wal) = (dir.path().join("journal.db"), dir.path().join("journal.db-wal"));
    let journal = SqliteJournal::open(&db).unwrap();
    let (run, claim) = run_with(&journal, "run", 0).await;
    let mut written = 0;
    for after in 0..20_000 {
        let mut append = append(&run, claim.epoch, 0, 1);
        append.after = after;
        if after % 5_000 == 4_999 {
            append.durability = Durability::Power;
        }
        journal.append(append).await.unwrap();
        if after % 100 == 0 {
            let length = fs::metadata(&wal).unwrap().len();
            assert!(length < MOST, "{length} after {after}");
            written = written.max(length);
        }
    }
    // It did grow; otherwise this shows nothing.
    assert!(written > 1 << 20, "{written}");
    drop(journal);
    assert!(!wal.exists());
    assert!(fs::metadata(&db).unwrap().len() > 1 << 20);
    assert_eq!(SqliteJournal::open(&db).unwrap().runs(Some(&run)).await.unwrap()[0].last_seq, 20_000);
}

#[tokio::test]
async fn what_was_accepted_is_finished_when_the_journal_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, claim) = run_with(&journal, "run", 1).await;
    let accepted =
        (0..50).map(|n| Append { durability: Durability::Power, ..append(&run, claim.epoch, 1 + 2 * n, 2) });
    for append in accepted {
        // Asked once, and given up.
        let _ = journal.append(append).now_or_never();
    }
    drop(journal);
    assert_eq!(read_all(&SqliteJournal::open(&path).unwrap(), &run).await.len(), 101);
}
