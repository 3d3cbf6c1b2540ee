//! A sandbox that lives on between clients: its lock and its door, both in the session's directory on the host.
//!
//! The lock is held for as long as anything of the sandbox is left, so that a session never runs twice, and so that
//! whoever ends it can wait for the end. The door is made and removed under the lock.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::wire::Failure;

/// The door's name in the session's directory.
pub const DOOR: &str = "supervisor.sock";
/// The lock's name in the session's directory.
pub const LOCK: &str = "supervisor.lock";

/// How many clients may wait to be let in.
const QUEUE: i32 = 16;

pub(crate) struct Lingering {
    door: PathBuf,
    pub(crate) listener: OwnedFd,
    _lock: OwnedFd,
}

impl Lingering {
    /// Takes the lock and opens the door.
    pub(crate) fn make(folder: &Path) -> Result<Self, Failure> {
        let fail = |error: io::Error| Failure::File {
            path: folder.display().to_string(),
            reason: format!("cannot prepare for clients that come later: {error}"),
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = openat(CWD, folder.join(LOCK), flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| fail(errno.into()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(Failure::Running),
            other => other.map_err(|errno| fail(errno.into()))?,
        }
        let door = folder.join(DOOR);
        let open = || -> io::Result<OwnedFd> {
            match fs::remove_file(&door) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let (address, _folder) = door_address(folder)?;
            bind(&socket, &address)?;
            fs::set_permissions(&door, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            listen(&socket, QUEUE)?;
            Ok(socket)
        };
        let listener = open().map_err(fail)?;
        Ok(Self { door, listener, _lock: lock })
    }

    /// Closes the door. The lock goes with the process.
    pub(crate) fn close(&self) {
        // Where it stays, connecting to it is refused, and the next start removes it.
        let _ = fs::remove_file(&self.door);
    }
}

/// The door's address, short however long the path is, and the descriptor that it goes through.
fn door_address(folder: &Path) -> io::Result<(SocketAddrUnix, OwnedFd)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, folder, flags, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{DOOR}", folder.as_raw_fd()))?;
    Ok((address, folder))
}
