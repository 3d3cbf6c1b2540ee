//! The suite that every backend passes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mooring_sandbox::{BoxFuture, ExecRequest, SandboxClient, SandboxSession};
use mooring_sandbox_conformance::{Backend, Faults, Limits as Limited, SmallDisk};
use mooring_sandbox_local::{Limits, LocalOptions, LocalSandboxClient};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::setup::{is_root, supervisors_above, unique};

#[derive(Debug)]
struct Local {
    state: TempDir,
    disk: Mutex<Option<SmallDisk>>,
    frozen: Mutex<HashMap<String, Pid>>,
}

fn local() -> Local {
    Local { state: tempfile::tempdir().unwrap(), disk: Mutex::default(), frozen: Mutex::default() }
}

impl Backend for Local {
    fn client(&self) -> Arc<dyn SandboxClient> {
        Arc::new(LocalSandboxClient::new(LocalOptions::new(self.state.path())))
    }

    fn limited(&self, limits: Limited) -> Result<Arc<dyn SandboxClient>, String> {
        let mut options = LocalOptions::new(self.state.path());
        options.limits = match limits {
            Limited::Memory(_) if !is_root() => {
                return Err("an ordinary user has no memory controller here, and is refused".into());
            }
            Limited::Memory(bytes) => Limits { memory_bytes: Some(bytes), ..Limits::default() },
            Limited::Processes(count) => Limits { pids: Some(count), ..Limits::default() },
        };
        Ok(Arc::new(LocalSandboxClient::new(options)))
    }

    fn small_disk(&self, bytes: u64) -> Result<PathBuf, String> {
        let disk = SmallDisk::mount(bytes, 0)?;
        let path = disk.path().to_owned();
        *self.disk.lock().unwrap() = Some(disk);
        Ok(path)
    }

    fn faults(&self) -> &dyn Faults {
        self
    }
}

/// The supervisor inside, and the monitor that started it, by their numbers on this host.
async fn supervisor(session: &dyn SandboxSession) -> (Pid, Pid) {
    let mark = unique("mark");
    let line = format!("exec -a {mark} sleep 1000");
    let process = session.spawn(ExecRequest::shell(line)).await.unwrap();
    let mut above = Vec::new();
    crate::setup::until("it runs", || {
        above = supervisors_above(&mark);
        above.len() >= 3
    })
    .await;
    process.release().await.unwrap();
    // Reaper, supervisor and monitor, from the inside out.
    let pid = |number: i32| Pid::from_raw(number).unwrap();
    (pid(above[above.len() - 2]), pid(above[above.len() - 1]))
}

impl Faults for Local {
    fn freeze<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let (inside, _) = supervisor(session).await;
            kill_process(inside, Signal::STOP).unwrap();
            self.frozen.lock().unwrap().insert(session.id().into(), inside);
        })
    }

    fn thaw<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()> {
        let pid = self.frozen.lock().unwrap().remove(session.id()).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
        Box::pin(std::future::ready(()))
    }

    fn kill<'a>(&'a self, session: &'a dyn SandboxSession) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let (_, monitor) = supervisor(session).await;
            kill_process(monitor, Signal::KILL).unwrap();
        })
    }
}

mooring_sandbox_conformance::suite!(local());
