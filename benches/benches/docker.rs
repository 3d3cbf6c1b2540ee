//! What a sandbox in a container costs beside a local one, and beside the engine's own `exec`: until the first command
//! has run, a command, a terminal, a workspace of 1,000 files.
//!
//! Each round does the same thing once with each, so that a busy moment of the machine meets all of them. The engine
//! is the tests' own, and so is the image: busybox.

#![expect(clippy::print_stdout, reason = "a bench reports on the terminal")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::RemoveContainerOptions;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::StreamExt as _;
use mooring_benches::{Error, Samples, Table, figure, machine};
use mooring_manifest::{Entry, Manifest};
use mooring_sandbox::{
    CreateRequest, Cursor, ExecRequest, Outcome, Plan, SandboxClient, SandboxSession, TtySize, materialise,
};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use mooring_testkit::{IMAGE, docker};

const FIRST: &str = "create, start, run true";
const DELETE: &str = "delete";
const EXEC: &str = "run true";
const TERMINAL: &str = "terminal: shell to its first word";
const FILES: &str = "write 1,000 files";

fn main() -> Result<(), Error> {
    println!("machine: {}; load at start: {}", machine::describe(), machine::load());
    let socket = docker().ok_or("there is no engine to measure")?;
    let folder = tempfile::tempdir()?;
    let options = DockerOptions::new(&socket, folder.path().join("docker"));
    let ours = DockerSandboxClient::new(DockerOptions { image: Some(IMAGE.into()), ..options });
    let local = LocalSandboxClient::new(LocalOptions::new(folder.path().join("local")));
    let clients: [(&str, &dyn SandboxClient); 2] = [("mooring, local", &local), ("mooring, docker", &ours)];

    let runtime = tokio::runtime::Runtime::new()?;
    let mut table = Table::new(["milliseconds", "by"], ["median", "min", "n"]);
    let mut report = |operation: &'static str, who: &'static str, samples: &Samples| {
        let figures = [figure(samples.median()), figure(samples.min()), samples.len().to_string()];
        table.row([operation, who], figures);
    };
    runtime.block_on(async {
        println!("engine: {}", ours.version().await?);
        let engine = Engine::connect(&socket).await?;
        let mut all: Vec<(&'static str, &'static str, Samples)> = Vec::new();
        for (operation, rounds) in [(FIRST, 20), (EXEC, 100), (TERMINAL, 50), (FILES, 10)] {
            let mut samples = [(); 5].map(|()| Samples::default());
            let mut sessions = Vec::new();
            for (_, client) in clients {
                sessions.push(start(client, operation.len()).await?);
            }
            let container = engine.start().await?;
            let mut used = Vec::new();
            for round in 0..rounds {
                for (index, (_, client)) in clients.into_iter().enumerate() {
                    if operation == FILES {
                        // Files that replace others cost more than new ones.
                        let fresh = start(client, 100 + round).await?;
                        used.push((client, std::mem::replace(&mut sessions[index], fresh)));
                    }
                    let session = sessions[index].as_ref();
                    let began = Instant::now();
                    match operation {
                        FIRST => {
                            let session = start(client, 0).await?;
                            run(session.as_ref(), ExecRequest::argv(["true"])).await?;
                            samples[index].push(ms(began));
                            let began = Instant::now();
                            client.delete(&session.state()).await?;
                            samples[index + 3].push(ms(began));
                            continue;
                        }
                        EXEC => run(session, ExecRequest::argv(["true"])).await?,
                        TERMINAL => terminal(session).await?,
                        _ => files(client, session, folder.path()).await?,
                    }
                    samples[index].push(ms(began));
                }
                let began = Instant::now();
                match operation {
                    FIRST => {
                        let container = engine.start().await?;
                        engine.exec(&container, &["true"], false).await?;
                        samples[2].push(ms(began));
                        engine.remove(&container).await?;
                    }
                    EXEC => {
                        engine.exec(&container, &["true"], false).await?;
                        samples[2].push(ms(began));
                    }
                    TERMINAL => {
                        engine.exec(&container, &["sh", "-c", "echo ready"], true).await?;
                        samples[2].push(ms(began));
                    }
                    _ => {}
                }
            }
            used.extend(clients.into_iter().map(|(_, client)| client).zip(sessions));
            for (client, session) in used {
                client.delete(&session.state()).await?;
            }
            engine.remove(&container).await?;
            let [one, two, plain, first_delete, second_delete] = samples;
            all.extend([(operation, clients[0].0, one), (operation, clients[1].0, two)]);
            all.push((operation, "the engine's own", plain));
            all.extend([(DELETE, clients[0].0, first_delete), (DELETE, clients[1].0, second_delete)]);
        }
        for (operation, who, samples) in all.iter().filter(|(.., samples)| !samples.is_empty()) {
            report(operation, who, samples);
        }
        Ok::<_, Error>(())
    })?;
    println!("\n{table}\nload at end: {}", machine::load());
    Ok(())
}

async fn start(client: &dyn SandboxClient, number: usize) -> Result<Arc<dyn SandboxSession>, Error> {
    let session_id = format!("bench-{}-{number}", std::process::id());
    let request = CreateRequest { session_id, manifest: Manifest::default(), workspace: None };
    let session = client.create(request).await?;
    session.start().await?;
    Ok(session)
}

async fn run(session: &dyn SandboxSession, request: ExecRequest) -> Result<(), Error> {
    let result = session.exec(request).await?;
    match result.outcome {
        Outcome::Exited { code: 0 } => Ok(()),
        outcome => Err(format!("the command ended with {outcome:?}: {}", result.stderr.text()).into()),
    }
}

/// A shell in a terminal that says a word and stays, to that word.
async fn terminal(session: &dyn SandboxSession) -> Result<(), Error> {
    let request = ExecRequest::shell("echo ready; exec sleep 60");
    let process = session.spawn(ExecRequest { tty: Some(TtySize::default()), ..request }).await?;
    let chunk = process.output(Cursor::default(), 1 << 16, Duration::from_secs(30)).await?;
    process.release().await?;
    match chunk.pieces.first() {
        Some(piece) if piece.data.starts_with(b"ready") => Ok(()),
        other => Err(format!("the terminal said {other:?}").into()),
    }
}

async fn files(client: &dyn SandboxClient, session: &dyn SandboxSession, base: &Path) -> Result<(), Error> {
    let file = |index: usize| {
        (format!("file-{index:04}.txt"), Entry::file(format!("This is file {index}.\n").repeat(5)))
    };
    let manifest = Manifest { entries: (0..1_000).map(file).collect(), ..Manifest::default() };
    let plan = Plan::new(&manifest, base, &client.support(), client.backend_id())?;
    match materialise(&plan, session).await?.files {
        1_000 => Ok(()),
        count => Err(format!("{count} files were staged").into()),
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The same container without us: commands go through the engine.
struct Engine(Docker);

impl Engine {
    async fn connect(socket: &Path) -> Result<Self, Error> {
        let path = socket.to_str().ok_or("the socket's path is not text")?;
        Ok(Self(Docker::connect_with_unix(path, 60, API_DEFAULT_VERSION)?.negotiate_version().await?))
    }

    async fn start(&self) -> Result<String, Error> {
        let body = ContainerCreateBody {
            image: Some(IMAGE.into()),
            cmd: Some(["sleep", "1000"].map(str::to_owned).to_vec()),
            env: Some(vec!["LD_PRELOAD=".into()]),
            host_config: Some(HostConfig { network_mode: Some("none".into()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let container = self.0.create_container(None, body).await?.id;
        self.0.start_container(&container, None).await?;
        Ok(container)
    }

    /// Runs a command to its end.
    async fn exec(&self, container: &str, argv: &[&str], tty: bool) -> Result<(), Error> {
        let options = CreateExecOptions {
            cmd: Some(argv.iter().map(|&word| word.to_owned()).collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(tty),
            ..CreateExecOptions::default()
        };
        let exec = self.0.create_exec(container, options).await?.id;
        if let StartExecResults::Attached { mut output, .. } = self.0.start_exec(&exec, None).await? {
            while let Some(part) = output.next().await {
                if let (LogOutput::Console { .. }, true) = (part?, tty) {
                    return Ok(());
                }
            }
        }
        match self.0.inspect_exec(&exec).await?.exit_code {
            Some(0) => Ok(()),
            code => Err(format!("the engine's command ended with {code:?}").into()),
        }
    }

    async fn remove(&self, container: &str) -> Result<(), Error> {
        let force = RemoveContainerOptions { force: true, v: true, link: false };
        Ok(self.0.remove_container(container, Some(force)).await?)
    }
}
