//! `moor sandbox snapshot`, `restore` and `diff`.

use std::io::Write as _;
use std::process::ExitCode;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, SandboxSession, check_support};
use mooring_snapshot::{NewSnapshot, Snapshot, SnapshotError, SnapshotStore};

use super::making::{Beginning, Making};
use super::record::{self, Found, one_of};
use crate::agent_file::SandboxTable;
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
        // Before the work; it may be taken meanwhile all the same.
        return Err(SnapshotError::Exists { id }.into());
    }
    let session = found.readable().await?;
    let manifest_digest = record::manifest(&found.record)?.digest();
    let new = NewSnapshot { id, replaces: false, manifest_digest, taken_ms: host::now_ms() };
    let taken = store.take(session.as_ref(), new).await?;
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
        let found = Found::find_exact(&home, into).await?;
        let session = found.start(&home).await?;
        store.restore(&snapshot.id, session.as_ref()).await?;
        crate::view::line(session.id())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (table, id) = record::described(&args.new);
    let manifest = manifest_of(&home, &snapshot, &table).await?;
    let client = host::with_way_out(&home, record::client(&home, &table, None)?)?;
    check_support(&manifest, &client.support(), client.backend_id())?;
    let from = Some(snapshot.id.clone());
    let making = Making::begin(&home, &id, client.as_ref(), (table, None), &manifest, from)?;
    let request = CreateRequest { session_id: id, manifest: manifest.clone(), workspace: None };
    let create = async { Ok(client.create(request).await?) };
    let restore = async |session: &dyn SandboxSession| {
        session.start().await?;
        store.restore(&snapshot.id, session).await?;
        Ok(Beginning { base: Some(snapshot.id.clone()), own_base: false })
    };
    let session = making.finish(&home, client.as_ref(), create, restore).await?;
    crate::view::line(session.id())?;
    Ok(ExitCode::SUCCESS)
}

/// The manifest that a snapshot's workspace had. What it asks for is granted anew, by this machine's operator and to the
/// new sandbox.
async fn manifest_of(
    home: &Home,
    snapshot: &Snapshot,
    table: &SandboxTable,
) -> Result<Manifest, CommandError> {
    let Some(mut manifest) = record::manifest_of(home, &snapshot.manifest_digest).await? else {
        crate::view::note(&format!(
            "no sandbox and no run has the manifest of snapshot {} any more (digest {}): it is restored without the users, \
             the environment, the limits and the network of that manifest",
            snapshot.id, snapshot.manifest_digest
        ));
        return Ok(Manifest::default());
    };
    let left_out = match (table.backend.as_deref(), &table.image) {
        (None | Some("local"), _) => Some("the sandbox is a local one"),
        (_, Some(_)) => Some("--image names another"),
        _ => None,
    };
    if let Some(reason) = left_out
        && manifest.extension.image.take().is_some()
    {
        crate::view::note(&format!("its manifest names an image, which is left out: {reason}"));
    }
    Ok(manifest)
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
    let session = found.readable().await?;
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
