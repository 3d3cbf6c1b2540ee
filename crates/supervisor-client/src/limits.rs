//! Limits from two sides.

use mooring_manifest::extension::{Cpu, Resources, Size};
use mooring_supervisor::Limits;

/// Of the operator's limit and the manifest's, the tighter.
pub fn tighter(own: Limits, asked: &Resources) -> Limits {
    let least = |own: Option<u64>, asked: Option<u64>| own.into_iter().chain(asked).min();
    Limits {
        memory_bytes: least(own.memory_bytes, asked.memory.map(Size::bytes)),
        pids: least(own.pids, asked.pids),
        disk_bytes: least(own.disk_bytes, asked.disk.map(Size::bytes)),
        wall_clock_ms: least(
            own.wall_clock_ms,
            asked.wall_clock.map(|time| time.seconds().saturating_mul(1000)),
        ),
        cpus: own.cpus.into_iter().chain(asked.cpu.map(Cpu::cpus)).reduce(f64::min),
    }
}
