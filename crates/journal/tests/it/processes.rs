//! Several processes on one journal, some of which die.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread::sleep;
use std::time::Duration;

use mooring_journal::{Claim, Durability, Journal, JournalError, RunId, SqliteJournal};
use serde_json::json;

use crate::support::{append, child, child_dir, random, read_all, record, run_id, run_with};

/// A driver in a process of its own: takes orders, one a line, and answers each with a line.
struct Driver {
    process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Driver {
    fn start(dir: &Path) -> Self {
        let mut command = child(r#"exec "$@""#, "processes::driver", dir);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut driver = Self { process, orders, answers };
        assert_eq!(driver.answer().as_deref(), Some("ready"));
        driver
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The next answer; `None` when the process is gone. The test harness's own lines are not among them.
    fn answer(&mut self) -> Option<String> {
        self.answers
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("@ ").map(str::to_owned))
    }

    fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.answer().expect("the driver lives")
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
#[ignore = "run by the others"]
async fn driver() {
    let journal = SqliteJournal::open(&child_dir().join("journal.db")).unwrap();
    let run = run_id("run");
    let mut claim: Option<Claim> = None;
    println!("\n@ ready");
    for order in std::io::stdin().lines().map_while(Result::ok) {
        match order.as_str() {
            "claim" => match journal.claim(&run, "a driver elsewhere").await {
                Ok(got) => {
                    println!("@ epoch {} after {}", got.epoch, got.last_seq);
                    claim = Some(got);
                }
                Err(error) => println!("@ {error}"),
            },
            "drop" => {
                claim = None;
                println!("@ dropped");
            }
            "append" => {
                let claim = claim.as_mut().unwrap();
                match journal.append(append(&run, claim.epoch, claim.last_seq, 2)).await {
                    Ok(seq) => claim.last_seq = seq,
                    Err(error) => println!("@ {error}"),
                }
                println!("@ at {}", claim.last_seq);
            }
            "churn" => {
                let mut done = 0;
                for _ in 0..200 {
                    done += u32::from(journal.claim(&run, "churn").await.is_ok());
                }
                println!("@ {done} of 200");
            }
            "hammer" => hammer(&journal, &run, claim.as_mut().unwrap()).await,
            other => panic!("no such order: {other:?}"),
        }
    }
}

/// Appends until killed, and says what was acknowledged.
async fn hammer(journal: &SqliteJournal, run: &RunId, claim: &mut Claim) {
    for round in 0.. {
        let mut append = append(run, claim.epoch, claim.last_seq, 1 + round % 5);
        append.summary = Some(json!(claim.last_seq + 1 + round % 5).to_string());
        if round % 20 == 7 {
            append.durability = Durability::Power;
        }
        claim.last_seq = journal.append(append).await.unwrap();
        println!("@ {}", claim.last_seq);
    }
}

#[tokio::test]
async fn one_drives_and_the_other_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&dir.path().join("journal.db")).unwrap();
    let (run, claim) = run_with(&journal, "run", 1).await;
    let mut other = Driver::start(dir.path());
    assert!(other.ask("claim").contains("run run is being driven by test"));
    drop(claim);
    assert_eq!(other.ask("claim"), "epoch 2 after 1");
    assert!(journal.runs(None).await.unwrap()[0].driven);
    let error = journal.claim(&run, "test").await.unwrap_err();
    assert!(matches!(&error, JournalError::Driven { owner, .. } if owner == "a driver elsewhere"), "{error}");
    let error = journal.append(append(&run, 1, 1, 1)).await.unwrap_err();
    assert!(matches!(error, JournalError::Fenced { epoch: 1, current: 2, .. }), "{error}");
    assert_eq!(other.ask("append"), "at 3");
    // A driver that dies leaves the run free at once, and its events.
    other.kill();
    assert!(!journal.runs(None).await.unwrap()[0].driven);
    let claim = journal.claim(&run, "test").await.unwrap();
    assert_eq!((claim.epoch, claim.last_seq), (3, 3));
    assert_eq!(read_all(&journal, &run).await.len(), 3);
}

#[tokio::test]
async fn of_many_that_claim_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&dir.path().join("journal.db")).unwrap();
    let (run, claim) = run_with(&journal, "run", 0).await;
    drop(claim);
    let mut drivers: Vec<_> = (0..4).map(|_| Driver::start(dir.path())).collect();
    let rounds = 25;
    for round in 0..rounds {
        for driver in &mut drivers {
            driver.order("claim");
        }
        let mut winners = Vec::new();
        for (n, driver) in drivers.iter_mut().enumerate() {
            let answer = driver.answer().unwrap();
            if answer.starts_with("epoch") {
                winners.push(n);
            } else {
                assert!(answer.contains("is being driven by"), "{answer}");
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        let winner = &mut drivers[winners[0]];
        assert_eq!(winner.ask("append"), format!("at {}", 2 * (round + 1)));
        assert_eq!(winner.ask("drop"), "dropped");
    }
    assert_eq!(read_all(&journal, &run).await.len(), 2 * rounds);
    // No file of a run that nobody drives is left.
    assert_eq!(std::fs::read_dir(dir.path().join("locks")).unwrap().count(), 0);
}

/// To ask whether a run is driven takes a lock for a moment; no claim fails by that.
#[tokio::test]
async fn looking_disturbs_no_claim() {
    let dir = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&dir.path().join("journal.db")).unwrap();
    let (run, claim) = run_with(&journal, "run", 0).await;
    drop(claim);
    let mut driver = Driver::start(dir.path());
    driver.order("churn");
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let answer = std::thread::spawn(move || {
        let answer = driver.answer();
        let _ = stop.send(());
        answer
    });
    let mut seen = [0; 2];
    while stopped.try_recv().is_err() {
        seen[usize::from(journal.runs(Some(&run)).await.unwrap()[0].driven)] += 1;
    }
    assert_eq!(answer.join().unwrap().as_deref(), Some("200 of 200"));
    assert!(seen[0] + seen[1] > 10, "{seen:?}");
}

/// `kill -9` at any moment: what was acknowledged is there, whole appends alone, in an unbroken chain.
#[tokio::test]
async fn killed_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let (run, claim) = run_with(&SqliteJournal::open(&path).unwrap(), "run", 0).await;
    drop(claim);
    let mut last = 0;
    for kill in 1..=40 {
        // Every other time nobody else has it open, and the log is recovered by who opens it next.
        let _open = (kill % 2 == 0).then(|| SqliteJournal::open(&path).unwrap());
        let mut driver = Driver::start(dir.path());
        // The first has epoch 1 from its making.
        assert_eq!(driver.ask("claim"), format!("epoch {} after {last}", kill + 1));
        driver.order("hammer");
        let mut acknowledged = last;
        for _ in 0..random(30) {
            acknowledged = driver.answer().unwrap().parse().unwrap();
        }
        sleep(Duration::from_micros(random(3000)));
        driver.kill();
        while let Some(answer) = driver.answer() {
            acknowledged = answer.parse().unwrap();
        }
        let journal = SqliteJournal::open(&path).unwrap();
        let records = read_all(&journal, &run).await;
        let row = journal.runs(Some(&run)).await.unwrap().remove(0);
        last = records.len() as u64;
        assert!(last >= acknowledged, "kill {kill}: {acknowledged} acknowledged, {last} there");
        assert_eq!(row.last_seq, last, "kill {kill}");
        assert!(!row.driven, "kill {kill}");
        if last > 0 {
            assert_eq!(row.summary, json!(last), "kill {kill}: part of an append");
        }
        let expected: Vec<_> = records.iter().map(|found| record(&run, found.epoch, found.seq)).collect();
        assert_eq!(records, expected, "kill {kill}");
        assert!(records.is_sorted_by_key(|record| record.epoch), "kill {kill}");
        let seqs: Vec<_> = records.iter().map(|record| record.seq).collect();
        assert_eq!(seqs, (1..=last).collect::<Vec<_>>(), "kill {kill}");
    }
    assert!(last > 40, "{last}: they hardly wrote");
}
