//! What every store does, as one function, run against each.

use std::sync::Arc;

use mooring_journal::event::Reward;
use mooring_journal::{
    Append, Durability, Event, Journal, JournalError, MemoryJournal, RunRow, SqliteJournal,
};
use serde_json::{Value, json};

use crate::support::{append, event, read_all, record, run_id, run_with};

#[tokio::test]
async fn memory() {
    conforms(&MemoryJournal::new()).await;
}

#[tokio::test]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&SqliteJournal::open(&dir.path().join("journal.db")).unwrap()).await;
}

/// Everything the contract says of an empty store.
async fn conforms(journal: &dyn Journal) {
    assert_eq!(journal.runs(None).await.unwrap(), []);
    what_was_appended_is_read(journal).await;
    a_batch_is_all_or_nothing(journal).await;
    reading_goes_by_pages(journal).await;
    an_epoch_fences(journal).await;
    a_claim_is_exclusive_until_dropped(journal).await;
    signals_are_taken_once_in_order(journal).await;
    signals_have_a_limit(journal).await;
    a_run_is_made_once(journal).await;
    unknown_runs_are_named(journal).await;
    what_could_not_be_read_back_is_refused(journal).await;
    unknown_events_are_kept(journal).await;
    listings_show_the_newest_first(journal).await;
    concurrent_appends_are_told_apart(journal).await;
}

async fn what_was_appended_is_read(journal: &dyn Journal) {
    let (run, claim) = run_with(journal, "appended", 5).await;
    assert_eq!((claim.epoch, claim.last_seq), (1, 5));
    assert_eq!(journal.append(append(&run, 1, 5, 1)).await.unwrap(), 6);
    let expected: Vec<_> = (1..=6).map(|seq| record(&run, 1, seq)).collect();
    assert_eq!(read_all(journal, &run).await, expected);
    // No events: only what listings show changes.
    let mut summary = append(&run, 1, 6, 0);
    summary.summary = Some(r#"{"status":"running"}"#.to_owned());
    summary.durability = Durability::Power;
    assert_eq!(journal.append(summary).await.unwrap(), 6);
    let row = RunRow {
        id: run.clone(),
        created_ms: 1000,
        updated_ms: 1006,
        last_seq: 6,
        epoch: 1,
        driven: true,
        summary: json!({"status": "running"}),
    };
    assert_eq!(journal.runs(Some(&run)).await.unwrap(), std::slice::from_ref(&row));
    // A summary stays until another is given, and is replaced as a whole.
    journal.append(append(&run, 1, 6, 1)).await.unwrap();
    let row = RunRow { updated_ms: 1007, last_seq: 7, ..row };
    assert_eq!(journal.runs(Some(&run)).await.unwrap(), std::slice::from_ref(&row));
    journal.append(Append { summary: Some("[1]".to_owned()), ..append(&run, 1, 7, 0) }).await.unwrap();
    assert_eq!(journal.runs(Some(&run)).await.unwrap(), [RunRow { summary: json!([1]), ..row }]);
}

async fn a_batch_is_all_or_nothing(journal: &dyn Journal) {
    let (run, _claim) = run_with(journal, "atomic", 2).await;
    for expected in [0, 1, 3, 1 << 40] {
        let error = journal.append(append(&run, 1, expected, 3)).await.unwrap_err();
        let JournalError::Conflict { expected: said, actual: 2, .. } = error else { panic!("{error}") };
        assert_eq!(said, expected);
    }
    // The last event of the batch is refused: the ones before it are not there either.
    let mut bad = append(&run, 1, 2, 3);
    Arc::make_mut(&mut bad.events)[2].event = Event::Reward(Reward { value: f64::NAN, ..Default::default() });
    journal.append(bad).await.unwrap_err();
    assert_eq!(read_all(journal, &run).await.len(), 2);
    assert_eq!(journal.append(append(&run, 1, 2, 3)).await.unwrap(), 5);
}

async fn reading_goes_by_pages(journal: &dyn Journal) {
    let (run, _claim) = run_with(journal, "pages", 10).await;
    // A neighbour's events are not among them.
    let (_other, _other_claim) = run_with(journal, "pages-2", 10).await;
    let seqs = async |after, limit| -> Vec<u64> {
        journal.read(&run, after, limit).await.unwrap().iter().map(|record| record.seq).collect()
    };
    assert_eq!(seqs(0, 4).await, [1, 2, 3, 4]);
    assert_eq!(seqs(4, 4).await, [5, 6, 7, 8]);
    assert_eq!(seqs(8, 4).await, [9, 10]);
    assert_eq!(seqs(9, 1).await, [10]);
    assert_eq!(seqs(10, 4).await, [0; 0]);
    assert_eq!(seqs(11, 4).await, [0; 0]);
    assert_eq!(seqs(u64::MAX, 4).await, [0; 0]);
    assert_eq!(seqs(3, 0).await, [0; 0]);
    let empty = run_id("pages-empty");
    let _claim = journal.create(&empty, 0, "test").await.unwrap();
    assert_eq!(journal.read(&empty, 0, 10).await.unwrap(), []);
}

async fn an_epoch_fences(journal: &dyn Journal) {
    let (run, first) = run_with(journal, "fenced", 1).await;
    drop(first);
    // Nobody took the run over: the epoch, not the lock, decides.
    journal.append(append(&run, 1, 1, 1)).await.unwrap();
    let second = journal.claim(&run, "second").await.unwrap();
    assert_eq!((second.epoch, second.last_seq), (2, 2));
    for stale in [0, 1, 3] {
        let error = journal.append(append(&run, stale, 2, 1)).await.unwrap_err();
        let JournalError::Fenced { epoch, current: 2, .. } = error else { panic!("{error}") };
        assert_eq!(epoch, stale);
    }
    journal.append(append(&run, 2, 2, 1)).await.unwrap();
    let epochs: Vec<_> = read_all(journal, &run).await.iter().map(|record| record.epoch).collect();
    assert_eq!(epochs, [1, 1, 2]);
}

async fn a_claim_is_exclusive_until_dropped(journal: &dyn Journal) {
    let (run, claim) = run_with(journal, "claimed", 1).await;
    for _ in 0..3 {
        let error = journal.claim(&run, "second").await.unwrap_err();
        let JournalError::Driven { owner, .. } = error else { panic!("{error}") };
        assert_eq!(owner, "test");
        assert!(journal.runs(Some(&run)).await.unwrap()[0].driven);
    }
    // Failed claims take nothing from the one that holds.
    journal.append(append(&run, 1, 1, 1)).await.unwrap();
    drop(claim);
    assert!(!journal.runs(Some(&run)).await.unwrap()[0].driven);
    let claim = journal.claim(&run, "third").await.unwrap();
    assert_eq!(claim.epoch, 2);
    let error = journal.claim(&run, "fourth").await.unwrap_err();
    assert!(matches!(&error, JournalError::Driven { owner, .. } if owner == "third"), "{error}");
}

async fn signals_are_taken_once_in_order(journal: &dyn Journal) {
    let (run, _claim) = run_with(journal, "signals", 0).await;
    let (other, _other_claim) = run_with(journal, "signals-2", 0).await;
    assert!(journal.signals(&run).await.unwrap().is_empty());
    for word in ["cancel", "pause", "cancel"] {
        journal.signal(&run, word).await.unwrap();
    }
    journal.signal(&other, "else").await.unwrap();
    assert_eq!(journal.signals(&run).await.unwrap(), ["cancel", "pause", "cancel"]);
    assert!(journal.signals(&run).await.unwrap().is_empty());
    assert_eq!(journal.signals(&other).await.unwrap(), ["else"]);
}

async fn signals_have_a_limit(journal: &dyn Journal) {
    let (run, _claim) = run_with(journal, "flooded", 0).await;
    for _ in 0..1000 {
        journal.signal(&run, "word").await.unwrap();
    }
    let error = journal.signal(&run, "word").await.unwrap_err();
    assert!(error.to_string().contains("1000 words wait for run flooded already"), "{error}");
    assert_eq!(journal.signals(&run).await.unwrap().len(), 1000);
    journal.signal(&run, "word").await.unwrap();
}

async fn a_run_is_made_once(journal: &dyn Journal) {
    let (run, claim) = run_with(journal, "once", 1).await;
    for claim in [Some(claim), None] {
        let error = journal.create(&run, 5, "test").await.unwrap_err();
        assert!(matches!(error, JournalError::RunExists { .. }), "{error}");
        drop(claim);
    }
    for id in ["", ".", "..", "a/b", "../a", "a b", "a\0", "ü", "a.lock", &"a".repeat(129)] {
        let error = journal.create(&run_id(id), 0, "test").await.unwrap_err();
        assert!(error.to_string().contains("cannot be a run's id"), "{id:?}: {error}");
    }
    let _claim = journal.create(&run_id(&"a".repeat(128)), 0, "test").await.unwrap();
}

async fn unknown_runs_are_named(journal: &dyn Journal) {
    for id in ["nobody", "../nobody", ""] {
        let run = run_id(id);
        let errors = [
            journal.claim(&run, "test").await.unwrap_err(),
            journal.append(append(&run, 1, 0, 1)).await.unwrap_err(),
            journal.read(&run, 0, 1).await.unwrap_err(),
            journal.runs(Some(&run)).await.unwrap_err(),
            journal.signal(&run, "cancel").await.unwrap_err(),
            journal.signals(&run).await.unwrap_err(),
        ];
        for error in errors {
            assert!(
                matches!(&error, JournalError::UnknownRun { run: named, .. } if *named == run),
                "{error}"
            );
        }
    }
}

async fn what_could_not_be_read_back_is_refused(journal: &dyn Journal) {
    let (run, _claim) = run_with(journal, "refused", 0).await;
    let with_output = |output: Value| {
        let mut append = append(&run, 1, 0, 1);
        let Event::ToolCompleted(tool) = &mut Arc::make_mut(&mut append.events)[0].event else { panic!() };
        tool.output = output;
        append
    };
    let nested = |levels| (0..levels).fold(json!("[[[["), |inner, _| json!([inner]));
    // The event itself is a level.
    let error = journal.append(with_output(nested(120))).await.unwrap_err();
    assert!(error.to_string().contains("deeper than 120 levels"), "{error}");
    for value in [f64::NAN, f64::INFINITY] {
        let mut append = append(&run, 1, 0, 1);
        Arc::make_mut(&mut append.events)[0].event = Event::Reward(Reward { value, ..Default::default() });
        let error = journal.append(append).await.unwrap_err();
        assert!(error.to_string().contains("no JSON form"), "{error}");
    }
    let deepest = with_output(nested(119));
    journal.append(deepest.clone()).await.unwrap();
    assert_eq!(read_all(journal, &run).await[0].event, deepest.events[0].event);
    // Numbers come back to the last bit.
    let mut append = append(&run, 1, 1, 1);
    let logprobs =
        json!([0.1, -1e-300, 5e-324, 1.797_693_134_862_315_7e308, 0.300_000_000_000_000_04, u64::MAX]);
    Arc::make_mut(&mut append.events)[0].event =
        Event::Unknown(json!({"type": "numbers", "n": logprobs}).as_object().unwrap().clone());
    journal.append(append.clone()).await.unwrap();
    assert_eq!(read_all(journal, &run).await[1].event, append.events[0].event);
}

async fn unknown_events_are_kept(journal: &dyn Journal) {
    let (run, _claim) = run_with(journal, "unknown", 0).await;
    let unknown = json!({"type": "teleported", "to": {"z": 1, "a": [null, true]}, "by": "v9"});
    let event: Event = serde_json::from_value(unknown.clone()).unwrap();
    let mut append = append(&run, 1, 0, 1);
    Arc::make_mut(&mut append.events)[0].event = event;
    journal.append(append).await.unwrap();
    let record = &read_all(journal, &run).await[0];
    assert_eq!(record.event, Event::Unknown(unknown.as_object().unwrap().clone()));
    assert_eq!(
        serde_json::to_string(record).unwrap(),
        r#"{"run":"unknown","seq":1,"epoch":1,"at_ms":1001,"v":1,"type":"teleported","to":{"z":1,"a":[null,true]},"by":"v9"}"#
    );
}

async fn listings_show_the_newest_first(journal: &dyn Journal) {
    let before: Vec<_> = journal.runs(None).await.unwrap();
    for (id, created_ms) in [("list-b", 5000), ("list-a", 7000), ("list-d", 6000), ("list-c", 6000)] {
        drop(journal.create(&run_id(id), created_ms, "test").await.unwrap());
    }
    let rows = journal.runs(None).await.unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row.id.0.as_str()).collect();
    // Of one moment: the one made last.
    assert_eq!(ids[..4], ["list-a", "list-c", "list-d", "list-b"]);
    assert_eq!(rows[4..], before);
    assert_eq!(
        rows[0],
        RunRow {
            id: run_id("list-a"),
            created_ms: 7000,
            updated_ms: 7000,
            last_seq: 0,
            epoch: 1,
            driven: false,
            summary: Value::Null
        }
    );
}

/// Appends that meet in one group: the bad ones fail, each with its own error; the good ones do not notice.
async fn concurrent_appends_are_told_apart(journal: &dyn Journal) {
    let mut claims = Vec::new();
    for n in 0..20 {
        claims.push(run_with(journal, &format!("many-{n}"), 1).await);
    }
    let run = |n: usize| &claims[n].0;
    let rounds = (0..20).map(|n| async move {
        // Those that are to be synced wait for each other, and others for them.
        let durability = if n % 2 == 0 { Durability::Power } else { Durability::Process };
        let append = |epoch, after, count| {
            journal.append(Append { durability, ..append(run(n), epoch, after, count) })
        };
        let (good, stale, late, second) =
            tokio::join!(append(1, 1, 2), append(7, 1, 1), append(1, 0, 1), append(1, 3, 2));
        assert_eq!(good.unwrap(), 3);
        assert!(matches!(stale, Err(JournalError::Fenced { .. })));
        assert!(matches!(late, Err(JournalError::Conflict { .. })));
        assert_eq!(second.unwrap(), 5);
    });
    futures::future::join_all(rounds).await;
    for n in 0..20 {
        let events: Vec<_> = read_all(journal, run(n)).await.into_iter().map(|record| record.event).collect();
        assert_eq!(events, (1..=5).map(event).collect::<Vec<_>>());
    }
}
