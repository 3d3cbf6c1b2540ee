//! `moor sandbox snapshot`, `restore` and `diff`.

use std::io::Write as _;
use std::process::ExitCode;

use mooring_manifest::Manifest;
use mooring_sandbox::CreateRequest;
use mooring_snapshot::{NewSnapshot, Snapshot, SnapshotStore};

use super::create::{keep, unless_failed};
use super::record::{self, Found, one_of};
use crate::args::sandbox::{DiffArgs, RestoreArgs, SnapshotArgs};
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host;
use crate::view::text::{count, number};

pub(crate) async fn snapshot(args: &SnapshotArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let store = home.snapshots()?;
    let found = Found::find(&home, &args.sandbox).await?;
    let id = args.name.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    if store.get(&id).is_ok() {
        return Err(CommandError::input(format!("there is a snapshot '{id}' already; use another --name")));
    }
    let session = found.session().await?;
    if session.host_workspace().is_none() {
        session.start().await?;
    }
    let manifest_digest = record::manifest(&found.record)?.digest();
    let taken =
        store.take(session.as_ref(), NewSnapshot { id, manifest_digest, taken_ms: host::now_ms() }).await?;
    if args.json || !crate::view::people() {
        let line = serde_json::to_string(&taken).map_err(|error| CommandError::failed(error.to_string()))?;
        crate::view::line(&line)?;
    } else {
        crate::view::line(&format!(
            "{}  {} · {} bytes, {} added",
            taken.id,
            count(taken.files, "file"),
            number(taken.bytes),
            number(taken.added_bytes)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn restore(args: RestoreArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let store = home.snapshots()?;
    let snapshot = find(&store, &args.snapshot)?;
    if let Some(into) = &args.into {
        let found = Found::find(&home, into).await?;
        let session = found.start(&home).await?;
        store.restore(&snapshot.id, session.as_ref()).await?;
        crate::view::line(session.id())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (table, id) = record::described(&args.new);
    record::refuse_taken(&home, &id)?;
    let manifest = match Found::find(&home, &snapshot.session).await {
        Ok(found) => record::manifest(&found.record)?,
        Err(_) => Manifest::default(),
    };
    let client = record::client(&home, &table)?;
    let request = CreateRequest { session_id: id, manifest: manifest.clone(), workspace: None };
    let session = client.create(request).await?;
    let restored = async {
        session.start().await?;
        Ok(store.restore(&snapshot.id, session.as_ref()).await?)
    };
    let restored = restored.await;
    unless_failed(client.as_ref(), session.as_ref(), restored).await?;
    keep(&home, table, &manifest, session.as_ref(), Some(snapshot.id.clone()), Some(snapshot.id))?;
    crate::view::line(session.id())?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn diff(args: &DiffArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let store = home.snapshots()?;
    let found = Found::find(&home, &args.sandbox).await?;
    let since = match (&args.since, &found.record.base) {
        (Some(since), _) => find(&store, since)?,
        (None, Some(base)) => store.get(base)?,
        (None, None) => {
            return Err(CommandError::input(format!(
                "there is no snapshot of sandbox {} as it was staged. A run takes one with `snapshots = \"end\"` or \
                 \"turn\" in the agent's [sandbox]; or name one with --since",
                found.record.id()
            )));
        }
    };
    let session = found.session().await?;
    if session.host_workspace().is_none() {
        session.start().await?;
    }
    let now = store.look(session.as_ref()).await?;
    let mut patch = Vec::new();
    store.diff(&since.root(), &now, &mut patch)?;
    // As it is: a program reads it, and escapes in it are the workspace's own.
    match std::io::stdout().write_all(&patch) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A snapshot by its id or the beginning of it.
fn find(store: &SnapshotStore, name: &str) -> Result<Snapshot, CommandError> {
    match one_of(&store.list()?, name, "snapshot", |snapshot| &snapshot.id)? {
        Some(found) => Ok(found.clone()),
        None => Ok(store.get(name)?),
    }
}
