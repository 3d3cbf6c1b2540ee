//! Attempts to get out.

use std::sync::Arc;

use mooring_manifest::Manifest;
use mooring_sandbox::{BoxFuture, CreateRequest, SandboxClient as _};
use mooring_sandbox_escape::{MEMORY, PROCESSES, Started, Target};
use mooring_sandbox_local::{IsolationLevel, Limits, LocalOptions, LocalSandboxClient, private_workspace};
use tempfile::TempDir;

use crate::setup::is_root;

struct Local {
    state: TempDir,
}

impl Local {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap() }
    }

    async fn start(&self, options: LocalOptions) -> Started {
        let limits = options.limits;
        let client = Arc::new(LocalSandboxClient::new(options));
        let id = "escape";
        let request = CreateRequest { session_id: id.into(), manifest: Manifest::default(), workspace: None };
        let session = client.create(request).await.unwrap();
        session.start().await.unwrap();
        Started {
            session,
            client,
            workspace: Some(private_workspace(self.state.path(), id)),
            limits_processes: limits.pids.is_some(),
            limits_memory: limits.memory_bytes.is_some(),
        }
    }
}

impl Target for Local {
    fn guarded(&self) -> BoxFuture<'_, Started> {
        // An ordinary user without a delegated group cannot limit memory.
        let memory_bytes = is_root().then_some(MEMORY);
        let limits = Limits { memory_bytes, pids: Some(PROCESSES), cpus: None, ..Limits::default() };
        Box::pin(self.start(LocalOptions { limits, ..LocalOptions::new(self.state.path()) }))
    }

    fn open(&self) -> BoxFuture<'_, Started> {
        let isolation = IsolationLevel::None;
        Box::pin(self.start(LocalOptions { isolation, ..LocalOptions::new(self.state.path()) }))
    }
}

mooring_sandbox_escape::suite!(Local::new());
