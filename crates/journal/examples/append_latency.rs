//! What an append costs: microseconds for each of 3 events, as a driver makes them.
//!
//! `cargo run --release -p mooring-journal --example append_latency [DIRECTORY]`; the directory (default: the current
//! one) decides which disk is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_journal::event::{ModelCompleted, ModelRequested, ToolRequested};
use mooring_journal::{Append, Durability, Event, Journal, JournalError, RunId, SqliteJournal, Stamped};
use serde_json::json;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example that prints figures")]
async fn main() -> Result<(), Failure> {
    let parent = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let journal = Arc::new(SqliteJournal::open(&dir.path().join("journal.db"))?);
    println!(
        "{:>8} {:>6} {:>9} {:>12} {:>12} {:>12}",
        "", "tasks", "appends", "µs/append", "cpu µs", "median µs"
    );
    for (name, durability, tasks, each) in [
        ("process", Durability::Process, 1, 20_000),
        ("process", Durability::Process, 100, 500),
        ("power", Durability::Power, 1, 500),
        ("power", Durability::Power, 100, 50),
    ] {
        let (wall, cpu) = (Instant::now(), cpu_time()?);
        let mut set = tokio::task::JoinSet::new();
        for task in 0..tasks {
            let run = RunId(format!("{name}-{tasks}-{task}"));
            set.spawn(drive(journal.clone(), run, durability, each));
        }
        let mut times: Vec<Duration> = Vec::new();
        while let Some(done) = set.join_next().await {
            times.extend(done??);
        }
        times.sort();
        let appends = f64::from(tasks * each);
        println!(
            "{name:>8} {tasks:>6} {appends:>9} {:>12.1} {:>12.1} {:>12.1}",
            wall.elapsed().as_secs_f64() * 1e6 / appends,
            cpu_time()?.saturating_sub(cpu).as_secs_f64() * 1e6 / appends,
            times[times.len() / 2].as_secs_f64() * 1e6,
        );
    }
    Ok(())
}

async fn drive(
    journal: Arc<SqliteJournal>,
    run: RunId,
    durability: Durability,
    appends: u32,
) -> Result<Vec<Duration>, JournalError> {
    let claim = journal.create(&run, 0, "append_latency").await?;
    let mut after = claim.last_seq;
    let mut times = Vec::new();
    for turn in 0..u64::from(appends) {
        let append = Append {
            run: run.clone(),
            epoch: claim.epoch,
            after,
            events: events(turn).into(),
            summary: Some(json!({"status": "running", "turns": turn}).to_string()),
            durability,
        };
        let start = Instant::now();
        after = journal.append(append).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// A turn's worth.
fn events(turn: u64) -> Vec<Stamped> {
    let call = json!({"type": "function_call", "call_id": "call_1", "name": "shell", "arguments": "{\"cmd\":\"ls\"}"});
    [
        Event::ModelRequested(ModelRequested {
            turn,
            model: "a-model".to_owned(),
            items: turn,
            ..Default::default()
        }),
        Event::ModelCompleted(Box::new(ModelCompleted { turn, items: vec![call], ..Default::default() })),
        Event::ToolRequested(ToolRequested { turn, call_id: "call_1".to_owned(), ..Default::default() }),
    ]
    .map(|event| Stamped { at_ms: 1_700_000_000_000, event })
    .into()
}

/// What this process used of the processors.
fn cpu_time() -> Result<Duration, Failure> {
    // utime and stime, in hundredths of a second: fields 14 and 15, counted after the parenthesised name.
    let stat = fs_err::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
