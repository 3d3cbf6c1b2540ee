//! `moor sandbox create` and `fork`.

use std::path::Path;
use std::process::ExitCode;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, Plan, SandboxClient, SandboxSession, SetUp};
use mooring_snapshot::{NewSnapshot, Snapshot};

use super::network;
use super::record::{self, Found, Record};
use crate::agent_file::{SandboxTable, read_manifest};
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
    record::refuse_taken(&home, &id)?;
    let client = host::with_way_out(&home, record::client(&home, &table)?)?;
    client.check(&manifest)?;
    let credentials = lock::credentials(&manifest)?;
    let (support, backend) = (client.support(), client.backend_id());
    let plan = Plan::with_credentials(&manifest, &base, &support, backend, &credentials)?;
    let workspace = args.workspace.as_deref().map(absolute).transpose()?;
    if let Some(workspace) = &workspace {
        plan.refuse_conflicts(workspace)?;
    }
    let request = CreateRequest { session_id: id, manifest: manifest.clone(), workspace };
    let session = client.create(request).await?;
    let made = stage(&home, &plan, session.as_ref(), &manifest).await;
    network::leave(session.as_ref()).await;
    let base = unless_failed(client.as_ref(), session.as_ref(), made).await?;
    keep(&home, table, &manifest, session.as_ref(), Some(base.id), None)?;
    crate::view::line(session.id())?;
    Ok(ExitCode::SUCCESS)
}

async fn stage(
    home: &Home,
    plan: &Plan,
    session: &dyn SandboxSession,
    manifest: &Manifest,
) -> Result<Snapshot, CommandError> {
    session.start().await?;
    let staged = home.snapshots()?.materialise(plan, manifest, session, host::now_ms()).await?;
    if staged.setup == Some(SetUp::Cached) {
        crate::view::note("setup cached");
    }
    base(home, session, manifest).await
}

pub(crate) async fn fork(args: &ForkArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let id = args.name.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    record::refuse_taken(&home, &id)?;
    let of = Found::find(&home, &args.of).await?;
    let manifest = record::manifest(&of.record)?;
    // It gets the way out that the other one's manifest asks for.
    let client = host::with_way_out(&home, of.client)?;
    let parent = client.resume(of.record.state.clone()).await?;
    end_if_idle(parent.as_ref()).await?;
    let request = CreateRequest { session_id: id, manifest: manifest.clone(), workspace: None };
    let (session, copied) = home.snapshots()?.fork(client.as_ref(), parent.as_ref(), request).await?;
    let from = Some(of.record.id().to_owned());
    keep(&home, of.record.sandbox.clone(), &manifest, session.as_ref(), of.record.base.clone(), from)?;
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
pub(crate) async fn base(
    home: &Home,
    session: &dyn SandboxSession,
    manifest: &Manifest,
) -> Result<Snapshot, CommandError> {
    let new = NewSnapshot {
        id: format!("{}-begin", session.id()),
        manifest_digest: manifest.digest(),
        taken_ms: host::now_ms(),
    };
    Ok(home.snapshots()?.take(session, new).await?)
}

/// Removes a new sandbox where what was to be done with it failed.
pub(crate) async fn unless_failed<T>(
    client: &dyn SandboxClient,
    session: &dyn SandboxSession,
    result: Result<T, CommandError>,
) -> Result<T, CommandError> {
    if result.is_err() {
        // The first error is the one to tell.
        let _ = client.delete(&session.state()).await;
    }
    result
}

/// Records a new sandbox.
pub(crate) fn keep(
    home: &Home,
    sandbox: SandboxTable,
    manifest: &Manifest,
    session: &dyn SandboxSession,
    base: Option<String>,
    from: Option<String>,
) -> Result<(), CommandError> {
    let now = host::now_ms();
    let record = Record {
        state: session.state(),
        sandbox,
        manifest: manifest.to_value(),
        created_ms: now,
        used_ms: now,
        base,
        from,
    };
    record.save(home)
}
