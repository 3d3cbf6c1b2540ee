//! Sandboxes for tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, ExecResult, Outcome, SandboxClient, SandboxSession};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use tempfile::TempDir;

/// How long a test waits for what must happen; far beyond what it takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Sandbox {
    pub(crate) session: Arc<dyn SandboxSession>,
    pub(crate) client: LocalSandboxClient,
    pub(crate) state: TempDir,
}

impl Sandbox {
    /// A started one.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}, Manifest::default(), None).await
    }

    pub(crate) async fn with(
        change: impl FnOnce(&mut LocalOptions),
        manifest: Manifest,
        workspace: Option<PathBuf>,
    ) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut options = LocalOptions::new(state.path());
        change(&mut options);
        let client = LocalSandboxClient::new(options);
        let request = CreateRequest { session_id: unique("s"), manifest, workspace };
        let session = client.create(request).await.unwrap();
        session.start().await.unwrap();
        Self { session, client, state }
    }

    /// A shell line's result.
    pub(crate) async fn sh(&self, line: &str) -> ExecResult {
        self.session.exec(ExecRequest::shell(line).timeout(SOON)).await.unwrap()
    }

    /// A shell line's output, which must succeed and say nothing on standard error.
    pub(crate) async fn out(&self, line: &str) -> String {
        let result = self.sh(line).await;
        let (outcome, stderr) = (result.outcome, result.stderr.text());
        assert_eq!((outcome, stderr.as_str()), (Outcome::Exited { code: 0 }, ""), "{line}");
        result.stdout.text()
    }
}

/// Output, errors and outcome in one value.
pub(crate) fn seen(result: &ExecResult) -> (String, String, Outcome) {
    (result.stdout.text(), result.stderr.text(), result.outcome)
}

pub(crate) fn exited(code: i32) -> Outcome {
    Outcome::Exited { code }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A word that nothing else on this machine contains.
pub(crate) fn unique(start: &str) -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!("{start}{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// How many processes on this host have `word` in their arguments.
pub(crate) fn running(word: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap();
    let commands = processes.filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok());
    commands.filter(|command| command.windows(word.len()).any(|part| part == word.as_bytes())).count()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = tokio::time::Instant::now() + SOON;
    while !holds() {
        assert!(tokio::time::Instant::now() < give_up, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The supervisors that a process with `word` in its arguments runs below, from the inside out: reaper, supervisor,
/// monitor. None where it does not run.
pub(crate) fn supervisors_above(word: &str) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let command = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let has = |pid: &i32| command(*pid).windows(word.len()).any(|part| part == word.as_bytes());
    let ancestors =
        std::iter::successors(pids.filter(has).max(), |pid| parent_of(*pid).filter(|pid| *pid > 1));
    ancestors.filter(|pid| command(*pid).starts_with(b"moor-supervisor")).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}
