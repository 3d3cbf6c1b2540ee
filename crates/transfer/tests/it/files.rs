//! Whole files, and all others.

use std::path::Path;

use mooring_harness::HarnessError;
use mooring_journal::{Journal, JournalError, MemoryJournal, Record, RunId};
use mooring_transfer::{Bundle, Exported, Imported, Importer, TransferError};
use sha2::{Digest as _, Sha256};

use crate::world::{RUN, agents, bring_out, journal};

async fn bring_in(journal: &dyn Journal, file: &[u8]) -> Result<Imported, TransferError> {
    let agents = agents();
    let importer = Importer {
        journal,
        agents: &agents,
        new_session: &|| "new-session".to_owned(),
        now_ms: 1_900_000_000_000,
        owner: "test",
    };
    Bundle::read(file, Path::new("/nowhere"))?.import(&importer).await
}

async fn events(journal: &dyn Journal, run: &str) -> Vec<Record> {
    journal.read(&RunId(run.into()), 0, 1000).await.unwrap()
}

/// The same file with another content of one member, its header told of it where `honest`.
fn with(file: &[u8], name: &str, change: impl Fn(&str) -> String) -> Vec<u8> {
    let hex =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in tar::Archive::new(file).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        std::io::copy(&mut entry, &mut content).unwrap();
        members.push((name, content));
    }
    let mut header: serde_json::Value = serde_json::from_slice(&members[0].1).unwrap();
    for (member, content) in &mut members {
        if member == name {
            *content = change(std::str::from_utf8(content).unwrap()).into_bytes();
            for part in header["runs"].as_array_mut().unwrap() {
                if part["file"] == name {
                    part["bytes"] = content.len().into();
                    part["sha256"] = hex(content).into();
                }
            }
        }
    }
    if name != "mooring-run.json" {
        members[0].1 = serde_json::to_vec(&header).unwrap();
    }
    members[1].1 = hex(&members[0].1).into_bytes();
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut entry = tar::Header::new_ustar();
        entry.set_size(content.len() as u64);
        archive.append_data(&mut entry, name, content.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

#[tokio::test]
async fn a_run_is_the_same_where_it_is_brought() {
    let (here, there) = (journal().await, MemoryJournal::new());
    let spool = tempfile::tempdir().unwrap();
    let (exported, file) = bring_out(here.as_ref(), RUN, spool.path()).await.unwrap();
    assert_eq!(exported, Exported { runs: 2, events: 14, workspaces: 0 });
    let imported = bring_in(&there, &file).await.unwrap();
    assert_eq!(imported, Imported { run: RunId(RUN.into()), runs: 2, workspaces: 0, anew: 0 });
    for run in [RUN, "r-1-0"] {
        let (before, after) = (events(here.as_ref(), run).await, events(&there, run).await);
        let of = |record: &Record| (record.seq, record.at_ms, record.event.clone());
        assert_eq!(
            before.iter().map(of).collect::<Vec<_>>(),
            after[..before.len()].iter().map(of).collect::<Vec<_>>()
        );
        assert_eq!(after.len(), before.len() + 1, "and that it was brought here");
        let row = there.runs(Some(&RunId(run.into()))).await.unwrap().remove(0);
        assert_eq!((row.created_ms, &row.summary["status"]), (before[0].at_ms, &"completed".into()));
    }
    let again = bring_in(&there, &file).await.unwrap();
    assert_eq!(again.runs, 0, "twice changes nothing");
    assert_eq!(bring_in(here.as_ref(), &file).await.unwrap().runs, 0, "where it came from too");
}

#[tokio::test]
async fn a_file_that_is_cut_anywhere_is_refused() {
    let spool = tempfile::tempdir().unwrap();
    let (_, file) = bring_out(journal().await.as_ref(), RUN, spool.path()).await.unwrap();
    for length in 0..file.len() {
        let error = Bundle::read(&file[..length], spool.path()).unwrap_err();
        assert!(matches!(error, TransferError::Damaged { .. }), "{length}: {error}");
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert!(Bundle::read(longer.as_slice(), spool.path()).is_err());
    Bundle::read(file.as_slice(), spool.path()).unwrap();
}

#[tokio::test]
async fn a_file_that_is_changed_anywhere_is_refused_or_says_the_same() {
    let spool = tempfile::tempdir().unwrap();
    let (_, file) = bring_out(journal().await.as_ref(), RUN, spool.path()).await.unwrap();
    let whole = format!("{:?}", Bundle::read(file.as_slice(), spool.path()).unwrap());
    let mut refused = 0;
    for place in (0..file.len()).step_by(7) {
        let mut changed = file.clone();
        changed[place] ^= 0x55;
        match Bundle::read(changed.as_slice(), spool.path()) {
            Ok(bundle) => assert_eq!(format!("{bundle:?}"), whole, "{place}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > file.len() / 14, "{refused} of {}", file.len());
}

#[tokio::test]
async fn a_file_of_a_newer_version_says_so() {
    let spool = tempfile::tempdir().unwrap();
    let (_, file) = bring_out(journal().await.as_ref(), RUN, spool.path()).await.unwrap();
    let read = |file: Vec<u8>| Bundle::read(file.as_slice(), spool.path()).unwrap_err();
    let newer = with(&file, "mooring-run.json", |text| text.replace("\"version\": 1", "\"version\": 2"));
    insta::assert_snapshot!(read(newer), @"the file was written by test, in a form that this version does not know (version 2 of the file). Use that version, or a newer one");
    let newer = with(&file, "run-0.jsonl", |text| text.replace("\"v\":1", "\"v\":2"));
    insta::assert_snapshot!(read(newer), @"the file was written by test, in a form that this version does not know (version 2 of events). Use that version, or a newer one");
    let newer = with(&file, "run-1.jsonl", |text| {
        text.replace("\"type\":\"model_requested\"", "\"type\":\"wished\"")
    });
    insta::assert_snapshot!(read(newer), @"the file was written by test, in a form that this version does not know (an event of the type 'wished'). Use that version, or a newer one");
}

#[tokio::test]
async fn events_that_do_not_fit_are_refused_though_the_digests_do() {
    let spool = tempfile::tempdir().unwrap();
    let (_, file) = bring_out(journal().await.as_ref(), RUN, spool.path()).await.unwrap();
    let read = |file: Vec<u8>| Bundle::read(file.as_slice(), spool.path()).unwrap_err().to_string();
    let cut =
        |text: &str, from: usize| text.lines().skip(from).map(|line| format!("{line}\n")).collect::<String>();
    let gap = with(&file, "run-1.jsonl", |text| cut(text, 1));
    assert!(read(gap).contains("event 1 of run r: it says that it is event 2"));
    let empty = with(&file, "run-0.jsonl", |_| String::new());
    assert!(read(empty).contains("run r-1-0 has no events"));
    let other = with(&file, "run-0.jsonl", |text| text.replace("\"run\":\"r-1-0\"", "\"run\":\"x\""));
    assert!(read(other).contains("of run x"));
    let orphan = with(&file, "run-0.jsonl", |text| {
        text.replace("\"parent\":{\"run\":\"r\"", "\"parent\":{\"run\":\"z\"")
    });
    assert!(read(orphan).contains("run r-1-0 has no place in it"));
    let deep = with(&file, "run-0.jsonl", |text| text.replace("\"labels\"", "\"x\"") + &"[".repeat(100_000));
    assert!(read(deep).contains("event 6 of run r-1-0"));
}

/// Nothing in the file chooses a path: members that are not the expected ones are refused, whatever they are.
#[tokio::test]
async fn only_the_expected_members_are_taken() {
    let spool = tempfile::tempdir().unwrap();
    for (kind, name, link) in [
        (tar::EntryType::Symlink, "mooring-run.json", Some("/etc/passwd")),
        (tar::EntryType::Link, "mooring-run.json", Some("/etc/passwd")),
        (tar::EntryType::Regular, "../escape", None),
        (tar::EntryType::Fifo, "mooring-run.json", None),
        (tar::EntryType::GNULongName, "mooring-run.json", None),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, std::io::empty()).unwrap();
        let file = archive.into_inner().unwrap();
        let error = Bundle::read(file.as_slice(), spool.path()).unwrap_err();
        assert!(matches!(error, TransferError::Damaged { .. }), "{name}: {error}");
    }
    let mut header = tar::Header::new_ustar();
    header.set_path("mooring-run.json").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let error = Bundle::read(header.as_bytes().as_slice(), spool.path()).unwrap_err();
    assert!(matches!(error, TransferError::TooLarge { .. }), "{error}");
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_run_that_has_done_something_else_here_is_left_alone() {
    let here = journal().await;
    let spool = tempfile::tempdir().unwrap();
    let (_, file) = bring_out(here.as_ref(), RUN, spool.path()).await.unwrap();
    let other = with(&file, "run-1.jsonl", |text| text.replace("all done", "all lost"));
    let before = events(here.as_ref(), RUN).await;
    let error = bring_in(here.as_ref(), &other).await.unwrap_err();
    assert!(matches!(&error, TransferError::Differs { run, seq: 8 } if run.0 == RUN), "{error}");
    assert_eq!(events(here.as_ref(), RUN).await, before);
}

#[tokio::test]
async fn an_import_that_is_interrupted_is_done_again() {
    let spool = tempfile::tempdir().unwrap();
    let (_, file) = bring_out(journal().await.as_ref(), RUN, spool.path()).await.unwrap();
    for nth in [1, 2] {
        let there = MemoryJournal::new();
        there.fail_append(nth, JournalError::Full { store: "test".into() });
        bring_in(&there, &file).await.unwrap_err();
        let again = bring_in(&there, &file).await.unwrap();
        assert_eq!(again.runs, 3 - nth, "what was whole stays");
        assert_eq!(bring_in(&there, &file).await.unwrap().runs, 0);
    }
}

#[tokio::test]
async fn a_run_that_is_driven_or_part_of_another_is_not_brought_out() {
    let here = journal().await;
    let spool = tempfile::tempdir().unwrap();
    let error = bring_out(here.as_ref(), "r-1-0", spool.path()).await.unwrap_err();
    assert!(matches!(error, TransferError::Harness(HarnessError::Part { .. })), "{error}");
    for run in [RUN, "r-1-0"] {
        let _claim = here.claim(&RunId(run.into()), "somebody").await.unwrap();
        let error = bring_out(here.as_ref(), RUN, spool.path()).await.unwrap_err();
        assert!(matches!(error, TransferError::Journal(JournalError::Driven { .. })), "{error}");
    }
}
