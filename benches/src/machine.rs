//! The machine that a figure was measured on, and its clocks.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::Error;

/// CPU time of this process until now, all threads together.
pub fn cpu_time() -> Duration {
    // The clock is always there.
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Resident memory of this process, in KiB.
pub fn resident_kib() -> Result<f64, Error> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let word =
        line.and_then(|line| line.split_whitespace().next()).ok_or("/proc/self/status has no VmRSS")?;
    Ok(word.parse()?)
}

/// Load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = fs_err::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// CPUs and kernel, in a line.
pub fn describe() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs_err::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cpus} CPUs, kernel {}", kernel.trim())
}
