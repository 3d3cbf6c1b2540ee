//! Measures what a sandbox costs: `cargo run --release -p mooring-sandbox-local --example latency [ROUNDS]`.
//!
//! Each figure beside plain fork and exec of the same program in the same run, since both depend on what else the
//! machine does.
#![expect(clippy::print_stdout, reason = "it prints its figures")]

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, Outcome, SandboxClient as _, WriteOptions};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};

const PROGRAM: &str = "/bin/true";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(100), |text| text.parse())?;
    let state = tempfile::tempdir()?;
    let client = LocalSandboxClient::new(LocalOptions::new(state.path()));
    let request =
        |id: String| CreateRequest { session_id: id, manifest: Manifest::default(), workspace: None };

    let mut plain = Vec::new();
    let mut first = Vec::new();
    let mut started = Vec::new();
    for round in 0..rounds {
        let begin = Instant::now();
        tokio::process::Command::new(PROGRAM).status().await?;
        plain.push(begin.elapsed());

        let begin = Instant::now();
        let session = client.create(request(format!("s{round}"))).await?;
        session.start().await?;
        started.push(begin.elapsed());
        let result = session.exec(ExecRequest::argv([PROGRAM])).await?;
        first.push(begin.elapsed());
        assert_eq!(result.outcome, Outcome::Exited { code: 0 });
        client.delete(&session.state()).await?;
    }

    let session = client.create(request("one".into())).await?;
    session.start().await?;
    let mut exec = Vec::new();
    let mut write = Vec::new();
    for _ in 0..rounds {
        let begin = Instant::now();
        session.exec(ExecRequest::argv([PROGRAM])).await?;
        exec.push(begin.elapsed());
        let begin = Instant::now();
        session.write("file", Bytes::from_static(b"content"), WriteOptions::default()).await?;
        write.push(begin.elapsed());
    }
    client.delete(&session.state()).await?;

    println!("{:<28}{:>10}{:>10}{:>10}", "milliseconds", "least", "median", "90 %");
    for (name, times) in [
        ("fork and exec, plain", plain),
        ("create and start", started),
        ("create to first exec", first),
        ("exec in a running sandbox", exec),
        ("write a file", write),
    ] {
        let [least, median, most] = summary(times);
        println!("{name:<28}{least:>10.2}{median:>10.2}{most:>10.2}");
    }
    Ok(())
}

fn summary(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort();
    [0, times.len() / 2, times.len() * 9 / 10].map(|at| times[at].as_secs_f64() * 1000.0)
}
