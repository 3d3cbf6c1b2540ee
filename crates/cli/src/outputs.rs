//! `--outputs DIR`: what a manifest says that a run leaves, copied out of its sandbox once the run is over.
//!
//! It comes as one archive for each output and is unpacked like every archive: nothing of it lands outside of its place,
//! nothing that is there is overwritten, and links that lead out are refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mooring_harness::{Finished, Host, Status};
use mooring_manifest::Manifest;
use mooring_sandbox::{SandboxError, SandboxSession, SessionState};
use serde_json::Value;

use crate::command::sandbox::cp::{Links, get};
use crate::command_error::CommandError;

/// Where outputs go.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    directory: PathBuf,
    paths: Vec<String>,
}

impl Outputs {
    /// Refuses what could not be copied, before anything starts.
    pub(crate) fn new(directory: PathBuf, manifest: &Manifest) -> Result<Self, CommandError> {
        let paths: Vec<String> =
            manifest.extension.outputs.iter().map(|output| output.path.clone()).collect();
        if paths.is_empty() {
            return Err(CommandError::input(
                "--outputs: the manifest names none; add them to x-mooring.outputs, or leave --outputs out",
            ));
        }
        for path in &paths {
            let target = directory.join(path);
            if target.symlink_metadata().is_ok() {
                return Err(CommandError::input(format!(
                    "--outputs: {} is there already, and would be overwritten; name another directory",
                    target.display()
                )));
            }
        }
        Ok(Self { directory, paths })
    }

    /// Copies what a run left, if it is over. What is not there is left out: a run that was to leave it has failed.
    pub(crate) async fn copy(&self, host: &Host, finished: &Finished) -> Result<(), CommandError> {
        if finished.status == Status::Waiting {
            crate::view::note(
                "the run waits, and its outputs stay in its sandbox; `moor resume --outputs` copies them",
            );
            return Ok(());
        }
        let Some(session) = session(host, finished).await? else { return Ok(()) };
        session.start().await?;
        let copied = self.copy_from(&session).await;
        // The run is over, whatever becomes of its sandbox.
        let _ = session.stop().await;
        copied
    }

    async fn copy_from(&self, session: &Arc<dyn SandboxSession>) -> Result<(), CommandError> {
        for path in &self.paths {
            match session.stat(path).await {
                Ok(_) => {}
                Err(SandboxError::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            let target = self.directory.join(path);
            fs_err::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
            get(Arc::clone(session), path, &target, Links::Inside).await?;
            crate::view::note(&format!("output {}", target.display()));
        }
        Ok(())
    }
}

/// The session that a run worked in. `None`: it had none.
async fn session(host: &Host, finished: &Finished) -> Result<Option<Arc<dyn SandboxSession>>, CommandError> {
    let state = mooring_harness::fold(host.journal.as_ref(), &finished.run, |_| {}).await?;
    let entry = state.started.agent["name"].as_str().unwrap_or_default();
    let client = host.agents.get(entry).and_then(|agent| agent.sandbox.clone());
    let (Some(client), Some(session)) = (client, state.sandbox.session) else { return Ok(None) };
    let session: Result<SessionState, _> = serde_json::from_value::<SessionState>(Value::clone(&session));
    let session = session.map_err(|error| {
        CommandError::failed(format!("the sandbox of run {} cannot be read: {error}", finished.run))
    })?;
    Ok(Some(client.resume(session).await?))
}
