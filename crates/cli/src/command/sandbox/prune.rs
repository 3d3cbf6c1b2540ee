//! `moor sandbox prune`: what has not been used for long goes, and what only that needed.
//!
//! A workspace that a run waits in stays, however old: somebody may still answer. So does one that runs.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::ExitCode;

use mooring_journal::{Event, Journal as _};

use super::record::Record;
use crate::args::sandbox::PruneArgs;
use crate::command::runs::status;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host;
use crate::view::text::{count, number, time};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(crate) async fn prune(args: &PruneArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let before = host::now_ms() - i64::from(args.older_than) * DAY_MS;
    let mut used = used_by_runs(&home).await?;
    let records = Record::all(&home)?;
    for record in &records {
        let last = used.entry(record.id().to_owned()).or_insert(record.used_ms);
        *last = record.used_ms.max(*last);
    }
    let unused = |id: &str, folder: &Path| {
        // Of one that nobody knows, the directory itself tells.
        used.get(id).copied().unwrap_or_else(|| changed_ms(folder)) < before
    };
    let prefix = if args.dry_run { "would remove" } else { "removed" };
    let mut gone = 0;
    for (id, result) in mooring_sandbox_local::prune_sessions(&home.state, args.dry_run, &unused)? {
        if let Err(error) = result {
            crate::view::note(&format!("workspace {id} stays: {error}; `moor sandbox rm` may know how"));
            continue;
        }
        let when = used.get(&id).map(|ms| format!(", last used {}", time(*ms))).unwrap_or_default();
        crate::view::line(&format!("{prefix} workspace {id}{when}"))?;
        gone += 1;
        if !args.dry_run {
            Record::forget(&home, &id)?;
        }
    }
    // Those whose workspace lies elsewhere, and stays.
    let gone_elsewhere = records
        .iter()
        .filter(|record| record.used_ms < before && !home.state.join("sandboxes").join(record.id()).exists());
    for record in gone_elsewhere.filter(|_| !args.dry_run) {
        Record::forget(&home, record.id())?;
    }
    let store = home.snapshots()?;
    // What a sandbox that stays began with is what its differences are told from.
    let kept: Vec<Record> = Record::all(&home)?;
    let bases: HashSet<&str> = kept.iter().filter_map(|record| record.base.as_deref()).collect();
    for snapshot in store.list()? {
        let session_lives = used.get(&snapshot.session).is_some_and(|last| *last >= before);
        if snapshot.taken_ms < before && !bases.contains(snapshot.id.as_str()) && !session_lives {
            crate::view::line(&format!(
                "{prefix} snapshot {}, taken {}",
                snapshot.id,
                time(snapshot.taken_ms)
            ))?;
            if !args.dry_run {
                store.remove(&snapshot.id)?;
            }
        }
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let sessions: Vec<String> =
        used.into_iter().filter(|(_, last)| *last >= before).map(|(id, _)| id).collect();
    let pruned = store.prune(&sessions)?;
    crate::view::line(&format!(
        "{} removed, and {} bytes of snapshots that nothing needs",
        count(gone, "workspace"),
        number(pruned.bytes)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// When runs last used their sessions. One that may still go on counts as used now.
async fn used_by_runs(home: &Home) -> Result<BTreeMap<String, i64>, CommandError> {
    let mut used = BTreeMap::new();
    if !home.journal_file().exists() {
        return Ok(used);
    }
    let journal = home.journal()?;
    for row in journal.runs(None).await? {
        let first = journal.read(&row.id, 0, 1).await?.into_iter().next().map(|record| record.event);
        let Some(Event::RunStarted(started)) = first else { continue };
        let Some(session) = started.sandbox["session_id"].as_str() else { continue };
        let waits = matches!(status(&row), "waiting" | "running" | "starting");
        let last = if waits { i64::MAX } else { row.updated_ms };
        let known = used.entry(session.to_owned()).or_insert(last);
        *known = last.max(*known);
    }
    Ok(used)
}

fn changed_ms(folder: &Path) -> i64 {
    let modified = std::fs::metadata(folder).and_then(|metadata| metadata.modified());
    let since = modified.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(i64::MAX, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
