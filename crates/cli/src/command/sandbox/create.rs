//! `moor sandbox create` and `fork`.

use std::path::Path;
use std::process::ExitCode;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, Plan, SandboxSession, SetUp};
use mooring_snapshot::{NewSnapshot, Snapshot, SnapshotError};

use super::making::{Beginning, Making};
use super::record::{self, Found};
use crate::agent_file::read_manifest;
use crate::args::sandbox::{CreateArgs, ForkArgs};
use crate::command_error::CommandError;
use crate::home::{Home, absolute};
use crate::{host, lock};

pub(crate) async fn create(args: CreateArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let (manifest, base) = match &args.manifest {
        Some(path) => read_manifest(path)?,
        None => (Manifest::default(), absolute(Path::new("."))?),
    };
    let (table, id) = record::described(&args.new);
    let client = host::with_way_out(&home, record::client(&home, &table, Some(&base))?)?;
    client.check(&manifest)?;
    let credentials = lock::credentials(&manifest)?;
    let (support, backend) = (client.support(), client.backend_id());
    let plan = Plan::with_credentials(&manifest, &base, &support, backend, &credentials)?;
    let workspace = args.workspace.as_deref().map(absolute).transpose()?;
    if let Some(workspace) = &workspace {
        plan.refuse_conflicts(workspace)?;
    }
    let making = Making::begin(&home, &id, client.as_ref(), (table, Some(base)), &manifest, None)?;
    let request = CreateRequest { session_id: id, manifest: manifest.clone(), workspace };
    let create = async { Ok(client.create(request).await?) };
    let stage = async |session: &dyn SandboxSession| stage(&home, &plan, session, &manifest).await;
    let session = making.finish(&home, client.as_ref(), create, stage).await?;
    crate::view::line(session.id())?;
    Ok(ExitCode::SUCCESS)
}

async fn stage(
    home: &Home,
    plan: &Plan,
    session: &dyn SandboxSession,
    manifest: &Manifest,
) -> Result<Beginning, CommandError> {
    session.start().await?;
    let staged = home.snapshots()?.materialise(plan, manifest, session, host::now_ms()).await?;
    if staged.setup == Some(SetUp::Cached) {
        crate::view::note("setup cached");
    }
    let base = base(home, session, manifest).await?;
    Ok(Beginning { base: Some(base.id), own_base: true })
}

pub(crate) async fn fork(args: &ForkArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let id = args.name.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let of = Found::find(&home, &args.of).await?;
    let manifest = record::manifest(&of.record)?;
    // It gets the way out that the other one's manifest asks for.
    let client = host::with_way_out(&home, of.client)?;
    let from = Some(of.record.id().to_owned());
    let like = (of.record.sandbox.clone(), of.record.directory.clone());
    let making = Making::begin(&home, &id, client.as_ref(), like, &manifest, from)?;
    let mut copied = false;
    let create = async {
        let parent = client.resume(of.record.state.clone()).await?;
        end_if_idle(parent.as_ref()).await?;
        let request = CreateRequest { session_id: id, manifest: manifest.clone(), workspace: None };
        let (session, was_copied) = home.snapshots()?.fork(client.as_ref(), parent.as_ref(), request).await?;
        copied = was_copied;
        Ok(session)
    };
    let beginning = Beginning { base: of.record.base.clone(), own_base: of.record.own_base };
    let session = making.finish(&home, client.as_ref(), create, async |_| Ok(beginning)).await?;
    if copied {
        crate::view::note("copied: the sandbox runs, or its workspace cannot be shared");
    }
    crate::view::line(session.id())?;
    Ok(ExitCode::SUCCESS)
}

/// Ends a sandbox in which nothing runs but what waits for the next command. One that is not running is left alone.
async fn end_if_idle(session: &dyn SandboxSession) -> Result<(), CommandError> {
    session.start().await?;
    // The supervisor, and the shell with the process that watches over it.
    let alone = ExecRequest::shell("set -- /proc/[0-9]*; test $# -le 3");
    let result = session.exec(alone).await?;
    if result.outcome == (mooring_sandbox::Outcome::Exited { code: 0 }) {
        session.stop().await?;
    }
    Ok(())
}

/// What a workspace holds as it begins, to compare with later.
async fn base(
    home: &Home,
    session: &dyn SandboxSession,
    manifest: &Manifest,
) -> Result<Snapshot, CommandError> {
    let store = home.snapshots()?;
    let mut id = format!("{}-begin", session.id());
    let mut number = 1;
    loop {
        let new = NewSnapshot {
            id: id.clone(),
            replaces: false,
            manifest_digest: manifest.digest(),
            taken_ms: host::now_ms(),
        };
        match store.take(session, new).await {
            // Somebody called a snapshot so; that one stays.
            Err(SnapshotError::Exists { .. }) => number += 1,
            taken => return Ok(taken?),
        }
        id = format!("{}-begin-{number}", session.id());
    }
}
