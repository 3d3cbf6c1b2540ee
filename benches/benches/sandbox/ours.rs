//! Our half of the bench `sandbox`, and what runs in turn with it: each round does the same thing once with each, so
//! that a busy moment of the machine meets all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_benches::{Error, Samples};
use mooring_manifest::{Entry, Manifest};
use mooring_sandbox::{
    CreateRequest, Cursor, ExecRequest, Outcome, Plan, SandboxClient, SandboxSession, Stream, TtySize,
    materialise,
};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use tokio::runtime::Runtime;

use crate::{Times, plain};

/// The isolation of our sessions, and the times of ours, of no sandbox, of namespaces alone, and of bubblewrap.
pub(crate) fn measure(bwrap: Option<&Path>) -> Result<(String, [Times; 4]), Error> {
    let folder = tempfile::tempdir()?;
    let client = LocalSandboxClient::new(LocalOptions::new(folder.path().join("sandboxes")));
    let bench = Bench { client, runtime: Runtime::new()?, folder: folder.path(), bwrap };
    let isolation = bench.isolation()?;
    let [mut ours, mut plain, mut bare, mut wrapped] = [(); 4].map(|()| Times::new());

    let [first, delete, without, alone, other] = bench.starts(100)?;
    ours.push(("create, start, run true", first));
    ours.push(("delete", delete));
    plain.push(("create, start, run true", without));
    bare.push(("create, start, run true", alone));
    wrapped.push(("create, start, run true", other));

    for (operation, argv) in
        [("run true by argv", &["/bin/true"] as &[&str]), ("run true by bash -c", &["bash", "-c", "true"])]
    {
        let [inside, without] = bench.runs(argv, 200)?;
        ours.push((operation, inside));
        plain.push((operation, without));
    }
    let [whole, word] = bench.terminals(100)?;
    ours.push(("terminal: true to its end", whole));
    ours.push(("terminal: shell to its first word", word));

    let [staged, whole, without] = bench.files(20)?;
    ours.push(("write 1,000 files", staged));
    ours.push(("create, start, write 1,000 files", whole));
    plain.push(("write 1,000 files", without));
    Ok((isolation, [ours, plain, bare, wrapped]))
}

/// Many sandboxes at one time: from the first start to the last ready, and what each takes while it waits, in KiB:
/// its processes' memory with shared pages in proportion, and the part that is theirs alone.
pub(crate) fn crowd(count: usize) -> Result<[f64; 3], Error> {
    let folder = tempfile::tempdir()?;
    let client = LocalSandboxClient::new(LocalOptions::new(folder.path().join("sandboxes")));
    Runtime::new()?.block_on(async {
        let began = Instant::now();
        let client = &client;
        let starts = (0..count).map(|number| async move {
            let request = CreateRequest {
                session_id: format!("crowd-{number}"),
                manifest: Manifest::default(),
                workspace: None,
            };
            let session = client.create(request).await?;
            session.start().await?;
            run(session.as_ref(), ExecRequest::argv(["/bin/true"])).await?;
            Ok::<_, Error>(session)
        });
        let sessions = futures::future::try_join_all(starts).await?;
        let whole = ms(began);
        let (mut shared, mut own) = (0.0, 0.0);
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            // Processes come and go, and not all are ours to look into.
            let Ok(name) = std::fs::read(path.join("cmdline")) else { continue };
            let Ok(memory) = std::fs::read_to_string(path.join("smaps_rollup")) else { continue };
            if !name.starts_with(b"moor-supervisor") {
                continue;
            }
            let field = |wanted: &str| -> f64 {
                let lines = memory.lines().filter(|line| line.starts_with(wanted));
                lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum()
            };
            shared += field("Pss:");
            own += field("Private_");
        }
        for session in sessions {
            client.delete(&session.state()).await?;
        }
        Ok([whole, shared / count as f64, own / count as f64])
    })
}

struct Bench<'a> {
    client: LocalSandboxClient,
    runtime: Runtime,
    folder: &'a Path,
    bwrap: Option<&'a Path>,
}

impl Bench<'_> {
    fn isolation(&self) -> Result<String, Error> {
        self.runtime.block_on(async {
            let session = self.start("probe").await?;
            let isolation = session.isolation().ok_or("the session does not say how it is isolated")?;
            self.client.delete(&session.state()).await?;
            Ok(isolation.level)
        })
    }

    /// From nothing to the end of a first command; what deleting takes; the same without a sandbox; in namespaces
    /// alone; with bubblewrap.
    fn starts(&self, rounds: usize) -> Result<[Samples; 5], Error> {
        let [mut first, mut delete, mut bare, mut alone, mut other] = [(); 5].map(|()| Samples::default());
        for round in 0..rounds {
            let began = Instant::now();
            let session = self.runtime.block_on(async {
                let session = self.start(&format!("start-{round}")).await?;
                run(session.as_ref(), ExecRequest::argv(["/bin/true"])).await?;
                Ok::<_, Error>(session)
            })?;
            first.push(ms(began));
            let began = Instant::now();
            self.runtime.block_on(self.client.delete(&session.state()))?;
            delete.push(ms(began));
            bare.push(plain::run(&["/bin/true"])?);
            alone.push(plain::namespaces()?);
            if let Some(bwrap) = self.bwrap {
                other.push(plain::wrapped(bwrap, self.folder)?);
            }
        }
        Ok([first, delete, bare, alone, other])
    }

    /// One command in a running sandbox, and without one.
    fn runs(&self, argv: &[&str], rounds: usize) -> Result<[Samples; 2], Error> {
        let session = self.runtime.block_on(self.start("runs"))?;
        // A shell line as a caller gives it, and not the same shell by argv.
        let request = match argv {
            ["bash", "-c", line] => ExecRequest::shell(*line),
            argv => ExecRequest::argv(argv.iter().copied()),
        };
        let [mut inside, mut bare] = [(); 2].map(|()| Samples::default());
        for _ in 0..rounds {
            let began = Instant::now();
            self.runtime.block_on(run(session.as_ref(), request.clone()))?;
            inside.push(ms(began));
            bare.push(plain::run(argv)?);
        }
        self.runtime.block_on(self.client.delete(&session.state()))?;
        Ok([inside, bare])
    }

    /// A command in a terminal, to its end; a shell in a terminal that says a word and stays, to that word.
    fn terminals(&self, rounds: usize) -> Result<[Samples; 2], Error> {
        self.runtime.block_on(async {
            let session = self.start("terminals").await?;
            let [mut whole, mut word] = [(); 2].map(|()| Samples::default());
            for _ in 0..rounds {
                let began = Instant::now();
                let request = ExecRequest::argv(["/bin/true"]);
                run(session.as_ref(), ExecRequest { tty: Some(TtySize::default()), ..request }).await?;
                whole.push(ms(began));

                let began = Instant::now();
                let request = ExecRequest::shell("echo ready; exec sleep 60");
                let request = ExecRequest { tty: Some(TtySize::default()), ..request };
                let process = session.spawn(request).await?;
                let chunk = process.output(Cursor::default(), 1 << 16, Duration::from_secs(30)).await?;
                word.push(ms(began));
                let piece = chunk.pieces.first().ok_or("the terminal said nothing within 30 s")?;
                if piece.stream != Stream::Stdout || !piece.data.starts_with(b"ready") {
                    return Err(format!("the terminal said {piece:?}").into());
                }
                process.release().await?;
            }
            self.client.delete(&session.state()).await?;
            Ok([whole, word])
        })
    }

    /// 1,000 files into a running sandbox; the same with its start; the same without a sandbox.
    fn files(&self, rounds: usize) -> Result<[Samples; 3], Error> {
        let [mut staged, mut whole, mut bare] = [(); 3].map(|()| Samples::default());
        let manifest = Manifest {
            entries: (0..1_000).map(|index| (name(index), Entry::file(content(index)))).collect(),
            ..Manifest::default()
        };
        for round in 0..rounds {
            let (manifest, began) = (manifest.clone(), Instant::now());
            self.runtime.block_on(async {
                let client = &self.client;
                let plan = Plan::new(&manifest, self.folder, &client.support(), client.backend_id())?;
                let session = self.start(&format!("files-{round}")).await?;
                let started = Instant::now();
                let done = materialise(&plan, session.as_ref()).await?;
                staged.push(ms(started));
                whole.push(ms(began));
                if done.files != 1_000 {
                    return Err(format!("{} files were staged", done.files).into());
                }
                client.delete(&session.state()).await?;
                Ok::<_, Error>(())
            })?;
            bare.push(plain::write(&self.folder.join(format!("plain-{round}")), name, content)?);
        }
        Ok([staged, whole, bare])
    }

    async fn start(&self, id: &str) -> Result<Arc<dyn SandboxSession>, Error> {
        let request =
            CreateRequest { session_id: id.to_owned(), manifest: Manifest::default(), workspace: None };
        let session = self.client.create(request).await?;
        session.start().await?;
        Ok(session)
    }
}

async fn run(session: &dyn SandboxSession, request: ExecRequest) -> Result<(), Error> {
    let result = session.exec(request).await?;
    match result.outcome {
        Outcome::Exited { code: 0 } => Ok(()),
        outcome => Err(format!("the command ended with {outcome:?}: {}", result.stderr.text()).into()),
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn name(index: usize) -> String {
    format!("file-{index:04}.txt")
}

fn content(index: usize) -> String {
    format!("This is file {index}.\n").repeat(5)
}
