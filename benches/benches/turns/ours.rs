//! Our half of the bench `turns`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_benches::{Error, Samples, machine};
use mooring_capability::Effect;
use mooring_journal::{Journal, MemoryJournal, SqliteJournal};
use tokio::runtime::Runtime;

use crate::Line;
use crate::run::{Marks, Silence, drive, script};

/// A journal and a tool that decide what a turn costs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Case {
    /// The journal in memory.
    Memory,
    /// SQLite; the tool is pure, so that nothing waits for the disk.
    Sqlite,
    /// SQLite; the tool must not be repeated, so that its intent is synced before it is called.
    Synced,
}

impl Case {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Sqlite, Self::Synced];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "SQLite",
            Self::Synced => "SQLite, synced",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        let case = Self::ALL.into_iter().find(|case| case.name() == name);
        case.ok_or_else(|| format!("no case is named '{name}'").into())
    }

    fn effect(self) -> Effect {
        match self {
            Self::Memory | Self::Sqlite => Effect::Pure,
            Self::Synced => Effect::AtMostOnce,
        }
    }

    fn journal(self, folder: &Path) -> Result<Arc<dyn Journal>, Error> {
        Ok(match self {
            Self::Memory => Arc::new(MemoryJournal::new()),
            Self::Sqlite | Self::Synced => Arc::new(SqliteJournal::open(&folder.join("journal.db"))?),
        })
    }
}

/// Cost of each turn, in short runs and in long ones. Between synced ones, what a bare sync takes.
pub(crate) fn turns(case: Case, lines: &mut Vec<Line>, syncs: &mut Samples) -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let journal = case.journal(folder.path())?;
    let runtime = Runtime::new()?;
    let longs = if matches!(case, Case::Synced) { 1 } else { 3 };
    // The first one warms up and does not count.
    for (index, turns) in [110; 11].into_iter().chain(std::iter::repeat_n(10_510, longs)).enumerate() {
        let marks = Arc::new(Marks::default());
        let run = drive(journal.clone(), script(turns), case.effect(), marks.clone(), format!("run-{index}"));
        runtime.block_on(run)?;
        if index > 0 {
            let (wall_ns, cpu_ns) = marks.gaps();
            lines.push(Line::Turns { journal: case.name().into(), wall_ns, cpu_ns });
        }
        if matches!(case, Case::Synced) {
            bare_syncs(folder.path(), syncs)?;
        }
    }
    Ok(())
}

/// 100 runs of 20 turns side by side, five times.
pub(crate) fn concurrent(case: Case) -> Result<Vec<Line>, Error> {
    let folder = tempfile::tempdir()?;
    let journal = case.journal(folder.path())?;
    let runtime = Runtime::new()?;
    // 19 turns with a tool, and the last words.
    let model = script(19);
    let mut lines = Vec::new();
    for round in 0..6 {
        let (wall, cpu) = (Instant::now(), machine::cpu_time());
        let runs: Vec<_> = (0..100)
            .map(|index| {
                let id = format!("run-{round}-{index}");
                let marks = Arc::new(Marks::default());
                runtime.spawn(drive(journal.clone(), model.clone(), case.effect(), marks, id))
            })
            .collect();
        for run in runs {
            runtime.block_on(run)??;
        }
        // The first round warms up and does not count.
        if round > 0 {
            lines.push(Line::Concurrent {
                journal: case.name().into(),
                turns: 2_000.0,
                wall_s: wall.elapsed().as_secs_f64(),
                cpu_s: machine::cpu_time().saturating_sub(cpu).as_secs_f64(),
            });
        }
    }
    Ok(lines)
}

/// One run and nothing else.
pub(crate) fn one_run(case: Case, turns: usize) -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let journal = case.journal(folder.path())?;
    let run = drive(journal, script(turns), case.effect(), Arc::new(Marks::default()), "run".into());
    Runtime::new()?.block_on(run)
}

/// 1,000 runs whose model never answers: their memory, and their CPU time over five seconds of waiting.
pub(crate) fn waiting(case: Case) -> Result<Line, Error> {
    let folder = tempfile::tempdir()?;
    let journal = case.journal(folder.path())?;
    let runtime = Runtime::new()?;
    let marks = Arc::new(Marks::default());
    runtime.block_on(drive(journal.clone(), script(20), case.effect(), marks, "warm-up".into()))?;
    let before_kib = machine::resident_kib()?;
    let silence = Arc::new(Silence::default());
    for index in 0..1_000 {
        let marks = Arc::new(Marks::default());
        runtime.spawn(drive(journal.clone(), silence.clone(), case.effect(), marks, format!("run-{index}")));
    }
    let deadline = Instant::now() + Duration::from_mins(1);
    while silence.asked() < 1_000 {
        if Instant::now() > deadline {
            return Err(format!("after 60 s only {} of 1,000 runs wait", silence.asked()).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_secs(1));
    let (after_kib, cpu) = (machine::resident_kib()?, machine::cpu_time());
    std::thread::sleep(Duration::from_secs(5));
    let spent = machine::cpu_time().saturating_sub(cpu).as_secs_f64();
    // The runs never end by themselves.
    runtime.shutdown_background();
    Ok(Line::Waiting {
        journal: case.name().into(),
        runs: 1_000.0,
        before_kib,
        after_kib,
        cpu_ms_per_s: spent * 1_000.0 / 5.0,
    })
}

/// What the disk takes for one append of a page that is synced, in microseconds.
fn bare_syncs(folder: &Path, syncs: &mut Samples) -> Result<(), Error> {
    let mut file = fs_err::File::create(folder.join("log"))?;
    for _ in 0..50 {
        let began = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        syncs.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(())
}
