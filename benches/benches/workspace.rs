//! What 10,000 small files cost: to stage them, to keep a snapshot of them, to bring it back, to fork their workspace.
//!
//! Beside it, in the same run and in turn with it: the same files written without a sandbox, and copied by `cp -a`,
//! which is what a snapshot or a fork costs where nothing is shared.
//!
//! Nothing is deleted before the end: ext4 passes over what was deleted in the last seconds, one by one, whenever it
//! makes a file, and would be what is measured.

#![expect(clippy::print_stdout, reason = "a bench reports on the terminal")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mooring_benches::{Error, Samples, Table, figure, machine};
use mooring_manifest::{Format, Manifest};
use mooring_sandbox::{
    CreateRequest, ExecRequest, Outcome, Plan, SandboxClient, SandboxSession, WriteOptions, materialise,
};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use mooring_snapshot::{NewSnapshot, SnapshotStore};
use tokio::runtime::Runtime;

const FILES: usize = 10_000;
const FOLDERS: usize = 100;
const ROUNDS: usize = 5;

fn main() -> Result<(), Error> {
    println!("machine: {}; load at start: {}", machine::describe(), machine::load());
    let folder = tempfile::tempdir()?;
    let bench = Bench {
        runtime: Runtime::new()?,
        client: LocalSandboxClient::new(LocalOptions::new(folder.path().join("state"))),
        folder: folder.path(),
    };
    write(&folder.path().join("source"))?;
    let mut table = Table::new([format!("milliseconds, {FILES} files")], ["median", "min", "n"]);
    for (operation, samples) in bench.measure()? {
        table.row([operation], [figure(samples.median()), figure(samples.min()), samples.len().to_string()]);
    }
    println!("\n{table}\nload at end: {}", machine::load());
    Ok(())
}

struct Bench<'a> {
    runtime: Runtime,
    client: LocalSandboxClient,
    folder: &'a Path,
}

impl Bench<'_> {
    fn measure(&self) -> Result<Vec<(&'static str, Samples)>, Error> {
        let mut all: Vec<(&'static str, Samples)> = [
            "write them, no sandbox",
            "copy them, cp -a",
            "stage them into a running sandbox",
            "first snapshot",
            "snapshot, nothing changed",
            "snapshot, one file changed",
            "restore",
            "fork, shared",
            "fork, shared, to the end of its first command",
            "fork, copied through the store",
        ]
        .map(|operation| (operation, Samples::default()))
        .into();
        for round in 0..ROUNDS {
            for ((_, samples), ms) in all.iter_mut().zip(self.round(round)?) {
                samples.push(ms);
            }
        }
        Ok(all)
    }

    fn round(&self, round: usize) -> Result<[f64; 10], Error> {
        let plain = self.folder.join(format!("plain-{round}"));
        let written = timed(|| write(&plain))?;
        let copied = timed(|| cp(&plain, &self.folder.join(format!("copy-{round}"))))?;
        let store = SnapshotStore::open(&self.folder.join(format!("snapshots-{round}")))?;
        self.runtime.block_on(async {
            let text = r#"{"version": 1, "entries": {"files": {"type": "local_dir", "src": "source"}}}"#;
            let manifest = Manifest::load(text, Format::Json)?;
            let plan = Plan::new(&manifest, self.folder, &self.client.support(), self.client.backend_id())?;
            let session = self.session(&format!("round-{round}")).await?;
            let began = Instant::now();
            materialise(&plan, session.as_ref()).await?;
            let staged = ms(began);
            // Files that were written just now are not remembered as read.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;

            let first = snapshot(&store, session.as_ref(), "first").await?;
            let same = snapshot(&store, session.as_ref(), "same").await?;
            let text = bytes(&format!("changed in round {round}"));
            session.write("files/d7/f7", text.into(), WriteOptions::default()).await?;
            let changed = snapshot(&store, session.as_ref(), "changed").await?;

            let other = self.session(&format!("other-{round}")).await?;
            let began = Instant::now();
            store.restore("changed", other.as_ref()).await?;
            let restored = ms(began);

            let request =
                |id: String| CreateRequest { session_id: id, manifest: Manifest::default(), workspace: None };
            let began = Instant::now();
            let (copied_fork, copied_it) =
                store.fork(&self.client, session.as_ref(), request(format!("copied-{round}"))).await?;
            let through_store = ms(began);
            session.stop().await?;
            let began = Instant::now();
            let (fork, shared_not) =
                store.fork(&self.client, session.as_ref(), request(format!("fork-{round}"))).await?;
            let forked = ms(began);
            fork.start().await?;
            let result = fork.exec(ExecRequest::argv(["/bin/true"])).await?;
            let used = ms(began);
            if result.outcome != (Outcome::Exited { code: 0 }) || shared_not || !copied_it {
                return Err("the forks are not what was to be measured".into());
            }
            for session in [other, copied_fork, fork] {
                session.stop().await?;
            }
            Ok([written, copied, staged, first, same, changed, restored, forked, used, through_store])
        })
    }

    async fn session(&self, id: &str) -> Result<Arc<dyn SandboxSession>, Error> {
        let manifest = Manifest::default();
        let request = CreateRequest { session_id: id.into(), manifest, workspace: None };
        let session = self.client.create(request).await?;
        session.start().await?;
        Ok(session)
    }
}

async fn snapshot(store: &SnapshotStore, session: &dyn SandboxSession, id: &str) -> Result<f64, Error> {
    let new = NewSnapshot { id: id.into(), ..NewSnapshot::default() };
    let began = Instant::now();
    store.take(session, new).await?;
    Ok(ms(began))
}

/// About 100 bytes.
fn bytes(word: &str) -> Vec<u8> {
    format!("{word:-<99}\n").into_bytes()
}

fn write(root: &Path) -> Result<(), Error> {
    for folder in 0..FOLDERS {
        fs_err::create_dir_all(root.join(format!("d{folder}")))?;
    }
    for file in 0..FILES {
        fs_err::write(root.join(format!("d{}/f{file}", file % FOLDERS)), bytes(&format!("file {file} ")))?;
    }
    Ok(())
}

fn cp(from: &Path, to: &Path) -> Result<(), Error> {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if done.success() { Ok(()) } else { Err("cp failed".into()) }
}

fn timed(work: impl FnOnce() -> Result<(), Error>) -> Result<f64, Error> {
    let began = Instant::now();
    work()?;
    Ok(ms(began))
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
