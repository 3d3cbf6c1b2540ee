//! Work on the workspace that takes long: a child of the supervisor does it, so that the loop never waits.
//!
//! Bytes go in and out through pipes, and no faster than both sides take them. What the child found is told
//! through a third pipe, read when it has ended.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use mooring_archive::ArchiveError;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::config::Level;
use crate::disk;
use crate::files;
use crate::paths;
use crate::sys;
use crate::wire::Failure;
use crate::world::World;

/// How much one [`crate::wire::Call::Pull`] brings.
const PULL: usize = 256 << 10;

pub(crate) struct Job {
    /// Whose it is.
    pub(crate) client: u64,
    /// That client is gone.
    pub(crate) given_up: bool,
    /// `None` once it has ended.
    pub(crate) child: Option<Pid>,
    pub(crate) input: Option<OwnedFd>,
    pub(crate) output: Option<OwnedFd>,
    /// Bytes that still have to go in, for the request that brought them.
    feeding: Option<(u64, Vec<u8>, usize)>,
    /// Who waits for bytes.
    pulling: Option<u64>,
    /// Who waits for its end.
    finishing: Option<u64>,
    /// Where its input breaks off it takes back what can be taken back, and ends.
    ends_with_input: bool,
    /// What it writes comes in the place of all that is there.
    pub(crate) anew: bool,
    /// How much has come for that.
    pub(crate) fed: u64,
    verdict: OwnedFd,
    /// How it ended.
    result: Option<Result<(), Failure>>,
}

/// An answer that has become due.
pub(crate) type Answer = (u64, Result<(), Failure>, Vec<u8>);

/// What a job does.
#[derive(Debug)]
pub(crate) enum Task {
    /// Remove a tree.
    Remove(String),
    /// Unpack the input below a directory.
    Unpack(String),
    /// Replace the workspace by the input.
    Restore,
    /// Pack the workspace, without these, into the output.
    Persist(Vec<String>),
    /// Say how many bytes the workspace holds.
    Measure,
}

impl Job {
    pub(crate) fn start(world: &World, task: &Task, client: u64) -> Result<Self, Failure> {
        let fail =
            |error: std::io::Error| Failure::Invalid { reason: format!("cannot start a job: {error}") };
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fail(errno.into()));
        let (verdict, verdict_end) = pipe()?;
        let (input_end, input) = pipe()?;
        let (output, output_end) = pipe()?;
        match sys::fork().map_err(fail)? {
            None => child(world, task, input_end, output_end, &verdict_end),
            Some(child) => {
                for fd in [&input, &output] {
                    rustix::io::ioctl_fionbio(fd, true).map_err(|errno| fail(errno.into()))?;
                }
                Ok(Self {
                    client,
                    given_up: false,
                    child: Some(child),
                    input: Some(input),
                    output: Some(output),
                    feeding: None,
                    pulling: None,
                    finishing: None,
                    fed: 0,
                    anew: matches!(task, Task::Restore),
                    ends_with_input: matches!(task, Task::Unpack(_) | Task::Restore),
                    verdict,
                    result: None,
                })
            }
        }
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        self.feeding.is_some()
    }

    pub(crate) fn wants_to_read(&self) -> bool {
        self.pulling.is_some()
    }

    pub(crate) fn feed(&mut self, request: u64, bytes: Vec<u8>) -> Option<Answer> {
        if bytes.is_empty() {
            self.input = None;
            return self.finish(request);
        }
        if self.input.is_none() {
            // It stopped reading: why is known when it has ended.
            return self.finish(request);
        }
        self.feeding = Some((request, bytes, 0));
        self.write()
    }

    pub(crate) fn pull(&mut self, request: u64) -> Option<Answer> {
        if self.output.is_none() {
            return self.finish(request);
        }
        self.pulling = Some(request);
        self.read()
    }

    /// Answers when the job has ended.
    pub(crate) fn finish(&mut self, request: u64) -> Option<Answer> {
        match &self.result {
            Some(result) => Some((request, result.clone(), Vec::new())),
            None => {
                self.finishing = Some(request);
                None
            }
        }
    }

    pub(crate) fn abort(&mut self, request: u64) -> Option<Answer> {
        self.end();
        self.finish(request)
    }

    /// Ends it for a client that is gone.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
        self.end();
    }

    fn end(&mut self) {
        if self.ends_with_input {
            self.input = None;
            self.feeding = None;
        } else if let Some(child) = self.child {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
    }

    pub(crate) fn write(&mut self) -> Option<Answer> {
        let (request, bytes, sent) = self.feeding.as_mut()?;
        let input = self.input.as_ref()?;
        loop {
            match rustix::io::write(input, &bytes[*sent..]) {
                Ok(count) => {
                    *sent += count;
                    if *sent == bytes.len() {
                        let answer = (*request, Ok(()), Vec::new());
                        self.feeding = None;
                        return Some(answer);
                    }
                }
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Err(_) => {
                    let request = *request;
                    self.input = None;
                    self.feeding = None;
                    return self.finish(request);
                }
            }
        }
    }

    pub(crate) fn read(&mut self) -> Option<Answer> {
        let output = self.output.as_ref()?;
        let request = self.pulling?;
        let mut buffer = vec![0; PULL];
        match rustix::io::read(output, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(count) if count > 0 => {
                buffer.truncate(count);
                self.pulling = None;
                Some((request, Ok(()), buffer))
            }
            _ => {
                self.output = None;
                self.pulling = None;
                self.finish(request)
            }
        }
    }

    /// What a measure said that has ended.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        let read = rustix::io::read(self.output.as_ref()?, &mut bytes).ok()?;
        (read == bytes.len()).then(|| u64::from_le_bytes(bytes))
    }

    /// Called when the child was reaped. Whoever waits is answered.
    pub(crate) fn ended(&mut self) -> Option<Answer> {
        self.child = None;
        let mut text = Vec::new();
        let verdict = rustix::io::fcntl_dupfd_cloexec(&self.verdict, 3).map(File::from);
        let read = verdict.map_err(std::io::Error::from).and_then(|mut pipe| pipe.read_to_end(&mut text));
        let result = match read.map(|_| serde_json::from_slice(&text)) {
            Ok(Ok(result)) => result,
            _ => Err(Failure::Invalid { reason: "the job was killed before it was done".into() }),
        };
        self.result = Some(result.clone());
        self.input = None;
        let waiting = self.finishing.take().or(self.feeding.take().map(|(request, ..)| request));
        waiting.map(|request| (request, result, Vec::new()))
    }
}

/// The child's whole life.
fn child(world: &World, task: &Task, input: OwnedFd, output: OwnedFd, verdict: &OwnedFd) -> ! {
    let result =
        prepare(world, task, &[&input, &output, verdict]).and_then(|()| task.run(world, input, output));
    let text = serde_json::to_vec(&result).unwrap_or_default();
    let _ = rustix::io::write(verdict, &text);
    sys::exit_now(0)
}

fn prepare(world: &World, task: &Task, keep: &[&OwnedFd]) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::Invalid { reason: format!("cannot start a job: {error}") };
    let mut keep: Vec<_> = keep.iter().map(|fd| fd.as_raw_fd()).collect();
    keep.push(world.root_fd.as_raw_fd());
    sys::close_all_but(&keep).map_err(fail)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| fail(errno.into()))?;
    set_rights(world, task.rights(world), task.rights(world) | task.later_rights())
}

/// From here on the job has the default user's rights, and of others these alone. All of them end at the sandbox's
/// edge.
fn set_rights(world: &World, effective: CapabilitySet, permitted: CapabilitySet) -> Result<(), Failure> {
    if world.level == Level::None {
        return Ok(());
    }
    let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
        .map_err(|errno| Failure::Invalid { reason: format!("cannot start a job: {errno}") })
}

/// A directory without permissions must be removable too.
const TO_REMOVE: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::FOWNER);

impl Task {
    fn rights(&self, world: &World) -> CapabilitySet {
        match self {
            Self::Remove(_) => TO_REMOVE,
            // Nobody to give a file to, nothing to give it with.
            Self::Unpack(_) | Self::Restore if world.many_users && world.accounts.has_more() => {
                CapabilitySet::CHOWN | CapabilitySet::FOWNER
            }
            Self::Unpack(_) | Self::Restore => CapabilitySet::empty(),
            Self::Persist(_) | Self::Measure => CapabilitySet::DAC_READ_SEARCH,
        }
    }

    fn later_rights(&self) -> CapabilitySet {
        if matches!(self, Self::Restore) { TO_REMOVE } else { CapabilitySet::empty() }
    }

    fn run(&self, world: &World, input: OwnedFd, output: OwnedFd) -> Result<(), Failure> {
        match self {
            Self::Remove(path) => remove_tree(world, path),
            Self::Unpack(path) => unpack(world, path, input),
            Self::Restore => restore(world, input),
            Self::Measure => disk::measure(&world.root_fd, output),
            Self::Persist(without) => {
                drop(input);
                let names = |user, group| world.accounts.kept_names(user, group);
                // What is mounted is somewhere else already.
                let without: Vec<String> = without.iter().chain(&world.mounts).cloned().collect();
                mooring_archive::pack(&by_number(&world.root_fd), File::from(output), &without, &names)
                    .map(drop)
                    .map_err(|error| archive_failure(&error))
            }
        }
    }
}

fn unpack(world: &World, path: &str, input: OwnedFd) -> Result<(), Failure> {
    let folder = paths::open(world, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    unpack_into(world, &folder, input)
}

fn unpack_into(world: &World, folder: &OwnedFd, input: OwnedFd) -> Result<(), Failure> {
    let owners = |user: &str, group: &str| {
        let accounts = &world.accounts;
        if !world.many_users || !accounts.has_more() {
            return None;
        }
        let user = accounts.user(Some(user)).or_else(|| accounts.user(None))?;
        Some((user.id, accounts.group(group).unwrap_or(user.id)))
    };
    let limits = mooring_archive::Limits::default();
    mooring_archive::unpack(&by_number(folder), File::from(input), &limits, &owners)
        .map(drop)
        .map_err(|error| archive_failure(&error))
}

/// Unpacks beside what is there, and lets go of that only when all has come.
fn restore(world: &World, input: OwnedFd) -> Result<(), Failure> {
    let name = files::temporary_name();
    let fail = |errno: Errno| paths::failure(".", errno);
    rustix::fs::mkdirat(&world.root_fd, name.as_str(), Mode::from_raw_mode(0o700)).map_err(fail)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |name: &str| rustix::fs::openat(&world.root_fd, name, flags, Mode::empty());
    let staged = open(&name).map_err(fail)?;
    let unpacked = unpack_into(world, &staged, input);
    set_rights(world, TO_REMOVE, TO_REMOVE)?;
    let replaced = unpacked.and_then(|()| {
        let root = open(".").map_err(fail)?;
        files::remove_below(&root, Some(&name)).map_err(fail)?;
        files::move_below(&staged, &root).map_err(fail)
    });
    // Empty after success, half an archive after failure.
    let tidied = files::remove_below(&staged, None)
        .and_then(|_| rustix::fs::unlinkat(&world.root_fd, name.as_str(), AtFlags::REMOVEDIR));
    replaced.and_then(|()| tidied.map_err(fail))
}

/// A directory by its descriptor, for an interface that wants a path.
fn by_number(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}

fn archive_failure(error: &ArchiveError) -> Failure {
    match error {
        ArchiveError::Refused { member, reason } => {
            Failure::Archive { member: member.clone(), reason: reason.clone() }
        }
        ArchiveError::Limit { member, what, limit } => {
            Failure::Archive { member: member.clone(), reason: format!("more than {limit} {what}") }
        }
        ArchiveError::File { path, source, .. } => {
            Failure::File { path: path.display().to_string(), reason: source.to_string() }
        }
        other => Failure::Archive { member: "-".into(), reason: other.to_string() },
    }
}

fn remove_tree(world: &World, path: &str) -> Result<(), Failure> {
    let fail = |errno: Errno| paths::failure(path, errno);
    let (folder, name) = paths::open_parent(world, path, false)?;
    match rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other.map_err(fail),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = rustix::fs::openat(&folder, name.as_str(), flags, Mode::empty()).map_err(fail)?;
    if files::remove_below(&tree, None).map_err(fail)? {
        return Err(Failure::File { path: path.into(), reason: "it holds a mount, which stays".into() });
    }
    rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::REMOVEDIR).map_err(fail)
}
