//! Bringing a run in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::Path;

use mooring_harness::{AgentHost, HarnessError, State, anew, summary};
use mooring_journal::event::{RunImported, RunStarted};
use mooring_journal::{
    Append, Durability, Event, Journal, JournalError, Record, RunId, SCHEMA_VERSION, Stamped,
};
use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, SandboxClient, SandboxError, SandboxSession, SessionState};
use serde_json::Value;
use std::sync::Arc;

use crate::TransferError;
use crate::format::{
    Counted, FORMAT, HEADER, HEADER_DIGEST, Header, MAX_EVENTS, MAX_HEADER, MAX_WORKSPACE, Members, VERSION,
    digest, finish,
};

/// A file that was read and checked. Nothing of it has been written anywhere.
#[derive(Debug)]
pub struct Bundle {
    header: Header,
    /// Each before its caller; the root last.
    runs: Vec<Carried>,
}

#[derive(Debug)]
struct Carried {
    run: RunId,
    records: Vec<Record>,
    state: State,
    workspace: Option<File>,
}

/// What a run is brought in to.
pub struct Importer<'a> {
    /// Where its events go.
    pub journal: &'a dyn Journal,
    /// What each of its agents works with here: their sandboxes are made with it.
    pub agents: &'a BTreeMap<String, AgentHost>,
    /// Gives ids of sandbox sessions, never used before.
    pub new_session: &'a (dyn Fn() -> String + Sync),
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Who does it, for whoever finds the run taken.
    pub owner: &'a str,
}

impl std::fmt::Debug for Importer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Importer").field("journal", &self.journal).finish_non_exhaustive()
    }
}

/// What was brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The run.
    pub run: RunId,
    /// How many runs were new here, sub-agents' included; none where all of it was here already.
    pub runs: u64,
    /// How many workspaces were restored.
    pub workspaces: u64,
    /// How many workspaces did not come along, and are made anew.
    pub anew: u64,
}

/// How a run of the file stands here.
enum Standing {
    /// The first so many of its events are here; none where it is not.
    Behind(u64),
    /// All of its events are here.
    Whole,
}

impl Bundle {
    /// Reads a file and checks all of it. Workspaces lie in `spool` meanwhile, in files without names. Blocks.
    ///
    /// # Errors
    /// [`TransferError::Damaged`], [`TransferError::Newer`], [`TransferError::TooLarge`].
    pub fn read(file: impl Read, spool: &Path) -> Result<Self, TransferError> {
        let mut archive = tar::Archive::new(Counted::new(file));
        let mut members = Members::new(&mut archive)?;
        let header = header(&mut members)?;
        let mut left = MAX_EVENTS;
        let mut runs: Vec<Carried> = Vec::new();
        for part in &header.runs {
            let mut lines = Vec::new();
            let (bytes, sha256) = members.take(&part.file, left, &mut lines)?;
            if (bytes, &sha256) != (part.bytes, &part.sha256) {
                return Err(TransferError::damaged(format!("{} is not what was written", part.file)));
            }
            left -= bytes;
            runs.push(carried(&part.run, &lines, &header)?);
        }
        for part in &header.workspaces {
            let mut content =
                tempfile::tempfile_in(spool).map_err(TransferError::io("make room for the workspace"))?;
            let (bytes, sha256) = members.take(&part.file, MAX_WORKSPACE, &mut content)?;
            if (bytes, &sha256) != (part.bytes, &part.sha256) {
                return Err(TransferError::damaged(format!("{} is not what was written", part.file)));
            }
            content.rewind().map_err(TransferError::io("read the workspace"))?;
            let Some(run) = runs.iter_mut().find(|run| run.run == part.run && run.workspace.is_none()) else {
                return Err(TransferError::damaged(format!("{} belongs to no run in it", part.file)));
            };
            run.workspace = Some(content);
        }
        let length = members.length();
        finish(archive, length)?;
        check_family(&runs, &header.run)?;
        Ok(Self { header, runs })
    }

    /// The run that it is about.
    pub fn run(&self) -> &RunId {
        &self.header.run
    }

    /// How that run began.
    ///
    /// # Errors
    /// Never for a file that was read.
    pub fn started(&self) -> Result<&RunStarted, TransferError> {
        let root = self.runs.last().ok_or_else(|| TransferError::damaged("it holds no run"))?;
        Ok(&root.state.started)
    }

    /// Brings it in. Doing so twice changes nothing the second time; where a run is here as it was earlier, what it
    /// did since joins it.
    ///
    /// # Errors
    /// [`TransferError::Differs`] where a run of the same id is here and has done something else; nothing is changed
    /// then. Where a workspace cannot be restored, nothing is written, and the sandboxes that were made go.
    pub async fn import(self, to: &Importer<'_>) -> Result<Imported, TransferError> {
        let mut behind = Vec::new();
        for carried in &self.runs {
            behind.push(standing(to.journal, carried).await?);
        }
        let mut made = Vec::new();
        let mut placed = Vec::new();
        let mut result = Imported { run: self.header.run.clone(), runs: 0, workspaces: 0, anew: 0 };
        for (carried, standing) in self.runs.into_iter().zip(behind) {
            let Standing::Behind(seq) = standing else { continue };
            let session_id = (to.new_session)();
            let session = match &carried.workspace {
                None => None,
                Some(workspace) => match restore(to, &carried, &session_id, workspace).await {
                    Ok((client, state)) => {
                        made.push((client, state.clone()));
                        Some(state)
                    }
                    Err(error) => return Err(undo(made, error).await),
                },
            };
            result.runs += 1;
            result.workspaces += u64::from(session.is_some());
            result.anew += u64::from(session.is_none() && carried.state.sandbox.session.is_some());
            placed.push((carried, seq, session_id, session));
        }
        let mut written = false;
        for (carried, seq, session_id, session) in placed {
            match append(to, &self.header, carried, seq, session_id, session).await {
                Ok(()) => written = true,
                // What was written may be resumed: its workspaces stay.
                Err(error) if written => return Err(error),
                Err(error) => return Err(undo(made, error).await),
            }
        }
        Ok(result)
    }
}

/// Reads and checks the header.
fn header<R: Read>(members: &mut Members<'_, R>) -> Result<Header, TransferError> {
    let mut text = Vec::new();
    members.take(HEADER, MAX_HEADER, &mut text)?;
    let value: Value = serde_json::from_slice(&text)
        .map_err(|error| TransferError::damaged(format!("{HEADER}: {error}")))?;
    if value["format"] != FORMAT {
        return Err(TransferError::damaged(format!("{HEADER}: its format is not '{FORMAT}'")));
    }
    let version = value["version"].as_u64().unwrap_or_default();
    if version > VERSION {
        let by = value["runtime"].as_str().unwrap_or("another program").to_owned();
        return Err(TransferError::Newer { by, what: format!("version {version} of the file") });
    }
    let mut sum = Vec::new();
    members.take(HEADER_DIGEST, 64, &mut sum)?;
    if sum != digest(&text).as_bytes() {
        return Err(TransferError::damaged(format!("{HEADER} is not what was written")));
    }
    serde_json::from_value(value).map_err(|error| TransferError::damaged(format!("{HEADER}: {error}")))
}

/// A run's events, each checked for its place.
fn carried(run: &RunId, lines: &[u8], header: &Header) -> Result<Carried, TransferError> {
    let mut records: Vec<Record> = Vec::new();
    for (line, seq) in lines.split_inclusive(|byte| *byte == b'\n').zip(1_u64..) {
        let wrong = |reason: String| TransferError::damaged(format!("event {seq} of run {run}: {reason}"));
        let record: Record = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
        if record.v > SCHEMA_VERSION {
            let what = format!("version {} of events", record.v);
            return Err(TransferError::Newer { by: header.runtime.clone(), what });
        }
        if let Event::Unknown(fields) = &record.event {
            let what = format!("an event of the type '{}'", fields["type"].as_str().unwrap_or("?"));
            return Err(TransferError::Newer { by: header.runtime.clone(), what });
        }
        if (&record.run, record.seq) != (run, seq) {
            return Err(wrong(format!("it says that it is event {} of run {}", record.seq, record.run)));
        }
        records.push(record);
    }
    let state = State::fold(&records).map_err(|source| HarnessError::Fold { run: run.clone(), source })?;
    let state = state.ok_or_else(|| TransferError::damaged(format!("run {run} has no events")))?;
    Ok(Carried { run: run.clone(), records, state, workspace: None })
}

/// The root comes last and stands alone; all others belong to a run that comes later.
fn check_family(runs: &[Carried], root: &RunId) -> Result<(), TransferError> {
    let mut callers: BTreeSet<&RunId> = BTreeSet::new();
    for carried in runs.iter().rev() {
        let parent = carried.state.started.parent.as_ref().filter(|parent| parent.call_id.is_some());
        let fits = match parent {
            None => callers.is_empty() && carried.run == *root,
            Some(parent) => callers.contains(&parent.run),
        };
        if !fits || !callers.insert(&carried.run) {
            return Err(TransferError::damaged(format!("run {} has no place in it", carried.run)));
        }
    }
    Ok(())
}

/// Compares a run with what is here.
async fn standing(journal: &dyn Journal, carried: &Carried) -> Result<Standing, TransferError> {
    let mut here: u64 = 0;
    loop {
        let page = match journal.read(&carried.run, here, 1000).await {
            Err(JournalError::UnknownRun { .. }) => return Ok(Standing::Behind(0)),
            page => page?,
        };
        if page.is_empty() {
            break;
        }
        for record in page {
            here += 1;
            let same = match carried.records.get(here as usize - 1) {
                Some(theirs) => (theirs.at_ms, &theirs.event) == (record.at_ms, &record.event),
                // It was brought in before, and has not gone on since.
                None => matches!(record.event, Event::RunImported(_)),
            };
            if !same {
                return Err(TransferError::Differs { run: carried.run.clone(), seq: here });
            }
        }
    }
    let whole = here >= carried.records.len() as u64;
    Ok(if whole { Standing::Whole } else { Standing::Behind(here) })
}

/// Makes a session with the workspace that came along.
async fn restore(
    to: &Importer<'_>,
    carried: &Carried,
    session_id: &str,
    workspace: &File,
) -> Result<(Arc<dyn SandboxClient>, SessionState), TransferError> {
    let run = &carried.run;
    let wrong = |source| TransferError::Workspace { run: run.clone(), source };
    let started = &carried.state.started;
    let entry = started.agent["name"].as_str().unwrap_or_default();
    let client = to.agents.get(entry).and_then(|agent| agent.sandbox.clone());
    let client = client.ok_or_else(|| HarnessError::Missing {
        run: run.clone(),
        what: format!("the sandbox of the agent '{entry}'"),
    })?;
    let manifest = Manifest::from_value(&started.manifest)
        .map_err(|error| wrong(SandboxError::Invalid { reason: error.to_string() }))?;
    let reader = workspace.try_clone().map_err(TransferError::io("read the workspace"))?;
    let request = CreateRequest { session_id: session_id.into(), manifest, workspace: None };
    let session = client.create(request).await.map_err(wrong)?;
    let filled = fill(session.as_ref(), reader).await;
    let stopped = session.stop().await;
    let state = session.state();
    match filled.and(stopped) {
        Ok(()) => Ok((client, state)),
        Err(error) => {
            // The first error is the one to tell.
            client.delete(&state).await.ok();
            Err(wrong(error))
        }
    }
}

async fn fill(session: &dyn SandboxSession, from: File) -> Result<(), SandboxError> {
    session.start().await?;
    session.restore(Box::pin(tokio::fs::File::from_std(from))).await
}

/// Removes the sandboxes that were made, and gives the error that came.
async fn undo(made: Vec<(Arc<dyn SandboxClient>, SessionState)>, error: TransferError) -> TransferError {
    for (client, state) in made {
        // The first error is the one to tell.
        client.delete(&state).await.ok();
    }
    error
}

/// Writes a run's events, all at once, and that it was brought here.
async fn append(
    to: &Importer<'_>,
    header: &Header,
    carried: Carried,
    seq: u64,
    session_id: String,
    session: Option<SessionState>,
) -> Result<(), TransferError> {
    let Carried { run, records, mut state, .. } = carried;
    let json =
        |error: serde_json::Error| TransferError::Io { operation: "write an event", source: error.into() };
    let items = match &session {
        Some(_) => None,
        None => anew(&state),
    };
    let imported = Event::RunImported(RunImported {
        runtime: header.runtime.clone(),
        exported_ms: header.exported_ms,
        session_id,
        session: session.map(serde_json::to_value).transpose().map_err(json)?,
        items: items.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(json)?,
    });
    state.apply(&imported).map_err(|source| HarnessError::Fold { run: run.clone(), source })?;
    let began = records.first().map_or(to.now_ms, |record| record.at_ms);
    let claim = match to.journal.create(&run, began, to.owner).await {
        Err(JournalError::RunExists { .. }) => to.journal.claim(&run, to.owner).await?,
        claim => claim?,
    };
    let new = records.into_iter().skip(usize::try_from(seq).unwrap_or(usize::MAX));
    let mut events: Vec<Stamped> =
        new.map(|record| Stamped { at_ms: record.at_ms, event: record.event }).collect();
    events.push(Stamped { at_ms: to.now_ms, event: imported });
    let append = Append {
        run,
        epoch: claim.epoch,
        // Where somebody was here since the look, this is a conflict, and nothing is written.
        after: seq,
        events: Arc::new(events),
        summary: Some(summary(&state)),
        durability: Durability::Power,
    };
    to.journal.append(append).await?;
    Ok(())
}
