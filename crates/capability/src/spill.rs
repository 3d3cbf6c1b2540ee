//! Output that is too long for the model, kept in the workspace so that the model can search and page it.
//!
//! The directory `.moor` at the workspace root is the runtime's: nothing in it is anybody's work, its own `.gitignore`
//! hides it from `git`, and its oldest files go when there are too many. That the file cannot be written is no failure
//! of the command; the report says so.

use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{FileKind, FileStat, SandboxError, SandboxSession, WriteOptions};
use sha2::{Digest, Sha256};

use crate::truncate::Cut;
use crate::workspace::kind;

/// The most of one call's output that is kept: 1 MiB, as much as a sandbox keeps of a command, and 4 KiB for the notes
/// on what it did not keep.
pub(crate) const SPILL_TOKENS: usize = ((1 << 20) + (4 << 10)) / 4;

/// So many files are kept.
const FILES: usize = 32;

/// How long the report waits for the file.
const WAIT: Duration = Duration::from_secs(15);

const OURS: &str = ".moor";
const DIRECTORY: &str = ".moor/output";

/// What became of the output.
#[derive(Debug)]
pub(crate) struct Spilled {
    /// The line that tells the model.
    pub(crate) line: String,
    /// The file, where it was written.
    pub(crate) path: Option<String>,
}

/// Writes the output of the call with this key to its file. `dropped` bytes had gone before it was read.
pub(crate) async fn spill(session: &dyn SandboxSession, key: &str, output: Cut, dropped: u64) -> Spilled {
    let Cut { text, omitted, .. } = output;
    let missing = omitted + dropped;
    let path = format!("{DIRECTORY}/{}.txt", crate::hex(&Sha256::digest(key)[..8]));
    let kept = text.len();
    let reason = match tokio::time::timeout(WAIT, write(session, &path, text)).await {
        Ok(Ok(())) => {
            let line = if missing == 0 {
                format!("Full output: {path} ({kept} bytes)")
            } else {
                format!("Longer output: {path} ({kept} bytes; {missing} more are missing where it says so)")
            };
            return Spilled { line, path: Some(path) };
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the sandbox did not answer within {} s", WAIT.as_secs()),
    };
    Spilled {
        line: format!("Full output: not kept, since {path} could not be written ({reason})"),
        path: None,
    }
}

async fn write(session: &dyn SandboxSession, path: &str, text: String) -> Result<(), SandboxError> {
    for directory in [OURS, DIRECTORY] {
        // Through a link it would land, and old files would be removed, in a directory that is not ours.
        if kind(session, directory).await?.is_some_and(|kind| kind != FileKind::Directory) {
            return Err(SandboxError::File {
                operation: "use",
                path: directory.to_owned(),
                reason: "it is not a directory, but the runtime keeps long output there".to_owned(),
            });
        }
    }
    make_room(session, path).await?;
    let ignore = WriteOptions { create_new: true, parents: true, ..WriteOptions::default() };
    match session.write(".moor/.gitignore", Bytes::from_static(b"*\n"), ignore).await {
        Ok(()) | Err(SandboxError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
    }
    let options = WriteOptions { parents: true, ..WriteOptions::default() };
    session.write(path, Bytes::from(text), options).await
}

/// Removes the oldest files, so that with the one at `path` there are not too many.
async fn make_room(session: &dyn SandboxSession, path: &str) -> Result<(), SandboxError> {
    let entries = match session.list(DIRECTORY).await {
        Ok(entries) => entries,
        Err(SandboxError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let full = |entry: &FileStat| format!("{DIRECTORY}/{}", entry.name);
    let mut ours: Vec<_> = entries.iter().filter(|entry| is_ours(entry) && full(entry) != path).collect();
    ours.sort_by_key(|entry| (entry.modified_ns, &entry.name));
    let surplus = (ours.len() + 1).saturating_sub(FILES);
    for entry in &ours[..surplus] {
        match session.remove(&full(entry), false).await {
            // A call at the same time may have removed it.
            Ok(()) | Err(SandboxError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether this is a file that [`spill`] wrote, by its name.
fn is_ours(entry: &FileStat) -> bool {
    let digest = entry.name.strip_suffix(".txt").unwrap_or_default();
    entry.kind == FileKind::File && digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
}
