//! What SQLite and the file system say, in the words of [`JournalError`].
//!
//! SQLite's safe interface does not give the system's error number: a quota and a file size limit look like any failed
//! write. A probe beside the journal tells them apart.

use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::{JournalError, RunId};

/// Why work in the store did not get done.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The journal's own rules; nothing was written.
    Refused(JournalError),
    /// SQLite failed; the transaction must be rolled back.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Sqlite(error)
    }
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        Trouble::Refused(error)
    }
}

/// Where the journal is, and how errors name it.
#[derive(Debug)]
pub(crate) struct Home {
    /// The database file, absolute.
    pub(crate) path: PathBuf,
    /// The same for messages.
    pub(crate) name: String,
}

impl Home {
    pub(crate) fn new(path: &Path) -> Result<Self, JournalError> {
        let name = path.display().to_string();
        // Absolute: SQLite would read a path that begins with `file:` as a URI.
        match std::path::absolute(path) {
            Ok(path) => Ok(Self { path, name }),
            Err(error) => {
                Err(JournalError::Store { store: name, reason: format!("not a usable path: {error}") })
            }
        }
    }

    pub(crate) fn failed(&self, reason: impl Into<String>) -> JournalError {
        JournalError::Store { store: self.name.clone(), reason: reason.into() }
    }

    pub(crate) fn unknown(&self, run: &RunId) -> JournalError {
        JournalError::UnknownRun { run: run.clone(), store: self.name.clone() }
    }

    pub(crate) fn exists(&self, run: &RunId) -> JournalError {
        JournalError::RunExists { run: run.clone(), store: self.name.clone() }
    }

    pub(crate) fn damaged(&self, run: &RunId, seq: u64, reason: impl Into<String>) -> JournalError {
        JournalError::Damaged { run: run.clone(), seq, store: self.name.clone(), reason: reason.into() }
    }

    /// A file beside the database failed.
    pub(crate) fn io(&self, error: &io::Error) -> JournalError {
        if is_full(error) {
            return JournalError::Full { store: self.name.clone() };
        }
        // fs-err names the file in the text.
        self.failed(format!("{error}{}", next_step(error)))
    }

    pub(crate) fn explain(&self, trouble: Trouble) -> JournalError {
        match trouble {
            Trouble::Refused(error) => error,
            Trouble::Sqlite(error) => self.sqlite(&error),
        }
    }

    pub(crate) fn sqlite(&self, error: &rusqlite::Error) -> JournalError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => JournalError::Full { store: self.name.clone() },
            Some(ErrorCode::SystemIoFailure) => self.unwritable(Some(error)),
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => self.unwritable(None),
            Some(ErrorCode::NotADatabase) => self.failed(format!(
                "the file is not a journal ({error}); move it away to start anew. `moor doctor` tells more"
            )),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::ConstraintViolation) => self.failed(format!(
                "the file is damaged ({error}); restore a copy, or move it away to start anew. `moor doctor` tells more"
            )),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => self.failed(format!(
                "another process kept it locked ({error}); find it with `fuser {}`, then try again",
                self.name
            )),
            _ => self.failed(error.to_string()),
        }
    }

    /// It could not be opened, or the system failed with `error`. The probe may tell why.
    pub(crate) fn unwritable(&self, error: Option<&rusqlite::Error>) -> JournalError {
        match (self.probe(), error) {
            (Err(probe), _) if is_full(&probe) => JournalError::Full { store: self.name.clone() },
            (Err(probe), _) => self.failed(format!(
                "it cannot be written, nor can another file beside it: {}{}",
                probe.kind(),
                next_step(&probe)
            )),
            (Ok(()), Some(error)) => self.failed(format!(
                "the system could not read or write it ({error}); check the disk, then resume"
            )),
            (Ok(()), None) => self.failed("it cannot be read and written; check its owner and its mode"),
        }
    }

    /// Writes where the journal's next page would be, in a file beside it: does the disk, the quota, the process's
    /// file size limit have room, and may one write there at all?
    fn probe(&self) -> io::Result<()> {
        let ends = ["", "-wal"].iter().filter_map(|suffix| fs_err::metadata(self.beside(suffix)).ok());
        let end = ends.map(|file| file.len()).max().unwrap_or(0);
        let path = self.beside(&format!("-probe-{}", std::process::id()));
        let mut file = fs_err::File::create(&path)?;
        let written = file.seek(SeekFrom::Start(end)).and_then(|_| file.write_all(&[1; 8192]));
        // One that stays is in nobody's way.
        let _ = fs_err::remove_file(&path);
        written
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; give its owner and mode back, or run as the user who owns it",
        ErrorKind::ReadOnlyFilesystem => "; mount it writable, or keep the journal elsewhere",
        _ => "",
    }
}
