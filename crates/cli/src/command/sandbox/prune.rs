//! `moor sandbox prune`: what has not been used for long goes, and what only that needed.
//!
//! A workspace that a run waits in stays, however old: somebody may still answer. So does one that runs. Of what
//! containers left, only what no run and no sandbox names goes.

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
/// How many events are read at a time.
const PAGE: usize = 1000;

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
    gone += prune_docker(&home, args.dry_run, &used, before).await?;
    // Those whose workspace lies elsewhere on this host, and stays. A container's is kept by its record.
    let gone_elsewhere = records
        .iter()
        .filter(|record| record.state.backend == "local")
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

/// Removes what is left on the Docker engine, where there ever were containers. Gives how many workspaces went.
async fn prune_docker(
    home: &Home,
    dry_run: bool,
    used: &BTreeMap<String, i64>,
    before: i64,
) -> Result<u64, CommandError> {
    if !home.state.join("docker").exists() {
        return Ok(0);
    }
    let unused = |session: &str, made_ms: i64| !used.contains_key(session) && made_ms < before;
    let pruned = match host::docker(home)?.prune(dry_run, &unused).await {
        Ok(pruned) => pruned,
        Err(error) => {
            crate::view::note(&format!("what containers left stays: {error}"));
            return Ok(0);
        }
    };
    let prefix = if dry_run { "would remove" } else { "removed" };
    for container in pruned.containers {
        crate::view::line(&format!("{prefix} container {}", container.container))?;
    }
    let mut gone = 0;
    for (session, result) in pruned.workspaces {
        match result {
            Ok(()) => crate::view::line(&format!("{prefix} workspace {session}, a volume"))?,
            Err(error) => {
                crate::view::note(&format!("workspace {session} stays: {error}"));
                continue;
            }
        }
        gone += 1;
    }
    Ok(gone)
}

/// When runs last used their sessions: all that they ever had. One that may still go on counts as used now.
async fn used_by_runs(home: &Home) -> Result<BTreeMap<String, i64>, CommandError> {
    let mut used = BTreeMap::new();
    if !home.journal_file().exists() {
        return Ok(used);
    }
    let journal = home.journal()?;
    for row in journal.runs(None).await? {
        let waits = matches!(status(&row), "waiting" | "running" | "starting");
        let last = if waits { i64::MAX } else { row.updated_ms };
        let mut seq = 0;
        loop {
            let records = journal.read(&row.id, seq, PAGE).await?;
            let Some(end) = records.last().map(|record| record.seq) else { break };
            for session in records.iter().filter_map(|record| named(&record.event)) {
                let known = used.entry(session.to_owned()).or_insert(last);
                *known = last.max(*known);
            }
            seq = end;
        }
    }
    Ok(used)
}

/// The session that an event gives a run. Each is named before anything of it is made.
fn named(event: &Event) -> Option<&str> {
    match event {
        Event::RunStarted(started) => started.sandbox["session_id"].as_str(),
        Event::RunImported(imported) => Some(&imported.session_id),
        Event::SandboxRequested(requested) => Some(&requested.session_id),
        _ => None,
    }
}

fn changed_ms(folder: &Path) -> i64 {
    let modified = std::fs::metadata(folder).and_then(|metadata| metadata.modified());
    let since = modified.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(i64::MAX, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
