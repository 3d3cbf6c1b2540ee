//! What is kept of a sandbox between commands, `STATE/sessions/ID.json`, and how one is found: its own record, or that
//! of the run which worked in it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mooring_journal::{Event, Journal as _, RunId};
use mooring_manifest::Manifest;
use mooring_sandbox::{SandboxClient, SandboxSession, SessionState};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent_file::SandboxTable;
use crate::args::sandbox::NewArgs;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host;

/// How long a sandbox lives on after the last command has left it.
const LINGER: Duration = Duration::from_mins(15);

/// A sandbox. Holds no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What finds its session again.
    pub(crate) state: SessionState,
    /// What it is like.
    pub(crate) sandbox: SandboxTable,
    /// The manifest of its workspace.
    pub(crate) manifest: Value,
    /// What the manifest's image is built from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<PathBuf>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub(crate) created_ms: i64,
    /// When it was last used.
    pub(crate) used_ms: i64,
    /// The snapshot of its workspace as it began.
    pub(crate) base: Option<String>,
    /// Whether that was taken for this sandbox or the one that it is a fork of, and goes when no other needs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) own_base: bool,
    /// The sandbox or the snapshot that it began as.
    pub(crate) from: Option<String>,
    /// Whether it is still being made, or somebody ended before it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unfinished: bool,
}

/// A sandbox that was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    /// The run that it belongs to, and whether that is driven now.
    run: Option<(RunId, bool)>,
    pub(crate) client: Arc<dyn SandboxClient>,
}

impl Record {
    pub(crate) fn id(&self) -> &str {
        &self.state.session_id
    }

    /// Where it lies.
    pub(crate) fn file(&self, home: &Home) -> PathBuf {
        home.sessions().join(format!("{}.json", self.id()))
    }

    /// Where it is written until it is whole, in a directory that is there.
    pub(crate) fn temporary(&self, home: &Home) -> Result<PathBuf, CommandError> {
        let folder = home.sessions();
        // For its owner alone: manifests hold files.
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder)?;
        Ok(folder.join(format!(".{}.{}", self.id(), std::process::id())))
    }

    pub(crate) fn text(&self) -> Result<Vec<u8>, CommandError> {
        serde_json::to_vec_pretty(self).map_err(|error| CommandError::failed(error.to_string()))
    }

    /// Writes it as a whole.
    pub(crate) fn save(&self, home: &Home) -> Result<(), CommandError> {
        let (temporary, text) = (self.temporary(home)?, self.text()?);
        let written = fs_err::write(&temporary, text);
        let written = written.and_then(|()| fs_err::rename(&temporary, self.file(home)));
        if written.is_err() {
            // Half of it is of no use to anybody.
            let _ = fs_err::remove_file(&temporary);
        }
        Ok(written?)
    }

    /// Whether somebody makes it just now.
    pub(crate) fn being_made(&self, home: &Home) -> bool {
        self.unfinished
            && fs_err::File::open(self.file(home)).is_ok_and(|file| {
                rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)
                    == Err(rustix::io::Errno::AGAIN)
            })
    }

    /// Refuses one that cannot be used yet, or never.
    pub(crate) fn refuse_unfinished(&self, home: &Home) -> Result<(), CommandError> {
        let id = self.id();
        if !self.unfinished {
            return Ok(());
        }
        Err(CommandError::input(if self.being_made(home) {
            format!("sandbox '{id}' is being made just now; wait for that, or interrupt it")
        } else {
            format!(
                "sandbox '{id}' is unfinished: what made it was ended before it was done. `moor sandbox rm {id}` removes \
                 it; then make it again"
            )
        }))
    }

    /// All records, the newest first.
    pub(crate) fn all(home: &Home) -> Result<Vec<Self>, CommandError> {
        let entries = match fs_err::read_dir(home.sessions()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.push(read(&path)?);
            }
        }
        records.sort_by_key(|record: &Self| (-record.created_ms, record.id().to_owned()));
        Ok(records)
    }

    /// Forgets it. One that is not there is no error.
    pub(crate) fn forget(home: &Home, id: &str) -> Result<(), CommandError> {
        // The second is what it knew its proxy by.
        for file in [format!("{id}.json"), format!("{id}.egress")] {
            match fs_err::remove_file(home.sessions().join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Found {
    /// Finds a sandbox by its id, the beginning of it, or the id of the run that worked in it.
    pub(crate) async fn find(home: &Home, name: &str) -> Result<Self, CommandError> {
        let records = Record::all(home)?;
        if let Some(record) = one_of(&records, name, "sandbox", |record| record.id())? {
            return Self::new(home, record.clone(), None);
        }
        Self::find_run(home, name, "").await
    }

    /// Finds one by its whole id, or that of the run: for what cannot be undone.
    pub(crate) async fn find_exact(home: &Home, name: &str) -> Result<Self, CommandError> {
        let records = Record::all(home)?;
        if let Some(record) = by_id(&records, name) {
            return Self::new(home, record.clone(), None);
        }
        Self::find_run(home, name, &meant(records.iter().map(Record::id), name)).await
    }

    async fn find_run(home: &Home, name: &str, meant: &str) -> Result<Self, CommandError> {
        match of_run(home, name).await? {
            Some((record, run)) => Self::new(home, record, Some(run)),
            None => Err(CommandError::input(format!(
                "there is no sandbox '{name}', and no run of that id; `moor sandbox list` and `moor runs` list \
                 them{meant}"
            ))),
        }
    }

    fn new(home: &Home, record: Record, run: Option<(RunId, bool)>) -> Result<Self, CommandError> {
        record.refuse_unfinished(home)?;
        let client = client(home, &record.sandbox, record.directory.as_deref())?;
        Ok(Self { record, run, client })
    }

    /// The session, running, for its files.
    pub(crate) async fn start(&self, home: &Home) -> Result<Arc<dyn SandboxSession>, CommandError> {
        self.start_with(home, self.client.as_ref()).await
    }

    /// The session, running, with the way out that its manifest asks for. Whoever is done takes leave of it by
    /// [`super::network::leave`].
    pub(crate) async fn attach(&self, home: &Home) -> Result<Arc<dyn SandboxSession>, CommandError> {
        self.start_with(home, host::with_way_out(home, Arc::clone(&self.client))?.as_ref()).await
    }

    /// The session, for its files, which are not changed: running where they can be read in no other way.
    pub(crate) async fn readable(&self) -> Result<Arc<dyn SandboxSession>, CommandError> {
        let session = self.client.resume(self.record.state.clone()).await?;
        if session.host_workspace().is_none() {
            session.start().await?;
        }
        Ok(session)
    }

    async fn start_with(
        &self,
        home: &Home,
        client: &dyn SandboxClient,
    ) -> Result<Arc<dyn SandboxSession>, CommandError> {
        if let Some((run, true)) = &self.run {
            return Err(CommandError::input(format!(
                "run {run} works in this sandbox just now; wait for its end, or take a snapshot and restore that"
            )));
        }
        let session = client.resume(self.record.state.clone()).await?;
        session.start().await?;
        if self.run.is_none() {
            let used = Record { used_ms: host::now_ms(), ..self.record.clone() };
            // It only tells when this may be pruned; on a full disk somebody must be able to remove something.
            if let Err(error) = used.save(home) {
                crate::view::note(&format!("when it was used last is not kept: {}", error.message()));
            }
        }
        Ok(session)
    }
}

/// The sandboxes of this description, which live on between commands, without a way out.
/// `base` is their manifest's base directory.
pub(crate) fn client(
    home: &Home,
    table: &SandboxTable,
    base: Option<&Path>,
) -> Result<Arc<dyn SandboxClient>, CommandError> {
    host::lingering_sandbox(home, table, base, LINGER)
}

/// A new sandbox's description and id.
pub(crate) fn described(args: &NewArgs) -> (SandboxTable, String) {
    let table = SandboxTable {
        backend: args.sandbox.map(|backend| backend.name().to_owned()),
        image: args.image.clone(),
        isolation: args.isolation,
        memory: args.memory.clone(),
        pids: args.pids,
        cpus: args.cpus,
        ..SandboxTable::default()
    };
    (table, args.name.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string()))
}

/// The one of exactly this id.
pub(crate) fn by_id<'a>(records: &'a [Record], id: &str) -> Option<&'a Record> {
    records.iter().find(|record| record.id() == id)
}

/// Which ids somebody may have meant that wrote only their beginning, to end an error with. Empty: none.
pub(crate) fn meant<'a>(ids: impl Iterator<Item = &'a str>, name: &str) -> String {
    let begin: Vec<String> =
        ids.filter(|id| id.starts_with(name)).take(3).map(|id| format!("'{id}'")).collect();
    if name.is_empty() || begin.is_empty() {
        return String::new();
    }
    format!(". Perhaps {} is meant: what is removed or replaced must be named in full", begin.join(" or "))
}

/// The one that is called so, or whose name begins so.
pub(crate) fn one_of<'a, T>(
    all: &'a [T],
    name: &str,
    what: &str,
    id: impl Fn(&T) -> &str,
) -> Result<Option<&'a T>, CommandError> {
    if let Some(found) = all.iter().find(|one| id(one) == name) {
        return Ok(Some(found));
    }
    let mut begin = all.iter().filter(|one| !name.is_empty() && id(one).starts_with(name));
    match (begin.next(), begin.next()) {
        (Some(_), Some(_)) => Err(CommandError::input(format!(
            "more than one {what} has an id that begins with '{name}'; write more of it"
        ))),
        (found, _) => Ok(found),
    }
}

/// The sandbox of a run, as its journal has it.
async fn of_run(home: &Home, name: &str) -> Result<Option<(Record, (RunId, bool))>, CommandError> {
    if !home.journal_file().exists() {
        return Ok(None);
    }
    let journal = home.journal()?;
    let run = RunId(name.to_owned());
    let rows = journal.runs(None).await?;
    let Some(row) = rows.iter().find(|row| row.id == run) else { return Ok(None) };
    let mut base = None;
    let state = mooring_harness::fold(&journal, &run, |record| {
        if let Event::SnapshotTaken(taken) = &record.event {
            base.get_or_insert_with(|| taken.snapshot.clone());
        }
    })
    .await?;
    let Some(session) = &state.sandbox.session else {
        return Err(CommandError::input(format!("run {run} has no sandbox")));
    };
    let unreadable = |error: serde_json::Error| {
        CommandError::failed(format!("the sandbox of run {run} cannot be read from its journal: {error}"))
    };
    let record = Record {
        state: serde_json::from_value(session.clone()).map_err(unreadable)?,
        sandbox: serde_json::from_value(state.started.sandbox["options"].clone()).map_err(unreadable)?,
        manifest: state.started.manifest.clone(),
        directory: None,
        created_ms: row.created_ms,
        used_ms: row.updated_ms,
        base,
        own_base: false,
        from: None,
        unfinished: false,
    };
    Ok(Some((record, (run, row.driven))))
}

/// The manifest of this digest, as a sandbox or a run has it: a snapshot keeps the digest alone. `None` where none has it
/// any more.
pub(crate) async fn manifest_of(home: &Home, digest: &str) -> Result<Option<Manifest>, CommandError> {
    let own = Manifest::default();
    let kept = Record::all(home)?.into_iter().filter_map(|record| manifest(&record).ok());
    if let Some(found) = std::iter::once(own).chain(kept).find(|manifest| manifest.digest() == digest) {
        return Ok(Some(found));
    }
    if !home.journal_file().exists() {
        return Ok(None);
    }
    let journal = home.journal()?;
    for row in journal.runs(None).await? {
        let first = journal.read(&row.id, 0, 1).await?.pop().map(|record| record.event);
        let Some(Event::RunStarted(started)) = first else { continue };
        if started.manifest_digest != digest {
            continue;
        }
        let mut manifest = Manifest::from_value(&started.manifest).map_err(|error| {
            CommandError::failed(format!("the manifest of run {} cannot be read: {error}", row.id))
        })?;
        // Without isolation its root is where the workspace lay on this host.
        if started.sandbox["options"]["isolation"] == "none" {
            manifest.root = Manifest::default().root;
        }
        return Ok(Some(manifest));
    }
    Ok(None)
}

/// A record's manifest.
pub(crate) fn manifest(record: &Record) -> Result<Manifest, CommandError> {
    Manifest::from_value(&record.manifest)
        .map_err(|error| CommandError::failed(format!("the manifest of sandbox {}: {error}", record.id())))
}

fn read(path: &Path) -> Result<Record, CommandError> {
    let text = fs_err::read(path)?;
    serde_json::from_slice(&text)
        .map_err(|error| CommandError::failed(format!("{}: {error}; remove the file", path.display())))
}
