//! Three drivers that claim, append, let go, and append after they lost their claim, in any order: a model knows what
//! each must be told, and in both stores that is what they are told.

use mooring_journal::{Claim, Journal, JournalError, MemoryJournal, SqliteJournal};
use proptest::prelude::*;

use crate::support::{append, read_all, record, run_id};

#[derive(Debug, Clone, Copy)]
enum Step {
    Claim,
    /// The claim's guard goes, and the driver believes that it still has it.
    LoseLock,
    /// So many events, after the last that the driver knows.
    Append(u64),
    /// The driver looks how far the run is.
    Refresh,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        3 => Just(Step::Claim),
        2 => Just(Step::LoseLock),
        5 => (0..4u64).prop_map(Step::Append),
        1 => Just(Step::Refresh),
    ];
    prop::collection::vec((0..3usize, step), 1..40)
}

/// What a driver believes.
#[derive(Debug, Default)]
struct Driver {
    guard: Option<Claim>,
    epoch: u64,
    last_seq: u64,
}

async fn play(journal: &dyn Journal, steps: &[(usize, Step)]) {
    let run = run_id("run");
    let first = journal.create(&run, 0, "driver 0").await.unwrap();
    let mut drivers: [Driver; 3] = Default::default();
    drivers[0] = Driver { epoch: first.epoch, last_seq: 0, guard: Some(first) };
    let (mut holder, mut epoch, mut epochs) = (Some(0), 1, Vec::new());
    for &(who, step) in steps {
        let last_seq = epochs.len() as u64;
        match step {
            Step::Claim => match (journal.claim(&run, &format!("driver {who}")).await, holder) {
                (Ok(claim), None) => {
                    epoch += 1;
                    assert_eq!((claim.epoch, claim.last_seq), (epoch, last_seq));
                    drivers[who] = Driver { epoch, last_seq, guard: Some(claim) };
                    holder = Some(who);
                }
                (Err(JournalError::Driven { owner, .. }), Some(holder)) => {
                    assert_eq!(owner, format!("driver {holder}"));
                }
                (told, holder) => panic!("{who} claims, {holder:?} holds: {told:?}"),
            },
            Step::LoseLock => {
                drivers[who].guard = None;
                holder = holder.filter(|holder| *holder != who);
            }
            Step::Refresh => drivers[who].last_seq = last_seq,
            Step::Append(count) => {
                let driver = &mut drivers[who];
                match journal.append(append(&run, driver.epoch, driver.last_seq, count)).await {
                    Ok(seq) => {
                        assert_eq!((driver.epoch, driver.last_seq), (epoch, last_seq));
                        assert_eq!(seq, last_seq + count);
                        driver.last_seq = seq;
                        epochs.resize(seq as usize, epoch);
                    }
                    Err(JournalError::Fenced { epoch: own, current, .. }) => {
                        assert_eq!((own, current), (driver.epoch, epoch));
                        assert_ne!(own, current);
                    }
                    Err(JournalError::Conflict { expected, actual, .. }) => {
                        assert_eq!((expected, actual), (driver.last_seq, last_seq));
                        assert_eq!(driver.epoch, epoch);
                        assert_ne!(expected, actual);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let row = journal.runs(Some(&run)).await.unwrap().remove(0);
        assert_eq!((row.driven, row.epoch, row.last_seq), (holder.is_some(), epoch, epochs.len() as u64));
    }
    let expected: Vec<_> = epochs.iter().zip(1..).map(|(epoch, seq)| record(&run, *epoch, seq)).collect();
    assert_eq!(read_all(journal, &run).await, expected);
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn memory(steps in steps()) {
        block_on(play(&MemoryJournal::new(), &steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn sqlite(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        block_on(play(&SqliteJournal::open(&dir.path().join("journal.db")).unwrap(), &steps));
    }
}

#[tokio::test]
async fn a_fault_hits_one_append() {
    let journal = MemoryJournal::new();
    let (run, _claim) = crate::support::run_with(&journal, "run", 1).await;
    journal.fail_append(2, JournalError::Full { store: "a test".to_owned() });
    assert_eq!(journal.append(append(&run, 1, 1, 1)).await.unwrap(), 2);
    let error = journal.append(append(&run, 1, 2, 1)).await.unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert_eq!(journal.append(append(&run, 1, 2, 1)).await.unwrap(), 3);
    // 0 is none.
    journal.fail_append(0, JournalError::Full { store: "a test".to_owned() });
    assert_eq!(journal.append(append(&run, 1, 3, 1)).await.unwrap(), 4);
}
