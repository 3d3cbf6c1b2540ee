//! Where an attempt is made: a sandbox, the world outside of it, and a harness that is careful or is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{ExecRequest, ExecResult, Outcome, SandboxSession, WriteOptions};

use crate::careless;
use crate::outside::Outside;
use crate::{Finding, Started};

/// How long an attempt may take; far beyond what it takes.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// Begins every program that runs inside. What it prints as `ESCAPED …` is what it got.
const PRELUDE: &str = r#"
import ctypes, errno, os, platform, signal, socket, stat, struct, sys, time
E = os.environ
libc = ctypes.CDLL(None, use_errno=True)
def escaped(*what): print("ESCAPED", *what, flush=True)
def not_here(why): print("NOT HERE", why, flush=True); print("DONE"); sys.exit(0)
def tries(do, *arguments):
    try: return do(*arguments)
    except (OSError, ValueError): return None
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    return result, (ctypes.get_errno() if result < 0 else 0)
def x86(): 
    if platform.machine() != "x86_64": not_here("the numbers of system calls are those of x86_64")
"#;

/// Where an attempt is made.
#[derive(Debug)]
pub struct Ground {
    pub(crate) sandbox: Started,
    pub(crate) outside: Outside,
    /// The harness touches the workspace on the host as if it were its own.
    pub(crate) careless: bool,
}

impl Ground {
    pub(crate) fn session(&self) -> &Arc<dyn SandboxSession> {
        &self.sandbox.session
    }

    /// Whether the protections are off: then there are no limits, and what succeeds is real.
    pub(crate) fn is_open(&self) -> bool {
        self.session().isolation().is_some_and(|isolation| isolation.level == "none")
    }

    pub(crate) fn request(&self, program: &str) -> ExecRequest {
        let program = format!("{PRELUDE}{program}\nprint('DONE')\n");
        let mut request = ExecRequest::argv(["python3".to_owned(), "-c".to_owned(), program]).timeout(SOON);
        request
            .env
            .extend(self.outside.variables().into_iter().map(|(name, value)| (name.to_owned(), value)));
        request
    }

    /// Runs a program inside, and says what it got.
    pub(crate) async fn inside(&self, program: &str) -> Finding {
        let result = self.session().exec(self.request(program)).await.unwrap();
        Self::read(&result)
    }

    pub(crate) fn read(result: &ExecResult) -> Finding {
        let told = result.stdout.text();
        let (said, stderr) = (format!("{told}{}", result.stderr.text()), result.stderr.text());
        // A limit that ends the attempt is what it met.
        let stopped = matches!(result.outcome, Outcome::OutOfMemory);
        let done = told.lines().any(|line| line == "DONE") && result.outcome == Outcome::Exited { code: 0 };
        assert!(done || stopped, "the attempt broke off: {:?}: {said}{stderr}", result.outcome);
        if let Some(why) = told.lines().find_map(|line| line.strip_prefix("NOT HERE ")) {
            return Err(why.to_owned());
        }
        Ok(told.lines().filter_map(|line| line.strip_prefix("ESCAPED ")).map(str::to_owned).collect())
    }

    /// Writes a file of the workspace, as the harness's tools do. Whether that is refused is not the question.
    pub(crate) async fn write(&self, path: &str, data: &str) {
        if self.careless {
            careless::write(&self.host_path(path), data);
        } else {
            let data = Bytes::from(data.to_owned());
            let _ = self.session().write(path, data, WriteOptions::default()).await;
        }
    }

    /// Reads a file of the workspace, as the harness's tools do.
    pub(crate) async fn file(&self, path: &str) -> String {
        if self.careless {
            return std::fs::read_to_string(self.host_path(path)).unwrap_or_default();
        }
        let data = self.session().read(path, 1 << 20).await.unwrap_or_default();
        String::from_utf8_lossy(&data).into_owned()
    }

    /// Unpacks an archive into the workspace. Whether that is refused is not the question.
    pub(crate) async fn unpack(&self, archive: Vec<u8>) {
        if self.careless {
            careless::unpack(&self.host_path("."), &archive);
        } else {
            let reader = std::io::Cursor::new(archive);
            let _ = self.session().unpack(".", Box::pin(reader)).await;
        }
    }

    /// A path of the workspace on this host. A careless harness has one.
    pub(crate) fn host_path(&self, path: &str) -> std::path::PathBuf {
        self.sandbox.workspace.as_ref().unwrap().join(path)
    }
}
