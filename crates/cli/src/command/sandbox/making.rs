//! A sandbox from the moment that its id is taken until it can be used. Its record is written first, and marked: so what
//! is left of an end in between has a name, and nobody takes it over.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, SandboxClient, SandboxSession, SessionState};
use rustix::fs::FlockOperation;
use serde_json::Value;

use super::network;
use super::record::{self, Record};
use crate::agent_file::SandboxTable;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host;

/// What a sandbox begins as.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    /// The snapshot of its workspace.
    pub(crate) base: Option<String>,
    /// Whether that was taken for it, and goes when nothing needs it.
    pub(crate) own_base: bool,
}

/// A sandbox that is being made.
#[derive(Debug)]
pub(crate) struct Making {
    record: Record,
    manifest: Manifest,
    /// The record's file, locked for as long as somebody makes the sandbox.
    _held: File,
}

impl Making {
    /// Takes an id. What it is like comes with the base directory of its manifest.
    pub(crate) fn begin(
        home: &Home,
        id: &str,
        client: &dyn SandboxClient,
        (sandbox, directory): (SandboxTable, Option<PathBuf>),
        manifest: &Manifest,
        from: Option<String>,
    ) -> Result<Self, CommandError> {
        refuse_taken(home, id)?;
        let now = host::now_ms();
        let state = SessionState {
            backend: client.backend_id().into(),
            session_id: id.to_owned(),
            data: Value::Null,
        };
        let record = Record {
            state,
            sandbox,
            manifest: manifest.to_value(),
            directory,
            created_ms: now,
            used_ms: now,
            base: None,
            own_base: false,
            from,
            unfinished: true,
        };
        let Some(held) = claim(home, &record)? else {
            // Somebody was faster.
            refuse_taken(home, id)?;
            return Err(CommandError::failed(format!("sandbox '{id}' came and went just now; try again")));
        };
        Ok(Self { record, manifest: manifest.clone(), _held: held })
    }

    /// Makes it by `create`, does `work` in it, and records it as one that can be used. Where that fails, or is
    /// interrupted, it is ended and removed.
    pub(crate) async fn finish(
        mut self,
        home: &Home,
        client: &dyn SandboxClient,
        create: impl Future<Output = Result<Arc<dyn SandboxSession>, CommandError>>,
        work: impl AsyncFnOnce(&dyn SandboxSession) -> Result<Beginning, CommandError>,
    ) -> Result<Arc<dyn SandboxSession>, CommandError> {
        let (cancel, _listening) = host::cancel_on_signals(crate::view::note)?;
        let interrupted = || CommandError::cancelled("interrupted; the sandbox was not made");
        let created = tokio::select! {
            created = create => created,
            () = cancel.cancelled() => {
                self.undo(home, client, None).await;
                return Err(interrupted());
            }
        };
        let session = match created {
            Ok(session) => session,
            // Nothing is there then.
            Err(error) => {
                Record::forget(home, self.record.id())?;
                return Err(error);
            }
        };
        let worked = tokio::select! {
            worked = work(session.as_ref()) => worked,
            () = cancel.cancelled() => Err(interrupted()),
        };
        network::leave(session.as_ref()).await;
        let recorded = worked.and_then(|Beginning { base, own_base }| {
            self.record = Record {
                state: session.state(),
                used_ms: host::now_ms(),
                base,
                own_base,
                unfinished: false,
                ..self.record.clone()
            };
            self.record.save(home)
        });
        if let Err(error) = recorded {
            self.undo(home, client, Some(session.state())).await;
            return Err(error);
        }
        Ok(session)
    }

    async fn undo(&self, home: &Home, client: &dyn SandboxClient, state: Option<SessionState>) {
        let removed = match &state {
            Some(state) => client.delete(state).await.map_err(CommandError::from),
            None => remove_unfinished(client, self.record.id(), self.manifest.clone()).await,
        };
        let removed = removed.and_then(|()| Record::forget(home, self.record.id()));
        // The first error is the one to tell.
        if let Err(error) = removed {
            crate::view::note(&format!(
                "what was made so far stays: {}; `moor sandbox rm {}` removes it",
                error.message(),
                self.record.id()
            ));
        }
    }
}

/// Ends and removes what is left of a sandbox that was never finished.
pub(crate) async fn remove_unfinished(
    client: &dyn SandboxClient,
    id: &str,
    mut manifest: Manifest,
) -> Result<(), CommandError> {
    // Whatever this machine grants by now: nothing of it runs again. A workspace that its maker named is not asked for,
    // and so stays.
    manifest.extra_path_grants.clear();
    manifest.entries.clear();
    // Made twice it is the same one.
    let session =
        client.create(CreateRequest { session_id: id.to_owned(), manifest, workspace: None }).await?;
    Ok(client.delete(&session.state()).await?)
}

/// Refuses an id that is taken, or none.
fn refuse_taken(home: &Home, id: &str) -> Result<(), CommandError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=64).contains(&id.len()) || !id.chars().all(plain) {
        return Err(CommandError::input(format!(
            "'{id}' is no sandbox's id: write 1 to 64 letters, digits, '-' and '_'"
        )));
    }
    if let Some(record) = record::by_id(&Record::all(home)?, id) {
        record.refuse_unfinished(home)?;
        return Err(CommandError::input(format!("there is a sandbox '{id}' already; use another --name")));
    }
    if ["sandboxes", "docker"].iter().any(|kind| home.state.join(kind).join(id).exists()) {
        return Err(CommandError::input(format!(
            "there is a workspace '{id}' already, of a run or of a sandbox that was not removed whole; use another \
             --name. `moor sandbox prune` removes what is not used any more"
        )));
    }
    Ok(())
}

/// Writes a record where there is none, and holds it. `None`: there is one.
fn claim(home: &Home, record: &Record) -> Result<Option<File>, CommandError> {
    let temporary = record.temporary(home)?;
    let write = || -> Result<Option<File>, CommandError> {
        let mut file = fs_err::File::create(&temporary)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(std::io::Error::from)?;
        file.write_all(&record.text()?)?;
        match fs_err::hard_link(&temporary, record.file(home)) {
            Ok(()) => Ok(Some(file.into_parts().0)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let written = write();
    // Its other name, or a rest.
    let _ = fs_err::remove_file(&temporary);
    written
}
