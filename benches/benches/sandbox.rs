//! What a local sandbox costs: until the first command has run, a command, a terminal, a workspace of 1,000 files.
//!
//! Beside it, in the same run: the same program started without a sandbox, which is the floor; the namespaces alone that
//! ours has, by `unshare`, which is the floor of any isolation; bubblewrap where it is
//! installed, which isolates about as far as we do; and the local sandbox of the OpenAI Agents SDK, which on Linux
//! isolates nothing.

#![expect(clippy::print_stdout, reason = "a bench reports on the terminal")]

#[path = "sandbox/ours.rs"]
mod ours;
#[path = "sandbox/plain.rs"]
mod plain;

use mooring_benches::{Error, Samples, Table, figure, machine, peer};
use serde::{Deserialize, Serialize};

/// What is measured, in the order of the report. The peers' scripts use the same words.
const OPERATIONS: [&str; 8] = [
    "create, start, run true",
    "delete",
    "run true by argv",
    "run true by bash -c",
    "terminal: true to its end",
    "terminal: shell to its first word",
    "write 1,000 files",
    "create, start, write 1,000 files",
];

/// One measurement, ours or a peer's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "case", rename_all = "snake_case")]
enum Line {
    /// Who measured.
    Peer { name: String },
    /// One operation, several times, in milliseconds.
    Times { operation: String, ms: Vec<f64> },
}

/// All of one measurer's times.
type Times = Vec<(&'static str, Samples)>;

fn main() -> Result<(), Error> {
    println!("machine: {}; load at start: {}", machine::describe(), machine::load());
    let bwrap = plain::bwrap();
    if bwrap.is_none() {
        println!("bwrap not installed: it is the package bubblewrap");
    }
    let (isolation, [ours, plain, bare, wrapped]) = ours::measure(bwrap.as_deref())?;
    println!("mooring's isolation: {isolation}");
    let mut measured: Vec<(String, Times)> = vec![
        ("mooring".into(), ours),
        ("no sandbox".into(), plain),
        ("namespaces alone".into(), bare),
        ("bwrap".into(), wrapped),
    ];
    match peer::run("sandbox.py", &[])? {
        Some(lines) => measured.push(read(lines)?),
        None => println!("{}", peer::NOT_INSTALLED),
    }

    let mut table = Table::new(["milliseconds", "by"], ["median", "min", "n"]);
    for operation in OPERATIONS {
        for (who, times) in &measured {
            if let Some((_, samples)) = times.iter().find(|(name, _)| *name == operation)
                && !samples.is_empty()
            {
                table.row(
                    [operation, who],
                    [figure(samples.median()), figure(samples.min()), samples.len().to_string()],
                );
            }
        }
    }
    println!("\n{table}");
    let [whole, shared, own] = ours::crowd(100)?;
    println!(
        "100 sandboxes at once, first command included: {} ms; each idle: {} KiB of memory, {} KiB of it its own",
        figure(whole),
        figure(shared),
        figure(own)
    );
    println!("load at end: {}", machine::load());
    Ok(())
}

/// A peer's name and times.
fn read(lines: Vec<Line>) -> Result<(String, Times), Error> {
    let (mut peer, mut times) = (String::new(), Times::new());
    for line in lines {
        match line {
            Line::Peer { name } => peer = name,
            Line::Times { operation, ms } => {
                let known = OPERATIONS.into_iter().find(|known| *known == operation);
                let known = known.ok_or_else(|| format!("nobody asked for '{operation}'"))?;
                times.push((known, ms.into_iter().collect()));
            }
        }
    }
    Ok((peer, times))
}
