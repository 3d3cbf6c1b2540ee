//! What the harness costs: time a turn, as a run gets long; turns a CPU second; memory of runs that wait.
//!
//! The model is scripted and the tool trivial, so that all that is measured is the harness and its journal. A turn is
//! the time from one call of the model to the next. The figure at turn N is taken over the turns within 5 % of N.
//!
//! For a profiler or `strace`, the program does one run alone: `one-run CASE TURNS`, with a case of [`Case::name`].

#![expect(clippy::print_stdout, reason = "a bench reports on the terminal")]

#[path = "turns/ours.rs"]
mod ours;
#[path = "turns/run.rs"]
mod run;

use std::process::Command;

use mooring_benches::{Error, Samples, Table, figure, machine, peer};
use serde::{Deserialize, Serialize};

use self::ours::Case;

const MARKS: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// One measurement, ours or a peer's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "case", rename_all = "snake_case")]
enum Line {
    /// Who measured.
    Peer { name: String },
    /// Cost of each turn of one run.
    Turns { journal: String, wall_ns: Vec<f64>, cpu_ns: Vec<f64> },
    /// Many short runs side by side.
    Concurrent { journal: String, turns: f64, wall_s: f64, cpu_s: f64 },
    /// Memory of runs whose model does not answer, and what they cost while they wait.
    Waiting { journal: String, runs: f64, before_kib: f64, after_kib: f64, cpu_ms_per_s: f64 },
}

fn main() -> Result<(), Error> {
    // `cargo bench` adds a word of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        // A process of its own: memory is measured from a clean start.
        ["waiting", case] => {
            println!("{}", serde_json::to_string(&ours::waiting(Case::named(case)?)?)?);
            return Ok(());
        }
        ["one-run", case, turns] => return ours::one_run(Case::named(case)?, turns.parse()?),
        _ => {}
    }

    println!("machine: {}; load at start: {}", machine::describe(), machine::load());
    let (lines, syncs) = measure_ours()?;
    let mut measured = vec![("mooring".to_owned(), lines)];
    match measure_peer()? {
        Some(lines) => {
            let name = lines.iter().find_map(|line| match line {
                Line::Peer { name } => Some(name.clone()),
                _ => None,
            });
            measured.push((name.unwrap_or_default(), lines));
        }
        None => println!("{}", peer::NOT_INSTALLED),
    }
    println!("\n{}\n{}\n{}", per_turn(&measured), concurrent(&measured), waiting(&measured));
    println!(
        "a bare append of 4 KiB with fdatasync, between the synced runs: median {} µs, min {} µs, n {}",
        figure(syncs.median()),
        figure(syncs.min()),
        syncs.len()
    );
    println!("load at end: {}", machine::load());
    Ok(())
}

/// Our lines, and what the disk takes for a sync.
fn measure_ours() -> Result<(Vec<Line>, Samples), Error> {
    let (mut lines, mut syncs) = (Vec::new(), Samples::default());
    for case in Case::ALL {
        ours::turns(case, &mut lines, &mut syncs)?;
    }
    for case in Case::ALL {
        lines.extend(ours::concurrent(case)?);
    }
    for case in [Case::Memory, Case::Sqlite] {
        let mut child = Command::new(std::env::current_exe()?);
        lines.extend(peer::lines(child.args(["waiting", case.name()]))?);
    }
    Ok((lines, syncs))
}

fn measure_peer() -> Result<Option<Vec<Line>>, Error> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_string_lossy();
    let Some(mut lines) = peer::run("turns.py", &["runs", &path])? else { return Ok(None) };
    lines.extend(peer::run("turns.py", &["waiting"])?.unwrap_or_default());
    Ok(Some(lines))
}

fn per_turn(measured: &[(String, Vec<Line>)]) -> Table {
    let marks = ["turn 1", "turn 10", "turn 100", "turn 1,000", "turn 10,000"];
    let mut table = Table::new(["microseconds a turn", "journal", ""], marks);
    for (name, lines) in measured {
        for journal in journals(lines, |line| matches!(line, Line::Turns { .. })) {
            let wall = MARKS.map(|mark| around(lines, &journal, mark, |wall, _| wall));
            let cpu = MARKS.map(|mark| around(lines, &journal, mark, |_, cpu| cpu));
            let mut row = |what, cells: [String; 5]| table.row([name, journal.as_str(), what], cells);
            row("wall, median", wall.each_ref().map(|samples| figure(samples.median())));
            row("wall, min", wall.each_ref().map(|samples| figure(samples.min())));
            row("CPU, median", cpu.each_ref().map(|samples| figure(samples.median())));
            row("n", wall.each_ref().map(|samples| samples.len().to_string()));
        }
    }
    table
}

/// The samples of the turns within 5 % of `mark`, in microseconds, of all runs with that journal.
fn around<'a>(
    lines: &'a [Line],
    journal: &str,
    mark: usize,
    which: fn(&'a [f64], &'a [f64]) -> &'a [f64],
) -> Samples {
    let mut samples = Samples::default();
    for line in lines {
        if let Line::Turns { journal: kept, wall_ns, cpu_ns } = line
            && kept == journal
        {
            let turns = which(wall_ns, cpu_ns);
            let near = mark / 20;
            if mark + near <= turns.len() {
                samples.extend(turns[mark - near - 1..mark + near].iter().map(|ns| ns / 1_000.0));
            }
        }
    }
    samples
}

fn concurrent(measured: &[(String, Vec<Line>)]) -> Table {
    let figures = ["turns per CPU second, median", "best", "wall s, median", "n"];
    let mut table = Table::new(["100 runs side by side, 20 turns each", "journal"], figures);
    for (name, lines) in measured {
        for kept in journals(lines, |line| matches!(line, Line::Concurrent { .. })) {
            let (mut cost, mut walls) = (Samples::default(), Samples::default());
            for line in lines {
                if let Line::Concurrent { journal, turns, wall_s, cpu_s } = line
                    && *journal == kept
                {
                    cost.push(cpu_s / turns);
                    walls.push(*wall_s);
                }
            }
            let figures = [
                figure(1.0 / cost.median()),
                figure(1.0 / cost.min()),
                figure(walls.median()),
                cost.len().to_string(),
            ];
            table.row([name.as_str(), &kept], figures);
        }
    }
    table
}

fn waiting(measured: &[(String, Vec<Line>)]) -> Table {
    let figures = ["before, MiB", "after, MiB", "KiB a run", "CPU while waiting, ms a second"];
    let mut table = Table::new(["1,000 runs that wait on a model", "journal"], figures);
    for (name, lines) in measured {
        for line in lines {
            if let Line::Waiting { journal, runs, before_kib, after_kib, cpu_ms_per_s } = line {
                let figures = [
                    figure(before_kib / 1024.0),
                    figure(after_kib / 1024.0),
                    figure((after_kib - before_kib) / runs),
                    figure(*cpu_ms_per_s),
                ];
                table.row([name, journal], figures);
            }
        }
    }
    table
}

/// The journals of the lines of one kind, each once, in order.
fn journals(lines: &[Line], kind: fn(&Line) -> bool) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in lines.iter().filter(|line| kind(line)) {
        if let Line::Turns { journal, .. } | Line::Concurrent { journal, .. } | Line::Waiting { journal, .. } =
            line
            && !found.contains(journal)
        {
            found.push(journal.clone());
        }
    }
    found
}
