//! How git gets a credential: through a FIFO that nobody else can open, which a helper reads when git asks. So it stands
//! in no argument, no variable, no file, and nowhere in the clone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::Credential;

/// How long a reader may be there without taking what is offered, before it is looked at again.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Offers a credential for as long as it lives.
#[derive(Debug)]
pub(super) struct Asked {
    path: PathBuf,
    over: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
}

impl Asked {
    /// Offers it in a directory that nobody else can enter.
    pub(super) fn offer(credential: &Credential, directory: &Path) -> io::Result<Self> {
        let path = directory.join("credential");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let over = Arc::new(AtomicBool::new(false));
        let (at, ended, told) = (path.clone(), Arc::clone(&over), credential.told());
        let answering = std::thread::Builder::new().name("credential".to_owned()).spawn(move || {
            // Without an answer git says that it has none.
            while !ended.load(Ordering::Acquire) && answer(&at, &ended, told.as_bytes()).is_ok() {}
        })?;
        Ok(Self { path, over, answering: Some(answering) })
    }

    /// The setting that makes git ask here, for one host alone: wherever else it is sent to, it has no credential.
    pub(super) fn setting(&self, host: &str) -> String {
        let path = self.path.to_string_lossy().replace('\'', r"'\''");
        // One read takes one answer, also where two ask at once.
        format!(
            "credential.{host}.helper=!f() {{ test \"$1\" != get || dd bs=8192 count=1 status=none <'{path}'; }}; f"
        )
    }
}

/// Answers those who ask until none is left.
fn answer(path: &Path, over: &AtomicBool, told: &[u8]) -> io::Result<()> {
    // Waits for a reader.
    let mut pipe = OpenOptions::new().write(true).open(path)?;
    while !over.load(Ordering::Acquire) {
        if rustix::io::ioctl_fionread(&pipe)? == 0 {
            match pipe.write_all(told) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                written => written?,
            }
        }
        let mut readers = [PollFd::new(&pipe, PollFlags::empty())];
        match poll(&mut readers, Some(&LOOK)) {
            Ok(_) if readers[0].revents().contains(PollFlags::ERR) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Whoever waits for a reader sees one, and that it is over.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let reader: io::Result<File> = OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        if let (Ok(_reader), Some(answering)) = (reader, self.answering.take()) {
            // A panic of it is over as well.
            let _ = answering.join();
        }
    }
}
