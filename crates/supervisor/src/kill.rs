//! Finding and ending everything that a command started, however far it forked away.
//!
//! Every command runs below a reaper of its own (see `exec`), so whatever it starts stays a descendant of that
//! reaper: `setsid`, a double fork or a closed pipe changes nothing about it. A process can fork while the list
//! is read; so this is a loop, whose caller goes on until nothing is left.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// One look at the process table: each process with its parent and whether it is dead already.
#[derive(Debug)]
pub(crate) struct Processes(BTreeMap<i32, (i32, bool)>);

impl Processes {
    pub(crate) fn look() -> std::io::Result<Self> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has just ended is no error.
            let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { continue };
            all.extend(parse_stat(&stat).map(|parent| (pid, parent)));
        }
        Ok(Self(all))
    }

    /// Everything below `root` that still runs.
    pub(crate) fn below(&self, root: Pid) -> Vec<Pid> {
        let root = root.as_raw_nonzero().get();
        let is_below = |mut pid: i32| {
            // The table is no snapshot; a cycle in it must not hold us.
            for _ in 0..self.0.len() {
                match self.0.get(&pid) {
                    Some((parent, _)) if *parent == root => return true,
                    Some((parent, _)) => pid = *parent,
                    None => return false,
                }
            }
            false
        };
        let alive = self.0.iter().filter(|(pid, (_, dead))| !dead && is_below(**pid));
        alive.filter_map(|(pid, _)| Pid::from_raw(*pid)).collect()
    }

    /// This process's children that it did not start: orphans of a reaper that was killed.
    pub(crate) fn strays(&self, known: impl Fn(Pid) -> bool) -> Vec<Pid> {
        let own = getpid().as_raw_nonzero().get();
        let children = self.0.iter().filter(|(_, (parent, dead))| *parent == own && !dead);
        children.filter_map(|(pid, _)| Pid::from_raw(*pid)).filter(|pid| !known(*pid)).collect()
    }
}

/// Kills everything below `root`. `false` once nothing was left to kill.
pub(crate) fn kill_below(root: Pid) -> std::io::Result<bool> {
    let found = match walk(root) {
        Some(found) => found,
        None => Processes::look()?.below(root),
    };
    kill_all(&found);
    Ok(!found.is_empty())
}

/// The same as [`Processes::below`], at the cost of what is found and not of all that runs: with a thousand
/// terminals open, that is the difference. `None` on a kernel without the file that it needs.
fn walk(root: Pid) -> Option<Vec<Pid>> {
    let mut pending = children(root.as_raw_nonzero().get())?;
    let mut found = Vec::new();
    while let Some(pid) = pending.pop() {
        // One that has just ended has no children any more.
        pending.extend(children(pid).unwrap_or_default());
        let stat = fs::read(format!("/proc/{pid}/stat")).ok();
        if let Some((_, false)) = stat.as_deref().and_then(parse_stat) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Some(found)
}

/// A process's children, whichever of its threads started them.
fn children(pid: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let list = fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(children)
}

/// Kills what is below `root` for the time being: what is stopped first cannot fork while the rest is found.
pub(crate) fn kill_all(processes: &[Pid]) {
    for signal in [Signal::STOP, Signal::KILL] {
        for pid in processes {
            // It may be gone already.
            let _ = kill_process(*pid, signal);
        }
    }
}

/// Parent and deadness from `/proc/PID/stat`: `pid (name) state parent …`. The name may hold anything.
fn parse_stat(stat: &[u8]) -> Option<(i32, bool)> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = stat[after_name..].split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let state = fields.next()?;
    let parent = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    Some((parent, matches!(state, b"Z" | b"X" | b"x")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_brackets_does_not_mislead() {
        assert_eq!(parse_stat(b"7 (a) R 1 (b)) S 3 7 7 0"), Some((3, false)));
        assert_eq!(parse_stat(b"7 (a) Z 12 7"), Some((12, true)));
        assert_eq!(parse_stat(b"nonsense"), None);
    }

    #[test]
    fn both_ways_to_look_find_the_same() {
        let script = "sh -c 'sleep 1000 & sleep 1000 & echo; wait' & wait";
        let mut command = std::process::Command::new("sh");
        let mut shell = command.args(["-c", script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Read::read(&mut shell.stdout.take().unwrap(), &mut [0]).unwrap();
        let root = Pid::from_raw(shell.id() as i32).unwrap();
        // A kernel without the file has one way only.
        let walked = walk(root).map(|mut found| {
            found.sort_by_key(|pid| pid.as_raw_nonzero());
            found
        });
        let looked = Processes::look().unwrap().below(root);
        kill_below(root).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert_eq!(walked.unwrap_or_else(|| looked.clone()), looked);
        assert_eq!(looked.len(), 3);
    }

    #[test]
    fn descendants_are_found_at_any_depth() {
        let table = [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1), (9, 8)];
        let table = Processes(table.into_iter().map(|(pid, parent)| (pid, (parent, pid == 6))).collect());
        let below: Vec<i32> =
            table.below(Pid::from_raw(5).unwrap()).iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        assert_eq!(below, [7], "6 is dead, its child is not");
    }
}
