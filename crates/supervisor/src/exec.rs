//! The reaper that each command runs below.
//!
//! A fork of the supervisor that starts the command and then only waits. It is the subreaper of everything the
//! command starts, so that a descendant can lose its parent but never leave this subtree; that makes "everything
//! this command started" a question with an answer. It ends when its last descendant has.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};

use crate::isolate::seccomp;
use crate::sys::{self, Launch, Stage, close_all_but, exit_now, launch};

/// What a reaper tells the supervisor, over a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The command runs, as this process.
    Started(Pid),
    /// It does not; where that failed, and the error's number.
    Failed(Stage, i32),
    /// The command has ended, with this wait status.
    Ended(i32),
}

/// The size of a [`Status`] on the pipe. Below `PIPE_BUF`, so none is ever torn.
pub(crate) const STATUS_SIZE: usize = 12;

impl Status {
    fn to_bytes(self) -> [u8; STATUS_SIZE] {
        let words = match self {
            Self::Started(pid) => [0, pid.as_raw_nonzero().get(), 0],
            Self::Failed(stage, errno) => [1, stage as i32, errno],
            Self::Ended(status) => [2, status, 0],
        };
        let mut bytes = [0; STATUS_SIZE];
        for (target, word) in bytes.chunks_exact_mut(4).zip(words) {
            target.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; STATUS_SIZE]) -> Option<Self> {
        let mut words = bytes.chunks_exact(4).filter_map(|word| word.try_into().ok()).map(i32::from_le_bytes);
        match (words.next()?, words.next()?, words.next()?) {
            (0, pid, _) => Pid::from_raw(pid).map(Self::Started),
            (1, stage, errno) => Some(Self::Failed(Stage::from_raw(stage), errno)),
            (_, status, _) => Some(Self::Ended(status)),
        }
    }
}

/// The reaper's whole life, in the child of a fork.
pub(crate) fn reaper(command: Launch, status: &OwnedFd) -> ! {
    let say = |what: Status| {
        // Nobody is left to be told when this fails.
        let _ = rustix::io::write(status, &what.to_bytes());
    };
    if let Err(error) = prepare(&command, status) {
        say(Status::Failed(Stage::Session, error.raw_os_error().unwrap_or(libc::EIO)));
        exit_now(1)
    }
    let main = match launch(&command) {
        Ok(pid) => pid,
        Err((stage, error)) => {
            say(Status::Failed(stage, error.raw_os_error().unwrap_or(libc::EIO)));
            exit_now(1)
        }
    };
    say(Status::Started(main));
    // The pipes must be the command's alone, for their end to mean something.
    drop(command);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, ended))) if pid == main => say(Status::Ended(ended.as_raw())),
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => exit_now(0),
        }
    }
}

fn prepare(command: &Launch, status: &OwnedFd) -> std::io::Result<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // What the sandbox may send to it must not end it: it would leave orphans.
    nix::sys::signal::SigSet::all().thread_block()?;
    if let Some(size) = command.file_size {
        rustix::process::setrlimit(Resource::Fsize, Rlimit { current: Some(size), maximum: Some(size) })?;
    }
    if command.confined {
        sys::load_seccomp(&mut seccomp::filter())?;
    }
    let stdio = command.stdio.each_ref().map(OwnedFd::as_raw_fd);
    close_all_but(&[stdio[0], stdio[1], stdio[2], status.as_raw_fd()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_pipe() {
        for status in [
            Status::Started(Pid::from_raw(77).unwrap()),
            Status::Failed(Stage::Directory, libc::ENOENT),
            Status::Ended(9),
        ] {
            assert_eq!(Status::from_bytes(status.to_bytes()), Some(status));
        }
    }
}
