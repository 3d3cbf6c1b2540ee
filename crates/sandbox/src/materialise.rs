//! A plan becomes a workspace: one archive stream, whatever the number of files.

use std::collections::BTreeMap;
use std::path::Path;

use futures::{StreamExt, TryStreamExt};
use mooring_archive::{Limits, unpack};
use mooring_manifest::extension::SetupCommand;
use tokio_util::io::SyncIoBridge;

use crate::git::Clone;
use crate::plan::{Content, Plan};
use crate::stage::{Halt, produce};
use crate::verify::verify;
use crate::{ArchiveReader, BoxFuture, ExecRequest, Outcome, SandboxError, SandboxSession};

/// How much of the archive is held between its two ends.
const BUFFER: usize = 512 << 10;

/// How many lines of a failed command's output an error shows.
const SHOWN_LINES: usize = 5;

/// How many repositories are cloned at once.
const CLONES_AT_ONCE: usize = 4;

/// What was staged.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Materialised {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// SHA-256 over all paths with kind, mode and content, in hexadecimal. Times do not count, nor do `.git`
    /// directories: two clones of one commit have the same digest.
    pub digest: String,
    /// The commits of the manifest's repositories, by entry.
    pub commits: BTreeMap<String, String>,
    /// What became of the set-up commands; `None` where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<SetUp>,
}

/// Where the result of the set-up commands came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum SetUp {
    /// They ran, and what they made is not kept.
    Ran {
        /// Why not.
        reason: String,
    },
    /// They ran, and what they made is kept for the next sandbox.
    Kept,
    /// They ran earlier, and what they made was put here.
    Cached,
}

/// Stages a plan into a session's workspace, which must be running, and then runs the manifest's set-up commands in
/// it, one after the other. Files that exist are replaced: see [`Plan::refuse_conflicts`].
///
/// # Errors
/// [`SandboxError::Stage`] where a source changed since it was planned or a repository cannot be cloned;
/// [`SandboxError::Setup`] where a command does not end with 0; and what the session's `unpack` and `exec` return.
/// What was staged before an error stays.
pub async fn materialise(plan: &Plan, session: &dyn SandboxSession) -> Result<Materialised, SandboxError> {
    let mut staged = materialise_entries(plan, session).await?;
    set_up(plan, session).await?;
    let reason = "there is nowhere to keep it".to_owned();
    staged.setup = (!plan.setup.is_empty()).then_some(SetUp::Ran { reason });
    Ok(staged)
}

/// Stages a plan as [`materialise`] does, without its set-up commands, and looks at each entry again.
///
/// # Errors
/// As [`materialise`].
pub async fn materialise_entries(
    plan: &Plan,
    session: &dyn SandboxSession,
) -> Result<Materialised, SandboxError> {
    let staged = stream(plan, |archive| session.unpack(session.root(), archive)).await?;
    verify(plan, session).await?;
    Ok(staged)
}

/// Runs a plan's set-up commands in a session that holds its entries, one after the other.
///
/// # Errors
/// As [`materialise`].
pub async fn set_up(plan: &Plan, session: &dyn SandboxSession) -> Result<(), SandboxError> {
    for command in plan.setup.iter() {
        run(command, session).await?;
    }
    Ok(())
}

async fn run(command: &SetupCommand, session: &dyn SandboxSession) -> Result<(), SandboxError> {
    let mut request = ExecRequest::shell(&command.run).timeout(command.timeout.duration());
    request.cwd.clone_from(&command.cwd);
    let ended = session.exec(request).await?;
    let how = match ended.outcome {
        Outcome::Exited { code: 0 } => return Ok(()),
        Outcome::Exited { code } => format!("it ended with {code}"),
        Outcome::Signalled { signal } => format!("signal {signal} ended it"),
        Outcome::TimedOut => format!("it took longer than {}", command.timeout),
        Outcome::OutOfMemory => "it needed more memory than the sandbox has".to_owned(),
        Outcome::OutOfDisk => "the workspace would hold more than it may (resources.disk)".to_owned(),
        Outcome::TransportLost => "the sandbox was lost".to_owned(),
        Outcome::Cancelled => "it was cancelled".to_owned(),
    };
    let said = [ended.stderr.text(), ended.stdout.text()].map(|text| text.trim().to_owned());
    let said = said.iter().find(|text| !text.is_empty()).map_or("nothing", |text| text.as_str());
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join(" / ");
    Err(SandboxError::Setup { command: command.run.clone(), reason: format!("{how}, and said: {last}") })
}

/// Stages a plan into a directory on this host, which is made where it does not exist.
///
/// # Errors
/// [`SandboxError::AlreadyExists`] where one of the plan's entries exists, and [`SandboxError::Unsupported`] where
/// one has a group, both before anything is written; otherwise as [`materialise`].
pub async fn apply_to_dir(plan: &Plan, root: &Path) -> Result<Materialised, SandboxError> {
    if let Some(step) = plan.steps.iter().find(|step| !step.group.is_empty()) {
        return Err(SandboxError::Unsupported {
            operation: format!("group '{}' of entry '{}'", step.group, step.path.display()),
            backend: "directory".to_owned(),
            reason: "a directory on the host has no users of the manifest; remove the group".to_owned(),
        });
    }
    let failed = |error: std::io::Error| SandboxError::File {
        operation: "create",
        path: root.display().to_string(),
        reason: error.to_string(),
    };
    tokio::fs::create_dir_all(root).await.map_err(failed)?;
    plan.refuse_conflicts(root)?;
    let root = root.to_owned();
    stream(plan, |archive| async move {
        let archive = SyncIoBridge::new(archive);
        let unpacked = blocking(move || unpack(&root, archive, &Limits::default(), &|_, _| None)).await?;
        unpacked.map(drop).map_err(SandboxError::of_archive)
    })
    .await
}

/// Makes the archive and has it read.
async fn stream<F: Future<Output = Result<(), SandboxError>>>(
    plan: &Plan,
    read: impl FnOnce(ArchiveReader) -> F,
) -> Result<Materialised, SandboxError> {
    let clones = clone_all(plan).await?;
    let (input, output) = tokio::io::duplex(BUFFER);
    let input = SyncIoBridge::new(input);
    let plan = plan.clone();
    let produced = blocking(move || produce(&plan, Some(&clones), input));
    let (produced, read) = tokio::join!(produced, read(Box::pin(output)));
    match (produced?, read) {
        // The source's failure explains the reader's: the stream broke off.
        (Err(Halt::Failed(error)), _) | (_, Err(error)) => Err(error),
        (Err(Halt::Unread), Ok(())) => Err(SandboxError::Archive {
            member: "(end)".to_owned(),
            reason: "it was not read to its end".to_owned(),
        }),
        (Ok((materialised, _)), Ok(())) => Ok(materialised),
    }
}

/// The repositories of a plan's steps, in their order.
pub(crate) async fn clone_all(plan: &Plan) -> Result<Vec<Clone>, SandboxError> {
    let mut clones: Vec<BoxFuture<'_, Result<Clone, SandboxError>>> = Vec::new();
    for step in plan.steps.iter() {
        if let Content::Git(source) = &step.content {
            clones.push(Box::pin(async move { source.bring(&step.path.to_string_lossy()).await }));
        }
    }
    futures::stream::iter(clones).buffered(CLONES_AT_ONCE).try_collect().await
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SandboxError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SandboxError::Invalid { reason: format!("staging was interrupted: {error}") })
}
