//! Accounts: what is set aside of them is given once, whoever asks at the same time.

use std::process::Stdio;

use mooring_journal::{Amounts, Holding, Journal, MemoryJournal, RunId, SqliteJournal};

use crate::support::{child, child_dir, run_id};

fn amounts(tokens: u64) -> Amounts {
    Amounts::from([("tokens".to_owned(), tokens)])
}

#[tokio::test]
async fn memory() {
    conforms(&MemoryJournal::new()).await;
}

#[tokio::test]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&SqliteJournal::open(&dir.path().join("journal.db")).unwrap()).await;
}

async fn conforms(journal: &dyn Journal) {
    let (one, two) = (run_id("one"), run_id("two"));
    let none = Amounts::new();
    let limit = amounts(100);
    // As much as is wanted, or all that is left where nothing is said.
    assert_eq!(journal.reserve("a", &one, &amounts(30), &limit).await.unwrap(), amounts(30));
    assert_eq!(journal.reserve("a", &two, &none, &limit).await.unwrap(), amounts(70));
    assert_eq!(journal.reserve("a", &run_id("three"), &none, &limit).await.unwrap(), amounts(0));
    assert_eq!(journal.reserve("b", &one, &none, &limit).await.unwrap(), amounts(100), "another account");
    // Asking again gives the same.
    assert_eq!(journal.reserve("a", &one, &amounts(90), &limit).await.unwrap(), amounts(30));
    // What was not used is there for others, and settling twice gives nothing twice.
    for _ in 0..2 {
        journal.settle("a", &two, &amounts(10)).await.unwrap();
    }
    assert_eq!(journal.reserve("a", &run_id("four"), &none, &limit).await.unwrap(), amounts(60));
    journal.settle("a", &run_id("four"), &amounts(0)).await.unwrap();
    // Who goes on after all keeps what it used as part of what it gets.
    assert_eq!(journal.reserve("a", &two, &amounts(40), &limit).await.unwrap(), amounts(40));
    // A limit that was lowered takes nothing back, and gives nothing more.
    assert_eq!(journal.reserve("a", &run_id("five"), &none, &amounts(50)).await.unwrap(), amounts(0));
    journal.settle("a", &one, &amounts(30)).await.unwrap();
    assert_eq!(journal.reserve("a", &one, &none, &amounts(5)).await.unwrap(), amounts(30));
    let holding = |account: &str, holder: &RunId, open, tokens| Holding {
        account: account.into(),
        holder: holder.clone(),
        open,
        amounts: amounts(tokens),
    };
    let held = journal.holdings().await.unwrap();
    assert!(held.contains(&holding("a", &two, true, 40)), "{held:?}");
    assert!(held.contains(&holding("b", &one, true, 100)), "{held:?}");
    // What is not limited is not given out.
    let other = Amounts::from([("money".to_owned(), 1)]);
    assert_eq!(journal.reserve("c", &one, &other, &limit).await.unwrap(), limit);
}

/// One of many processes that each take what they can.
#[tokio::test]
#[ignore = "run by the other"]
async fn process() {
    let journal = SqliteJournal::open(&child_dir().join("journal.db")).unwrap();
    let me = std::process::id();
    let mut got = 0;
    for n in 0..50 {
        let holder = RunId(format!("run-{me}-{n}"));
        let granted = journal.reserve("a", &holder, &amounts(7), &amounts(1_000)).await.unwrap();
        got += granted["tokens"];
        // Some of it is used, the rest goes back.
        let used = granted["tokens"].min(3);
        if n % 2 == 0 {
            journal.settle("a", &holder, &amounts(used)).await.unwrap();
            got -= granted["tokens"] - used;
        }
    }
    println!("\n@ {got}");
}

#[tokio::test]
async fn processes_that_race_never_overdraw_an_account() {
    let dir = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&dir.path().join("journal.db")).unwrap();
    let start =
        |_| child(r#"exec "$@""#, "accounts::process", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let racers: Vec<_> = (0..6).map(start).collect();
    let mut got = 0;
    for racer in racers {
        let output = racer.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix("@ ")).unwrap_or_else(|| panic!("{said}"));
        got += line.parse::<u64>().unwrap();
    }
    let held: u64 = journal.holdings().await.unwrap().iter().map(|holding| holding.amounts["tokens"]).sum();
    assert_eq!((got, held), (1_000, 1_000), "all of it was given out, and not a token more");
}
