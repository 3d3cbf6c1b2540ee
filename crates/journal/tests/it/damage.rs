//! Damage in the file: told, with the first bad event; never a wrong record, never a panic.

use std::fs;
use std::path::Path;

use mooring_journal::{Journal, JournalError, Record, RunId, SqliteJournal};
use rusqlite::Connection;

use crate::support::{append, read_all, record, run_id, run_with};

/// Damages a run of 9 events with SQL and gives what reading it says, and how many events can be read.
async fn after(sql: &str) -> (String, usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, claim) = run_with(&journal, "run", 9).await;
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let error = journal.read(&run, 0, usize::MAX).await.unwrap_err();
    let JournalError::Damaged { seq, ref reason, .. } = error else { panic!("{error}") };
    // One event at a time shows the same, and all before it; that the last is not the last shows earlier.
    let mut whole = 0;
    let paged = loop {
        match journal.read(&run, whole, 1).await {
            Ok(page) => {
                assert_eq!(page, [record(&run, claim.epoch, whole + 1)]);
                whole += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(paged, JournalError::Damaged { seq: found, .. } if found <= seq), "{paged}");
    (format!("{seq}: {reason}"), whole as usize)
}

#[tokio::test]
async fn what_is_altered_removed_or_swapped_shows() {
    const PLACE: &str = "place & 4294967295";
    let swap = format!(
        "CREATE TEMP TABLE t AS SELECT place, body, at_ms, checksum FROM events WHERE {PLACE} IN (4, 5);
         UPDATE events SET (body, at_ms, checksum) =
             (SELECT body, at_ms, checksum FROM t WHERE t.place = events.place + 1) WHERE {PLACE} = 4;
         UPDATE events SET (body, at_ms, checksum) =
             (SELECT body, at_ms, checksum FROM t WHERE t.place = events.place - 1) WHERE {PLACE} = 5"
    );
    for (sql, expected, whole) in [
        (
            format!("UPDATE events SET body = replace(body, 'shell', 'sheII') WHERE {PLACE} = 4"),
            "4: its checksum",
            3,
        ),
        (format!("UPDATE events SET at_ms = at_ms + 1 WHERE {PLACE} = 1"), "1: its checksum", 0),
        (format!("UPDATE events SET epoch = 2 WHERE {PLACE} = 9"), "9: its checksum", 8),
        (format!("UPDATE events SET v = 2 WHERE {PLACE} = 2"), "2: its checksum", 1),
        (format!("UPDATE events SET checksum = zeroblob(32) WHERE {PLACE} = 5"), "5: its checksum", 4),
        (format!("UPDATE events SET checksum = x'00' WHERE {PLACE} = 5"), "5: it cannot be read", 4),
        (format!("DELETE FROM events WHERE {PLACE} = 4"), "4: it is missing", 3),
        (format!("DELETE FROM events WHERE {PLACE} = 1"), "1: it is missing", 0),
        (format!("DELETE FROM events WHERE {PLACE} > 7"), "8: it is missing", 7),
        ("DELETE FROM events".to_owned(), "1: it is missing", 0),
        (swap, "4: its checksum", 3),
        ("UPDATE runs SET last_seq = 7".to_owned(), "8: the run is said to end at 7", 6),
        (
            "UPDATE runs SET head = zeroblob(32)".to_owned(),
            "9: it is not the event that was last appended",
            8,
        ),
    ] {
        let (said, left) = after(&sql).await;
        assert!(said.starts_with(expected), "{sql}: {said}");
        assert_eq!(left, whole, "{sql}");
    }
}

#[tokio::test]
async fn an_append_beside_damage_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, claim) = run_with(&journal, "run", 9).await;
    let (other, other_claim) = run_with(&journal, "other", 2).await;
    Connection::open(&path).unwrap().execute("UPDATE runs SET last_seq = 5 WHERE id = 'run'", []).unwrap();
    let (bad, good) = tokio::join!(
        journal.append(append(&run, claim.epoch, 5, 2)),
        journal.append(append(&other, other_claim.epoch, 2, 2)),
    );
    assert!(bad.as_ref().is_err_and(|error| error.to_string().contains("the file is damaged")), "{bad:?}");
    assert_eq!(good.unwrap(), 4);
    Connection::open(&path).unwrap().execute("UPDATE runs SET last_seq = 9 WHERE id = 'run'", []).unwrap();
    let expected: Vec<_> = (1..=9).map(|seq| record(&run, 1, seq)).collect();
    assert_eq!(read_all(&journal, &run).await, expected);
}

#[tokio::test]
async fn a_damaged_summary_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, _claim) = run_with(&journal, "run", 1).await;
    Connection::open(&path).unwrap().execute("UPDATE runs SET summary = '{'", []).unwrap();
    let error = journal.runs(None).await.unwrap_err().to_string();
    assert!(error.contains("what it says of run run in listings is damaged"), "{error}");
    assert_eq!(read_all(&journal, &run).await.len(), 1);
}

/// Single bits anywhere in the file. What SQLite cannot know, the chain does.
#[tokio::test]
async fn any_altered_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let runs = {
        let journal = SqliteJournal::open(&path).unwrap();
        let mut runs: Vec<(RunId, Vec<Record>)> = Vec::new();
        for id in ["run-a", "run-b"] {
            let (run, claim) = run_with(&journal, id, 8).await;
            // One that takes several pages.
            journal.append(append(&run, claim.epoch, 8, 10)).await.unwrap();
            runs.push((run.clone(), read_all(&journal, &run).await));
        }
        runs
    };
    let whole = fs::read(&path).unwrap();
    let (mut found, mut harmless) = (0, 0);
    for at in (0..100).chain((100..whole.len()).step_by(41)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        match look(dir.path(), &bytes, &runs).await {
            Ok(()) => harmless += 1,
            Err(error) => {
                let told = matches!(
                    error,
                    JournalError::Damaged { .. }
                        | JournalError::Store { .. }
                        | JournalError::UnknownRun { .. }
                );
                assert!(told, "byte {at}: {error}");
                found += 1;
            }
        }
    }
    // Empty space in pages is harmless; most of the rest is not.
    assert!(found > 100 && harmless > 100, "{found} found, {harmless} harmless");
}

/// Reads all of the runs: as they were, or an error.
async fn look(dir: &Path, bytes: &[u8], runs: &[(RunId, Vec<Record>)]) -> Result<(), JournalError> {
    let path = dir.join("altered.db");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(dir.join(format!("altered.db{suffix}")));
    }
    fs::write(&path, bytes).unwrap();
    let journal = SqliteJournal::open(&path)?;
    journal.runs(None).await?;
    for (run, records) in runs {
        assert_eq!(&journal.read(run, 0, usize::MAX).await?, records);
        assert_eq!(&journal.read(run, 5, 7).await?, &records[5..12]);
    }
    journal.runs(Some(&run_id("run-a"))).await?;
    Ok(())
}
