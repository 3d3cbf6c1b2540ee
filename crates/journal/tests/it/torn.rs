//! A log that ends anywhere, as a power failure leaves it: the journal opens, holds whole appends up to some point,
//! and goes on from there.

use std::fs;
use std::path::{Path, PathBuf};

use mooring_journal::{Journal, RunId, SqliteJournal};
use rusqlite::Connection;

use crate::support::{append, read_all, record, run_with};

const LOG_HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

/// Sizes of the appends: one event, many, and some that fill pages.
const SIZES: [u64; 9] = [1, 3, 1, 40, 2, 1, 25, 1, 3];

/// A journal as it lies on the disk while in use.
struct Copied {
    db: Vec<u8>,
    log: Vec<u8>,
    run: RunId,
    /// Where each append ended.
    ends: Vec<u64>,
}

async fn copied() -> Copied {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, claim) = run_with(&journal, "run", 4).await;
    // The first append is in the file, the others in the log.
    let fold = Connection::open(&path).unwrap();
    fold.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let mut ends = vec![4];
    for size in SIZES {
        ends.push(journal.append(append(&run, claim.epoch, ends[ends.len() - 1], size)).await.unwrap());
    }
    Copied { db: fs::read(&path).unwrap(), log: fs::read(log_of(&path)).unwrap(), run, ends }
}

impl Copied {
    /// Lays the files out anew, with this log.
    fn lay(&self, dir: &Path, log: &[u8]) -> PathBuf {
        let path = dir.join("journal.db");
        fs::write(&path, &self.db).unwrap();
        fs::write(log_of(&path), log).unwrap();
        let _ = fs::remove_file(dir.join("journal.db-shm"));
        path
    }

    /// What is left of the run with this log; checks that it is whole appends, and can go on.
    async fn survivors(&self, dir: &Path, log: &[u8], what: &str) -> u64 {
        let path = self.lay(dir, log);
        let journal = SqliteJournal::open(&path).unwrap();
        let records = read_all(&journal, &self.run).await;
        let last = records.len() as u64;
        assert!(self.ends.contains(&last), "{what}: {last} is in the middle of an append");
        let expected: Vec<_> = (1..=last).map(|seq| record(&self.run, 1, seq)).collect();
        assert_eq!(records, expected, "{what}");
        let claim = journal.claim(&self.run, "test").await.unwrap();
        assert_eq!((claim.epoch, claim.last_seq), (2, last), "{what}");
        journal.append(append(&self.run, claim.epoch, last, 5)).await.unwrap();
        assert_eq!(read_all(&journal, &self.run).await.len() as u64, last + 5, "{what}");
        last
    }
}

#[tokio::test]
async fn cut_anywhere() {
    let copied = copied().await;
    let dir = tempfile::tempdir().unwrap();
    let length = copied.log.len();
    assert_eq!((length - LOG_HEADER) % FRAME, 0);
    let frames = (0..).map(|n| LOG_HEADER + n * FRAME).take_while(|end| *end <= length);
    let mut cuts: Vec<usize> =
        frames.flat_map(|end| [end.saturating_sub(1), end, end + 1, end + 24]).collect();
    cuts.extend(0..LOG_HEADER);
    // The last three frames closely: 97 has no divisor in common with any size in there.
    cuts.extend((length - 3 * FRAME..length).step_by(97));
    cuts.retain(|cut| *cut <= length);
    cuts.sort_unstable();
    cuts.dedup();
    let mut before = 0;
    for cut in cuts {
        let last = copied.survivors(dir.path(), &copied.log[..cut], &format!("cut at {cut}")).await;
        assert!(last >= before, "cut at {cut}: {last} events are left, of a shorter log {before} were");
        before = last;
    }
    assert_eq!(Some(&before), copied.ends.last(), "the whole log");
    assert_eq!(copied.survivors(dir.path(), &[], "no log").await, copied.ends[0]);
}

#[tokio::test]
async fn altered_anywhere() {
    let copied = copied().await;
    let dir = tempfile::tempdir().unwrap();
    let mut log = copied.log.clone();
    for at in (0..LOG_HEADER).chain((LOG_HEADER..log.len()).step_by(1009)) {
        log[at] ^= 1 << (at % 8);
        let last = copied.survivors(dir.path(), &log, &format!("byte {at} altered")).await;
        assert!(last < copied.ends[copied.ends.len() - 1], "byte {at} altered, yet nothing is missing");
        log[at] = copied.log[at];
    }
}

#[tokio::test]
async fn an_appended_tail_of_zeros_or_noise_is_ignored() {
    let copied = copied().await;
    let dir = tempfile::tempdir().unwrap();
    for tail in [vec![0; 3 * FRAME], (0..3 * FRAME).map(|n| (n * 31) as u8).collect()] {
        let log = [copied.log.clone(), tail].concat();
        assert_eq!(Some(&copied.survivors(dir.path(), &log, "tail").await), copied.ends.last());
    }
}

fn log_of(path: &Path) -> PathBuf {
    path.with_file_name("journal.db-wal")
}
