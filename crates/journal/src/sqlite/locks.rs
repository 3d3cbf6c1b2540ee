//! Who drives a run: an exclusive lock on `locks/<run>.lock` beside the database, free the moment its process is gone.
//!
//! The lock is for people and for a fast, clear refusal. What keeps two drivers apart is the epoch in the database.
//!
//! Whether a run is driven is asked with a *shared* lock, held for an instant. It cannot make a claim fail: a claim
//! that does not get the exclusive lock asks for a shared one too, and gets it if only askers were in the way; then
//! it tries again. Only an exclusive lock, thus a driver, turns a claim away.
//!
//! A driver that ends removes its file before it unlocks. Who locked a file that has been removed meanwhile notices,
//! since the name no longer leads to it, and starts over; so no two hold "the" lock of a run.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::trouble::Home;
use crate::{JournalError, RunId};

/// How long a claim makes way for askers, each of which takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most of an owner's text that is shown, in bytes.
const OWNER: u64 = 1024;

/// The lock files of a journal.
#[derive(Debug, Clone)]
pub(crate) struct Locks {
    home: Arc<Home>,
    dir: PathBuf,
}

/// A run's lock, until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Locks {
    pub(crate) fn new(home: Arc<Home>) -> Self {
        let dir = home.path.with_file_name("locks");
        Self { home, dir }
    }

    /// Takes the lock of a run, or says who has it.
    pub(crate) fn take(&self, run: &RunId, owner: &str) -> Result<Lock, JournalError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_take(run, owner).map_err(|error| self.home.io(&error))? {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Driven(owner) => return Err(JournalError::Driven { run: run.clone(), owner }),
                Attempt::Again if Instant::now() < deadline => sleep(Duration::from_millis(1)),
                Attempt::Again => {
                    return Err(self.home.failed(format!(
                        "other processes keep asking whether run {run} is driven, for {} s without a pause; end them, then try again",
                        PATIENCE.as_secs()
                    )));
                }
            }
        }
    }

    /// Whether a driver holds the run now.
    pub(crate) fn is_held(&self, run: &RunId) -> Result<bool, JournalError> {
        match fs_err::File::open(self.path(run)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.home.io(&error)),
            Ok(file) => match file.file().try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(self.home.io(&error)),
            },
        }
    }

    /// The runs that may be driven: those with a file. Most runs have none.
    pub(crate) fn candidates(&self) -> Result<std::collections::HashSet<RunId>, JournalError> {
        let entries = match fs_err::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(std::collections::HashSet::new());
            }
            Err(error) => return Err(self.home.io(&error)),
        };
        let mut runs = std::collections::HashSet::new();
        for entry in entries {
            let name = entry.map_err(|error| self.home.io(&error))?.file_name();
            if let Some(run) = name.to_str().and_then(|name| name.strip_suffix(".lock")) {
                runs.insert(RunId(run.to_owned()));
            }
        }
        Ok(runs)
    }

    fn try_take(&self, run: &RunId, owner: &str) -> io::Result<Attempt> {
        fs_err::create_dir_all(&self.dir)?;
        let path = self.path(run);
        let file =
            fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.file().try_lock() {
            Ok(()) => {
                let (mut file, _) = file.into_parts();
                if !leads_to(&path, &file)? {
                    return Ok(Attempt::Again);
                }
                let lock_text = (|| {
                    file.set_len(0)?;
                    file.rewind()?;
                    file.write_all(owner.as_bytes())
                })();
                let lock = Lock { file, path };
                lock_text?;
                Ok(Attempt::Taken(lock))
            }
            Err(TryLockError::WouldBlock) => match file.file().try_lock_shared() {
                Ok(()) => Ok(Attempt::Again),
                Err(TryLockError::WouldBlock) => {
                    let mut owner = Vec::new();
                    file.take(OWNER).read_to_end(&mut owner)?;
                    let owner = String::from_utf8_lossy(&owner).into_owned();
                    Ok(Attempt::Driven(if owner.is_empty() { "another process".to_owned() } else { owner }))
                }
                Err(TryLockError::Error(error)) => Err(error),
            },
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn path(&self, run: &RunId) -> PathBuf {
        self.dir.join(format!("{run}.lock"))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // In this order; a file that stays is locked by nobody, which is all that counts.
        let _ = fs_err::remove_file(&self.path);
        // By hand: a child process between fork and exec holds the file open too.
        let _ = self.file.unlock();
    }
}

enum Attempt {
    Taken(Lock),
    Driven(String),
    Again,
}

/// Whether the name still is this file's.
fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs_err::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::thread;

    use super::*;

    fn locks() -> (tempfile::TempDir, Locks, RunId) {
        let dir = tempfile::tempdir().unwrap();
        let home = Arc::new(Home::new(&dir.path().join("journal.db")).unwrap());
        (dir, Locks::new(home), RunId("run".to_owned()))
    }

    #[test]
    fn a_claim_waits_for_who_only_looks() {
        let (_dir, locks, run) = locks();
        drop(locks.take(&run, "first").unwrap());
        let looker = File::create(locks.path(&run)).unwrap();
        looker.try_lock_shared().unwrap();
        assert!(matches!(locks.try_take(&run, "second").unwrap(), Attempt::Again));
        thread::scope(|scope| {
            scope.spawn(move || {
                sleep(Duration::from_millis(20));
                drop(looker);
            });
            locks.take(&run, "second").unwrap();
        });
    }

    #[test]
    fn a_claim_is_turned_away_at_once_by_a_driver() {
        let (_dir, locks, run) = locks();
        let held = locks.take(&run, "first").unwrap();
        assert!(
            matches!(locks.try_take(&run, "second").unwrap(), Attempt::Driven(owner) if owner == "first")
        );
        assert!(locks.is_held(&run).unwrap());
        drop(held);
        assert!(!locks.is_held(&run).unwrap());
        // Left by a driver that was killed: nobody's, with its text in it until the next one's.
        fs_err::write(locks.path(&run), "a driver with a longer name").unwrap();
        assert!(!locks.is_held(&run).unwrap());
        let held = locks.take(&run, "third").unwrap();
        assert_eq!(fs_err::read_to_string(&held.path).unwrap(), "third");
    }

    #[test]
    fn lookers_never_turn_a_claim_away() {
        let (_dir, locks, run) = locks();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        locks.is_held(&run).unwrap();
                    }
                });
            }
            let claims: Vec<_> = (0..500).map(|_| locks.take(&run, "owner").map(drop)).collect();
            done.store(true, Ordering::Relaxed);
            assert!(claims.iter().all(Result::is_ok), "{claims:?}");
        });
    }

    #[test]
    fn no_two_hold_a_lock_though_its_file_comes_and_goes() {
        let (_dir, locks, run) = locks();
        let (holders, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while taken.load(Ordering::Relaxed) < 300 {
                        if let Ok(lock) = locks.take(&run, "owner") {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                            taken.fetch_add(1, Ordering::Relaxed);
                            thread::yield_now();
                            holders.fetch_sub(1, Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
    }
}
