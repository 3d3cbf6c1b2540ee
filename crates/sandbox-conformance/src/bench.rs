//! Where a case works: sandboxes of one backend, deleted after it.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use mooring_manifest::Manifest;
use mooring_sandbox::{
    CreateRequest, ExecRequest, ExecResult, Outcome, SandboxClient, SandboxError, SandboxSession,
    SessionState,
};

use crate::{Backend, CASES};

/// How long a case waits for what must happen; far beyond what it takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A backend at work.
#[derive(Debug)]
pub struct Bench {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) client: Arc<dyn SandboxClient>,
    made: Mutex<Vec<(Arc<dyn SandboxClient>, SessionState)>>,
}

/// Runs a case.
///
/// # Panics
/// Where the backend does not do what the case says.
pub fn run(name: &str, backend: impl Backend + 'static) {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("the suite has no case '{name}'"));
    let bench = Bench { client: backend.client(), backend: Box::new(backend), made: Mutex::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (result, deleted) = runtime.block_on(async {
        let result = AssertUnwindSafe((case.run)(&bench)).catch_unwind().await;
        (result, bench.delete_all().await)
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    deleted.unwrap_or_else(|error| panic!("a session cannot be deleted: {error}"));
}

impl Bench {
    /// Says why a case is left out.
    #[expect(clippy::print_stderr, reason = "a test says so on standard error")]
    pub(crate) fn left_out(&self, why: &str) {
        eprintln!("left out: the {} sandbox: {why}", self.client.backend_id());
    }

    /// A started sandbox.
    pub(crate) async fn sandbox(&self) -> Sandbox {
        self.with_manifest(Manifest::default()).await
    }

    pub(crate) async fn with_manifest(&self, manifest: Manifest) -> Sandbox {
        let request = CreateRequest { session_id: unique("s"), manifest, workspace: None };
        self.start(&self.client, request).await
    }

    pub(crate) async fn start(&self, client: &Arc<dyn SandboxClient>, request: CreateRequest) -> Sandbox {
        let session = self.create(client, request).await.unwrap();
        session.start().await.unwrap();
        Sandbox { session }
    }

    pub(crate) async fn create(
        &self,
        client: &Arc<dyn SandboxClient>,
        request: CreateRequest,
    ) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        let session = client.create(request).await?;
        self.made.lock().unwrap().push((Arc::clone(client), session.state()));
        Ok(session)
    }

    async fn delete_all(&self) -> Result<(), SandboxError> {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        let mut result = Ok(());
        for (client, state) in made {
            result = result.and(client.delete(&state).await);
        }
        result
    }
}

/// One sandbox, started.
pub(crate) struct Sandbox {
    pub(crate) session: Arc<dyn SandboxSession>,
}

impl Sandbox {
    /// A shell line's result.
    pub(crate) async fn sh(&self, line: &str) -> ExecResult {
        self.session.exec(ExecRequest::shell(line).timeout(SOON)).await.unwrap()
    }

    /// A shell line's output, which must succeed and say nothing on standard error.
    pub(crate) async fn out(&self, line: &str) -> String {
        let result = self.sh(line).await;
        let (outcome, stderr) = (result.outcome, result.stderr.text());
        assert_eq!((outcome, stderr.as_str()), (exited(0), ""), "{line}");
        result.stdout.text()
    }

    /// How many processes in the sandbox have this mark in their arguments.
    pub(crate) async fn running(&self, mark: &str) -> usize {
        let (first, rest) = mark.split_at(1);
        // The pattern does not match the line that it is in.
        let line = format!(
            "for file in /proc/[0-9]*/cmdline; do {{ tr '\\0' ' ' < $file; echo; }} 2>/dev/null; done | \
             grep -c '[{first}]{rest}'; true"
        );
        self.out(&line).await.trim().parse().unwrap()
    }

    /// Waits until so many processes have this mark.
    pub(crate) async fn until_running(&self, mark: &str, count: usize) {
        let give_up = tokio::time::Instant::now() + SOON;
        while self.running(mark).await != count {
            assert!(tokio::time::Instant::now() < give_up, "never were {count} processes with mark {mark}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Output, errors and outcome in one value.
pub(crate) fn seen(result: &ExecResult) -> (String, String, Outcome) {
    (result.stdout.text(), result.stderr.text(), result.outcome)
}

pub(crate) fn exited(code: i32) -> Outcome {
    Outcome::Exited { code }
}

pub(crate) fn request(id: &str) -> CreateRequest {
    CreateRequest { session_id: id.into(), manifest: Manifest::default(), workspace: None }
}

pub(crate) fn in_workspace(path: PathBuf) -> CreateRequest {
    CreateRequest { workspace: Some(path), ..request(&unique("s")) }
}

/// A word that nothing else contains.
pub(crate) fn unique(start: &str) -> String {
    format!("{start}{:016x}", random())
}

/// A number of seconds for `sleep` that nothing else on this host sleeps for: its mark.
pub(crate) fn mark() -> String {
    format!("{}", 1_000_000_000 + random() % 1_000_000_000)
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
