//! What a patch would make of the workspace, computed as a whole before anything is written.
//!
//! Operations run in order over an overlay of the files they touch, so that a patch may delete a file and make it
//! anew, or change what it moved. The result is one change per file, with the content before and after; a failure
//! anywhere means that nothing is written at all.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mooring_sandbox::{FileKind, SandboxError, SandboxSession};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::diff::{DiffError, apply_diff, created_content};
use crate::patch::{Operation, SyntaxError};
use crate::path::{BadPath, relative};

/// The largest file that a patch may touch.
const FILE_LIMIT: u64 = 16 << 20;

/// Permission bits of a new file.
const NEW_MODE: u32 = 0o644;

/// Why a patch cannot be applied. The text is the OpenAI Agents SDK's where it has one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    #[error("{0}")]
    Syntax(#[from] SyntaxError),
    #[error("{source}\n(in {path})")]
    Diff { path: String, source: DiffError },
    #[error("apply_patch path must be non-empty")]
    EmptyPath,
    #[error("apply_patch path must not escape root: {path}")]
    Escape { path: String },
    #[error("apply_patch missing file: {path}")]
    Missing { path: String },
    #[error("apply_patch could not decode file: {path}")]
    Decode { path: String },
    #[error(
        "apply_patch cannot create {path} because it already exists. Use an update_file operation to change an \
         existing file."
    )]
    Exists { path: String },
    #[error("apply_patch cannot move {from} to {to} because {to} already exists.")]
    MoveOver { from: String, to: String },
    #[error("apply_patch cannot change {path} because it is {kind}.")]
    NoFile { path: String, kind: String },
    #[error("apply_patch cannot write {path} because {parent} is no directory.")]
    Parent { path: String, parent: String },
    #[error("apply_patch cannot change {path}: it has {size} bytes, and the limit is {FILE_LIMIT}.")]
    TooLarge { path: String, size: u64 },
    #[error("apply_patch cannot look at {path}: {source}")]
    Sandbox { path: String, source: SandboxError },
}

impl PatchError {
    /// What the model can do about it.
    pub(crate) fn next_step(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "Correct the patch and send it again.",
            Self::Diff { source, .. } => source.next_step(),
            Self::EmptyPath | Self::Escape { .. } => "Use a path relative to the workspace root.",
            Self::Missing { .. } => "Check the path, or use Add File to make the file.",
            Self::Decode { .. } => "The file is not UTF-8 text: change it with a command instead.",
            Self::Exists { .. } => "To replace it as a whole, delete it and add it in one patch.",
            Self::MoveOver { .. } => "Delete that file first, in the same patch, or move to another name.",
            Self::NoFile { .. } => "Name a regular file, or use a command.",
            Self::Parent { .. } => "Use another path, or remove what is there in a patch of its own first.",
            Self::TooLarge { .. } => "Change it with a command instead.",
            Self::Sandbox { .. } => "Send the patch again once the path can be read.",
        }
    }

    pub(crate) fn session_lost(&self) -> bool {
        matches!(self, Self::Sandbox { source, .. } if source.session_lost())
    }
}

/// A file's content and mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) data: Bytes,
    pub(crate) mode: u32,
}

/// What becomes of one file. `None` is no file.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) path: String,
    pub(crate) before: Option<Stored>,
    pub(crate) after: Option<Stored>,
}

/// One change as the journal has it: digests instead of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) path: String,
    /// SHA-256 in hex; `None`: no file.
    pub(crate) before: Option<String>,
    /// SHA-256 in hex; `None`: no file.
    pub(crate) after: Option<String>,
    /// Permission bits in octal; `None`: no file.
    pub(crate) mode: Option<String>,
}

impl Change {
    pub(crate) fn record(&self) -> Record {
        Record {
            path: self.path.clone(),
            before: self.before.as_ref().map(|file| digest(&file.data)),
            after: self.after.as_ref().map(|file| digest(&file.data)),
            mode: self.after.as_ref().map(|file| format!("{:04o}", file.mode)),
        }
    }

    /// What has to be done first: new files, then replaced ones, then removals. While a file that moves is still to be
    /// written, its content is still at its old place.
    pub(crate) fn rank(&self) -> u8 {
        match (&self.before, &self.after) {
            (None, _) => 0,
            (_, Some(_)) => 1,
            (_, None) => 2,
        }
    }
}

/// Computes what `operations` make of the workspace: changes in the order of writing. Operations on files in `settled`
/// are taken as done: those files are left as they are, and no change names them.
pub(crate) async fn plan(
    session: &dyn SandboxSession,
    operations: &[Operation],
    settled: &BTreeSet<String>,
) -> Result<Vec<Change>, PatchError> {
    // All paths are looked at before any file is.
    let named = named(session.root(), operations)?;
    let mut overlay = Overlay { session, settled, files: BTreeMap::new() };
    for Named { operation, path, target } in named {
        match operation {
            Operation::Create { diff, .. } => overlay.create(&path, diff).await?,
            Operation::Update { diff, .. } => overlay.update(&path, diff, target.as_deref()).await?,
            Operation::Delete { .. } => overlay.delete(&path).await?,
        }
    }
    overlay.check_parents().await?;
    let mut changes: Vec<_> = overlay
        .files
        .into_iter()
        .filter(|(path, _)| !settled.contains(path))
        .map(|(path, slot)| Change { path, before: slot.before, after: slot.now })
        .filter(|change| change.before.is_some() || change.after.is_some())
        .collect();
    changes.sort_by_key(Change::rank);
    Ok(changes)
}

/// What the model is told when all is done.
pub(crate) fn summary(root: &str, operations: &[Operation]) -> Result<String, PatchError> {
    let mut lines = Vec::new();
    for Named { operation, path, target } in named(root, operations)? {
        match operation {
            Operation::Create { .. } => lines.push(format!("Created {path}")),
            Operation::Update { .. } => lines.push(format!("Updated {path}")),
            Operation::Delete { .. } => lines.push(format!("Deleted {path}")),
        }
        lines.extend(target.map(|target| format!("Moved {path} to {target}")));
    }
    Ok(lines.join("\n"))
}

/// A file as it is, `None` where there is none.
pub(crate) async fn load(session: &dyn SandboxSession, path: &str) -> Result<Option<Stored>, PatchError> {
    let failed = |source| match source {
        SandboxError::PathEscape { .. } => PatchError::Escape { path: path.to_owned() },
        source => PatchError::Sandbox { path: path.to_owned(), source },
    };
    let stat = match session.stat(path).await {
        Ok(stat) => stat,
        Err(SandboxError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let kind = match (stat.kind, stat.target) {
        (FileKind::File, _) if stat.size > FILE_LIMIT => {
            return Err(PatchError::TooLarge { path: path.to_owned(), size: stat.size });
        }
        (FileKind::File, _) => {
            let data = session.read(path, FILE_LIMIT).await.map_err(failed)?;
            return Ok(Some(Stored { data, mode: stat.mode }));
        }
        (FileKind::Directory, _) => "a directory".to_owned(),
        (FileKind::Symlink, Some(target)) => format!("a symbolic link to {target}"),
        (FileKind::Symlink, None) => "a symbolic link".to_owned(),
        (FileKind::Other, _) => "a device, FIFO or socket".to_owned(),
    };
    Err(PatchError::NoFile { path: path.to_owned(), kind })
}

/// SHA-256 in hex.
pub(crate) fn digest(data: &[u8]) -> String {
    crate::hex(&Sha256::digest(data))
}

/// A touched file, as it is and as it becomes.
struct Slot {
    before: Option<Stored>,
    now: Option<Stored>,
}

struct Overlay<'a> {
    session: &'a dyn SandboxSession,
    settled: &'a BTreeSet<String>,
    files: BTreeMap<String, Slot>,
}

impl Overlay<'_> {
    async fn create(&mut self, path: &str, diff: &str) -> Result<(), PatchError> {
        if self.settled.contains(path) {
            return Ok(());
        }
        let content =
            created_content(diff).map_err(|source| PatchError::Diff { path: path.to_owned(), source })?;
        match self.slot(path).await {
            Ok(slot) if slot.now.is_none() => {
                slot.now = Some(Stored { data: content.into(), mode: NEW_MODE });
                Ok(())
            }
            Ok(_) | Err(PatchError::NoFile { .. } | PatchError::TooLarge { .. }) => {
                Err(PatchError::Exists { path: path.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    async fn update(&mut self, path: &str, diff: &str, target: Option<&str>) -> Result<(), PatchError> {
        if self.settled.contains(path) {
            return Ok(());
        }
        let root = self.session.root().to_owned();
        let slot = self.slot(path).await?;
        let Some(file) = &mut slot.now else {
            return Err(PatchError::Missing { path: path.to_owned() });
        };
        let text = std::str::from_utf8(&file.data)
            .map_err(|_| PatchError::Decode { path: format!("{}/{path}", root.trim_end_matches('/')) })?;
        let changed =
            apply_diff(text, diff).map_err(|source| PatchError::Diff { path: path.to_owned(), source })?;
        file.data = changed.into();
        let Some(target) = target.filter(|target| *target != path) else {
            return Ok(());
        };
        let moved = slot.now.take();
        if self.settled.contains(target) {
            return Ok(());
        }
        match self.slot(target).await {
            Ok(slot) if slot.now.is_none() => {
                slot.now = moved;
                Ok(())
            }
            Ok(_) | Err(PatchError::NoFile { .. } | PatchError::TooLarge { .. }) => {
                Err(PatchError::MoveOver { from: path.to_owned(), to: target.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    async fn delete(&mut self, path: &str) -> Result<(), PatchError> {
        if self.settled.contains(path) {
            return Ok(());
        }
        match self.slot(path).await?.now.take() {
            Some(_) => Ok(()),
            None => Err(PatchError::Missing { path: path.to_owned() }),
        }
    }

    async fn slot(&mut self, path: &str) -> Result<&mut Slot, PatchError> {
        if !self.files.contains_key(path) {
            let before = load(self.session, path).await?;
            self.files.insert(path.to_owned(), Slot { now: before.clone(), before });
        }
        // It was just put there: this makes nothing new.
        Ok(self.files.entry(path.to_owned()).or_insert(Slot { before: None, now: None }))
    }

    /// A new file's parents are directories or are not there. Found out now, since a failure between two writes would
    /// come too late.
    async fn check_parents(&self) -> Result<(), PatchError> {
        let created = self.files.iter().filter(|(_, slot)| slot.before.is_none() && slot.now.is_some());
        for (path, _) in created {
            for (end, _) in path.match_indices('/') {
                let parent = &path[..end];
                let is_directory = !self.files.contains_key(parent)
                    && match self.session.stat(parent).await {
                        Ok(stat) => matches!(stat.kind, FileKind::Directory | FileKind::Symlink),
                        Err(SandboxError::NotFound { .. }) => true,
                        Err(source) => return Err(PatchError::Sandbox { path: parent.to_owned(), source }),
                    };
                if !is_directory {
                    return Err(PatchError::Parent { path: path.clone(), parent: parent.to_owned() });
                }
            }
        }
        Ok(())
    }
}

/// An operation with its paths relative to the root.
struct Named<'a> {
    operation: &'a Operation,
    path: String,
    target: Option<String>,
}

fn named<'a>(root: &str, operations: &'a [Operation]) -> Result<Vec<Named<'a>>, PatchError> {
    let name = |operation: &'a Operation| {
        let (path, target) = match operation {
            Operation::Create { path, .. } | Operation::Delete { path } => (path, None),
            Operation::Update { path, move_to, .. } => (path, move_to.as_ref()),
        };
        let target = target.map(|target| confined(root, target)).transpose()?;
        Ok(Named { operation, path: confined(root, path)?, target })
    };
    operations.iter().map(name).collect()
}

fn confined(root: &str, path: &str) -> Result<String, PatchError> {
    relative(root, path).map_err(|bad| match bad {
        BadPath::Empty => PatchError::EmptyPath,
        BadPath::Escape => PatchError::Escape { path: path.to_owned() },
    })
}
