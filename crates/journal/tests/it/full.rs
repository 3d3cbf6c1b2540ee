//! No space: what was acknowledged is there, what was not is not, and it goes on when there is space again.

use std::fs;
use std::path::Path;

use mooring_journal::{Durability, Journal, JournalError, RunId, SqliteJournal};

use crate::support::{append, child, child_dir, read_all, record, run_with, succeed, unshare};

#[test]
fn a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let setup = unshare(r#"mount -t tmpfs -o size=3m tmpfs "$DIR" && exec "$@""#);
    succeed(child(&setup, "full::a_full_disk_child", dir.path()));
}

#[tokio::test]
#[ignore = "run by a_full_disk"]
async fn a_full_disk_child() {
    let dir = child_dir();
    let path = dir.join("journal.db");
    let ballast = dir.join("ballast");
    fill(&ballast);
    let error = SqliteJournal::open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");

    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let reserve = dir.join("reserve");
    fs::write(&reserve, vec![1; 128 << 10]).unwrap();
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, claim) = run_with(&journal, "run", 1).await;
    let seq = append_until_full(&journal, &run, 1, Durability::Process).await;
    assert!(seq > 50, "{seq}");
    // Full for good: each way to write says so, and nothing that is there suffers.
    for _ in 0..5 {
        let mut large = append(&run, 1, seq, 400);
        large.durability = Durability::Power;
        let error = journal.append(large).await.unwrap_err();
        assert!(matches!(error, JournalError::Full { .. }), "{error}");
    }
    drop(claim);
    all_is_there(&journal, &run, seq).await;

    // Some of many appends that wait together may have room yet: each is told its own fate.
    fs::write(&ballast, vec![1; (1 << 20) - (64 << 10)]).unwrap();
    let mut claims = Vec::new();
    for n in 0..3 {
        claims.push(run_with(&journal, &format!("run-{n}"), 0).await);
    }
    let appends = claims.iter().map(|(run, _)| {
        let mut append = append(run, 1, 0, 30);
        append.durability = Durability::Power;
        journal.append(append)
    });
    let told = futures::future::join_all(appends).await;
    for ((run, _), told) in claims.iter().zip(told) {
        assert!(matches!(told, Ok(30) | Err(JournalError::Full { .. })), "{told:?}");
        all_is_there(&journal, run, told.unwrap_or(0)).await;
    }

    fs::remove_file(&ballast).unwrap();
    let seq = append_until_full(&journal, &run, seq, Durability::Power).await;
    all_is_there(&journal, &run, seq).await;
    // Closed, the log cannot be folded; opened, there is no room for its index. Nothing is lost by either.
    drop(journal);
    let opened = SqliteJournal::open(&path);
    assert!(matches!(opened, Ok(_) | Err(JournalError::Full { .. })), "{opened:?}");
    drop(opened);
    fs::remove_file(&reserve).unwrap();
    let journal = SqliteJournal::open(&path).unwrap();
    all_is_there(&journal, &run, seq).await;
    let claim = journal.claim(&run, "test").await.unwrap();
    journal.append(append(&run, claim.epoch, seq, 1)).await.unwrap();
}

/// A limit on the size of files shows in another way than a full disk, and so does a quota.
#[test]
fn a_file_size_limit() {
    let dir = tempfile::tempdir().unwrap();
    // In units of 512 bytes. The signal is ignored, as the program does; it would end the process.
    let setup = r#"trap "" XFSZ; ulimit -f 2000; exec "$@""#;
    succeed(child(setup, "full::a_file_size_limit_child", dir.path()));
    assert!(!leftovers(dir.path()).contains("probe"), "{}", leftovers(dir.path()));
}

#[tokio::test]
#[ignore = "run by a_file_size_limit"]
async fn a_file_size_limit_child() {
    let path = child_dir().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, _claim) = run_with(&journal, "run", 1).await;
    let seq = append_until_full(&journal, &run, 1, Durability::Process).await;
    all_is_there(&journal, &run, seq).await;
}

async fn append_until_full(
    journal: &SqliteJournal,
    run: &RunId,
    mut seq: u64,
    durability: Durability,
) -> u64 {
    let epoch = journal.runs(Some(run)).await.unwrap()[0].epoch;
    loop {
        let mut append = append(run, epoch, seq, 3);
        append.durability = durability;
        match journal.append(append).await {
            Ok(last) => seq = last,
            Err(JournalError::Full { .. }) => return seq,
            Err(error) => panic!("{error}"),
        }
        assert!(seq < 100_000, "never full");
    }
}

async fn all_is_there(journal: &SqliteJournal, run: &RunId, seq: u64) {
    let expected: Vec<_> = (1..=seq).map(|seq| record(run, 1, seq)).collect();
    assert_eq!(read_all(journal, run).await, expected);
    assert_eq!(journal.runs(Some(run)).await.unwrap()[0].last_seq, seq);
}

fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

fn leftovers(dir: &Path) -> String {
    let names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    format!("{names:?}")
}
