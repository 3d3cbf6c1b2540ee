//! Bringing a run out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, Write};
use std::path::PathBuf;

use mooring_harness::{AgentHost, HarnessError, State, Status};
use mooring_journal::{BoxFuture, Claim, Event, Journal, JournalError, Record, RunId};
use mooring_sandbox::{SandboxError, SandboxSession, SessionState};

use crate::TransferError;
use crate::format::{
    FORMAT, HEADER, HEADER_DIGEST, Header, MAX_EVENTS, MAX_WORKSPACE, Part, VERSION, copy, digest,
};

/// How a run is brought out.
#[derive(Debug, Clone)]
pub struct Export {
    /// This program's version, for the record.
    pub runtime: String,
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Who does it, for whoever finds the run taken.
    pub owner: String,
    /// Whether the workspaces come along.
    pub workspaces: bool,
    /// A directory on a disk with room for the workspaces, which lie there meanwhile.
    pub spool: PathBuf,
}

/// What was brought out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// How many runs: one, and those of its sub-agents.
    pub runs: u64,
    /// How many events.
    pub events: u64,
    /// How many workspaces.
    pub workspaces: u64,
}

/// A run with its events.
struct Taken {
    run: RunId,
    state: State,
    lines: Vec<u8>,
    /// Held until all is written: nobody drives the run meanwhile.
    _claim: Claim,
}

/// Writes a run, with the runs of its sub-agents and the workspaces of those that are not over, to `out`. The run stays
/// as it is: go on with it in one place only.
///
/// # Errors
/// [`JournalError::Driven`] while a driver is at work on it; [`HarnessError::Part`] for a sub-agent's run;
/// [`TransferError::Workspace`] where a workspace cannot be read.
pub async fn export(
    journal: &dyn Journal,
    agents: &BTreeMap<String, AgentHost>,
    run: &RunId,
    how: &Export,
    out: impl Write + Send + 'static,
) -> Result<Exported, TransferError> {
    let mut taken = Vec::new();
    take(journal, run, how, &mut taken, &mut 0).await?;
    if let Some(root) = taken.last()
        && let Some(parent) = &root.state.started.parent
        && parent.call_id.is_some()
    {
        return Err(HarnessError::Part { run: run.clone(), of: parent.run.clone() }.into());
    }
    let mut workspaces = Vec::new();
    if how.workspaces {
        for taken in taken.iter().filter(|taken| works_on(&taken.state)) {
            let saved = save(agents, taken, how).await?;
            let file = format!("workspace-{}.tar", workspaces.len());
            workspaces.push((taken.run.clone(), file, saved));
        }
    }
    let exported = Exported {
        runs: taken.len() as u64,
        events: taken.iter().map(|taken| taken.state.last_seq).sum(),
        workspaces: workspaces.len() as u64,
    };
    let header = Header {
        format: FORMAT.into(),
        version: VERSION,
        runtime: how.runtime.clone(),
        exported_ms: how.now_ms,
        run: run.clone(),
        runs: Vec::new(),
        workspaces: Vec::new(),
    };
    let writing = tokio::task::spawn_blocking(move || {
        let written = write(header, &taken, workspaces, out);
        drop(taken);
        written
    });
    let written = writing.await.map_err(|error| TransferError::Io {
        operation: "write the file",
        source: std::io::Error::other(error),
    })?;
    written.map_err(TransferError::io("write the file"))?;
    Ok(exported)
}

/// Takes a run and those below it, each before its caller.
fn take<'a>(
    journal: &'a dyn Journal,
    run: &'a RunId,
    how: &'a Export,
    taken: &'a mut Vec<Taken>,
    bytes: &'a mut u64,
) -> BoxFuture<'a, Result<(), TransferError>> {
    Box::pin(async move {
        let claim = journal.claim(run, &how.owner).await?;
        let (mut lines, mut children, mut unwritable) = (Vec::new(), Vec::new(), None);
        let state = mooring_harness::fold(journal, run, |record| {
            if let Event::ToolRequested(requested) = &record.event {
                children.extend(requested.child.clone());
            }
            // Beyond the limit nothing is kept: a run that is too large must not fill the memory.
            if *bytes + lines.len() as u64 <= MAX_EVENTS {
                unwritable = unwritable.take().or(line(record, &mut lines).err());
            }
        })
        .await?;
        if let Some(error) = unwritable {
            return Err(TransferError::Io { operation: "write an event", source: error.into() });
        }
        *bytes += lines.len() as u64;
        if *bytes > MAX_EVENTS {
            return Err(TransferError::TooLarge { what: format!("run {run}"), limit: MAX_EVENTS });
        }
        for child in children {
            match take(journal, &child, how, taken, bytes).await {
                // Asked for and not begun: it begins where its caller goes on.
                Err(TransferError::Journal(JournalError::UnknownRun { run, .. })) if run == child => {}
                Err(TransferError::Harness(HarnessError::Empty { run })) if run == child => {}
                result => result?,
            }
        }
        taken.push(Taken { run: run.clone(), state, lines, _claim: claim });
        Ok(())
    })
}

fn line(record: &Record, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *to, record)?;
    to.push(b'\n');
    Ok(())
}

/// Whether a run's workspace will be worked in again: by the run, or by the next one of its conversation.
fn works_on(state: &State) -> bool {
    let conversation = state.started.labels.contains_key("session");
    state.sandbox.session.is_some() && (state.status != Status::Completed || conversation)
}

/// Saves a run's workspace in a file without a name.
async fn save(
    agents: &BTreeMap<String, AgentHost>,
    taken: &Taken,
    how: &Export,
) -> Result<File, TransferError> {
    let wrong = |source| TransferError::Workspace { run: taken.run.clone(), source };
    let file = tempfile::tempfile_in(&how.spool).map_err(TransferError::io("make room for the workspace"))?;
    let writer = file.try_clone().map_err(TransferError::io("make room for the workspace"))?;
    let entry = taken.state.started.agent["name"].as_str().unwrap_or_default();
    let client = agents.get(entry).and_then(|agent| agent.sandbox.clone()).ok_or_else(|| {
        HarnessError::Missing { run: taken.run.clone(), what: format!("the sandbox of the agent '{entry}'") }
    })?;
    let state = taken.state.sandbox.session.clone().unwrap_or_default();
    let state: SessionState = serde_json::from_value(state).map_err(|error| {
        let reason = format!("what finds its session cannot be read: {error}");
        wrong(SandboxError::Invalid { reason })
    })?;
    let session = client.resume(state).await.map_err(wrong)?;
    let saved = persist(session.as_ref(), writer).await;
    // Saved or not, nothing stays running.
    session.stop().await.map_err(wrong)?;
    saved.map_err(wrong)?;
    Ok(file)
}

async fn persist(session: &dyn SandboxSession, to: File) -> Result<(), SandboxError> {
    session.start().await?;
    session.persist(Box::pin(tokio::fs::File::from_std(to)), &[]).await
}

/// Writes the file. Blocks.
fn write(
    mut header: Header,
    taken: &[Taken],
    workspaces: Vec<(RunId, String, File)>,
    out: impl Write,
) -> std::io::Result<()> {
    for (number, taken) in taken.iter().enumerate() {
        header.runs.push(Part {
            run: taken.run.clone(),
            file: format!("run-{number}.jsonl"),
            bytes: taken.lines.len() as u64,
            sha256: digest(&taken.lines),
        });
    }
    let mut saved = Vec::new();
    for (run, file, mut content) in workspaces {
        content.rewind()?;
        let (bytes, sha256) = copy(&mut content, &mut std::io::sink(), u64::MAX)?;
        if bytes > MAX_WORKSPACE {
            let error =
                TransferError::TooLarge { what: format!("the workspace of run {run}"), limit: MAX_WORKSPACE };
            return Err(std::io::Error::other(error));
        }
        header.workspaces.push(Part { run, file, bytes, sha256 });
        saved.push(content);
    }
    let seconds = u64::try_from(header.exported_ms / 1000).unwrap_or(0);
    let text = serde_json::to_vec_pretty(&header)?;
    let mut archive = tar::Builder::new(out);
    let mut add = |name: &str, bytes: u64, content: &mut dyn std::io::Read| {
        let mut entry = tar::Header::new_ustar();
        entry.set_size(bytes);
        // For its owner alone: it holds what agents read and wrote.
        entry.set_mode(0o600);
        entry.set_mtime(seconds);
        entry.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut entry, name, content)
    };
    add(HEADER, text.len() as u64, &mut text.as_slice())?;
    add(HEADER_DIGEST, 64, &mut digest(&text).as_bytes())?;
    for (part, taken) in header.runs.iter().zip(taken) {
        add(&part.file, part.bytes, &mut taken.lines.as_slice())?;
    }
    for (part, mut content) in header.workspaces.iter().zip(saved) {
        content.rewind()?;
        add(&part.file, part.bytes, &mut content)?;
    }
    archive.into_inner()?.flush()
}
