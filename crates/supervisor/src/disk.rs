//! The limit on what a workspace holds: it is measured while something runs, and what would take it further is ended.
//!
//! No kernel keeps such a limit for a directory of an ordinary user's, so this is bookkeeping, and comes late by as much
//! as can be written between two measures. What the kernel does keep is how large one file of a command may grow: no
//! larger than the limit, and not at all while the workspace is over it. Then commands can still tidy up.
//!
//! A measure is a job, so that the loop never waits for it. Blocks count, each file once however many names it has.

use std::collections::HashSet;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxAttributes, StatxFlags, openat, statx};
use rustix::io::Errno;

use crate::jobs::{Job, Task};
use crate::wire::{Failure, Spawn};
use crate::world::World;

/// Between two measures, at least …
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);
/// … and so many times what one takes, at least.
const SHARE: u32 = 10;

/// How often in a row a measure may not begin. Then the workspace counts as too large: whoever keeps it from being
/// measured must not gain by it.
const MISSED: u32 = 20;

/// How deep a tree is measured. A deeper one counts as too large.
const MAX_DEPTH: usize = 4096;

/// A command that waits for a measure: its request, itself, its input.
pub(crate) type Waiting = (u64, Spawn, Vec<u8>);

pub(crate) struct Disk {
    limit: u64,
    /// What the workspace held when it was measured last.
    used: u64,
    /// More than this is growth that the limit forbids: the limit, or, where the workspace is over it, what it has
    /// shrunk to since.
    allowed: u64,
    /// What file operations have added since the last measure began.
    added: u64,
    /// Whether something may have been written since.
    stale: bool,
    measuring: Option<(Job, Instant)>,
    missed: u32,
    next: Instant,
    pub(crate) waiting: Vec<Waiting>,
}

impl Disk {
    /// Nothing is known yet.
    pub(crate) fn new(limit: u64, now: Instant) -> Self {
        Self {
            limit,
            used: 0,
            allowed: limit,
            added: 0,
            stale: true,
            measuring: None,
            missed: 0,
            next: now,
            waiting: Vec::new(),
        }
    }

    /// Starts a measure where one is due. Gives the moment to ask again, while `busy`: something runs.
    pub(crate) fn advance(&mut self, world: &World, busy: bool, now: Instant) -> Option<Instant> {
        self.stale |= busy;
        if self.measuring.is_some() || (!self.stale && self.waiting.is_empty()) {
            return None;
        }
        // Who waits, or the last that ran, need not wait for the moment.
        if now < self.next && (self.missed > 0 || (busy && self.waiting.is_empty())) {
            return Some(self.next);
        }
        match Job::start(world, &Task::Measure, 0) {
            Ok(job) => {
                (self.stale, self.added, self.missed) = (false, 0, 0);
                self.measuring = Some((job, now));
                None
            }
            // As where there can be no more processes.
            Err(_) => {
                self.missed += 1;
                self.next = now + INTERVAL;
                Some(self.next)
            }
        }
    }

    /// Whether no measure could begin for too long.
    pub(crate) fn is_blind(&self) -> bool {
        self.missed >= MISSED
    }

    /// Whether a child that ended was measuring.
    pub(crate) fn is_mine(&self, child: rustix::process::Pid) -> bool {
        self.measuring.as_ref().is_some_and(|(job, _)| job.child == Some(child))
    }

    /// Takes what was measured. Whether it is more than may be; `ending`: those who made it so are being ended.
    pub(crate) fn measured(&mut self, now: Instant, ending: bool) -> bool {
        let Some((mut job, began)) = self.measuring.take() else { return false };
        self.next = now + INTERVAL.max((now - began) * SHARE);
        // What cannot be measured is too much.
        self.used = job.number().unwrap_or(u64::MAX);
        let over = self.used > self.allowed && !ending;
        let reached = if over || ending { self.used } else { self.used.min(self.allowed) };
        self.allowed = self.limit.max(reached);
        over
    }

    /// Whether a command may start without another measure.
    pub(crate) fn is_known(&self, now: Instant) -> bool {
        let fresh = !self.stale || (now < self.next && self.used <= self.limit);
        fresh && self.measuring.is_none() && self.waiting.is_empty()
    }

    /// How large a file of a command that starts now may grow.
    pub(crate) fn file_size(&self) -> u64 {
        if self.used > self.limit { 0 } else { self.limit }
    }

    /// Makes room for what a file operation is about to write.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Failure> {
        let added = self.added.saturating_add(bytes as u64);
        self.take_anew(self.used.saturating_add(added))?;
        self.added = added;
        Ok(())
    }

    /// The same for so much in all, in the place of what is there.
    pub(crate) fn take_anew(&mut self, bytes: u64) -> Result<(), Failure> {
        self.stale = true;
        if bytes > self.limit { Err(self.failure()) } else { Ok(()) }
    }

    fn failure(&self) -> Failure {
        let reason = format!("the workspace would hold more than its {} bytes (resources.disk)", self.limit);
        Failure::File { path: ".".into(), reason }
    }
}

/// Measures a tree, as a job, and writes the number of its bytes.
pub(crate) fn measure(root: &OwnedFd, output: OwnedFd) -> Result<(), Failure> {
    let fail = |errno: Errno| Failure::File { path: ".".into(), reason: format!("cannot measure: {errno}") };
    let bytes = size(root.as_fd()).map_err(fail)?;
    let written = std::fs::File::from(output).write_all(&bytes.to_le_bytes());
    written.map_err(|error| fail(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

fn size(root: BorrowedFd<'_>) -> Result<u64, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: BorrowedFd<'_>, name: &std::ffi::CStr| openat(at, name, flags, Mode::empty());
    let mut bytes = 0_u64;
    let mut seen = HashSet::new();
    let top = open(root, c".")?;
    let mut levels = vec![(Dir::read_from(&top)?, top)];
    loop {
        let depth = levels.len();
        let Some((entries, directory)) = levels.last_mut() else { return Ok(bytes) };
        let Some(entry) = entries.next() else {
            levels.pop();
            continue;
        };
        let entry = match entry {
            Ok(entry) => entry,
            // Removed while it is read.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // Without asking whoever serves what is mounted there, which may take for ever.
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        let stat = match statx(&*directory, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            continue;
        }
        let is_directory = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        let known = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if stat.stx_nlink == 1 || is_directory || seen.insert(known) {
            bytes = bytes.saturating_add(stat.stx_blocks.saturating_mul(512));
        }
        if is_directory {
            if depth == MAX_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
            match open(directory.as_fd(), name) {
                Ok(below) => levels.push((Dir::read_from(&below)?, below)),
                // Removed, or something else since.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}
