//! `moor sandbox rm`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use mooring_snapshot::{SnapshotError, SnapshotStore};

use super::making::remove_unfinished;
use super::record::{self, Record, by_id, meant};
use crate::args::sandbox::RmArgs;
use crate::command_error::CommandError;
use crate::home::Home;

pub(crate) async fn rm(args: &RmArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let store = home.snapshots()?;
    // All are known before one goes; one that is named twice goes once.
    let records = Record::all(&home)?;
    let names: BTreeSet<&str> = args.ids.iter().map(String::as_str).collect();
    for name in &names {
        check(&home, &store, &records, name)?;
    }
    for name in names {
        if let Some(record) = by_id(&records, name) {
            remove(&home, &store, record).await?;
            crate::view::line(&format!("removed sandbox {name}"))?;
        } else {
            forget_snapshot(&store, name)?;
            crate::view::line(&format!("removed snapshot {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses what is neither a sandbox's nor a snapshot's whole id, and what somebody makes just now.
fn check(home: &Home, store: &SnapshotStore, records: &[Record], name: &str) -> Result<(), CommandError> {
    if let Some(record) = by_id(records, name) {
        return if record.being_made(home) { record.refuse_unfinished(home) } else { Ok(()) };
    }
    match store.get(name) {
        Ok(_) => Ok(()),
        Err(SnapshotError::Unknown { .. }) => {
            let snapshots = store.list()?;
            let ids = records.iter().map(Record::id).chain(snapshots.iter().map(|one| one.id.as_str()));
            Err(CommandError::input(format!(
                "there is no sandbox and no snapshot '{name}', and nothing was removed; `moor sandbox list` lists the \
                 sandboxes, with --snapshots the snapshots. What runs left goes with `moor sandbox prune`{}",
                meant(ids, name)
            )))
        }
        Err(error) => Err(error.into()),
    }
}

async fn remove(home: &Home, store: &SnapshotStore, record: &Record) -> Result<(), CommandError> {
    let client = record::client(home, &record.sandbox, record.directory.as_deref())?;
    if record.unfinished {
        remove_unfinished(client.as_ref(), record.id(), record::manifest(record)?).await?;
    } else {
        client.delete(&record.state).await?;
    }
    Record::forget(home, record.id())?;
    let Some(base) = record.base.as_ref().filter(|_| record.own_base) else { return Ok(()) };
    if Record::all(home)?.iter().any(|other| other.base.as_ref() == Some(base)) {
        return Ok(());
    }
    forget_snapshot(store, base)
}

/// One that has gone meanwhile is no error: it may have gone with its sandbox.
fn forget_snapshot(store: &SnapshotStore, id: &str) -> Result<(), CommandError> {
    match store.remove(id) {
        Err(error) if !matches!(error, SnapshotError::Unknown { .. }) => Err(error.into()),
        _ => Ok(()),
    }
}
