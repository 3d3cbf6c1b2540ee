//! Files that are being written. Object storage knows whole objects only, so a file is put together on the control
//! plane's disk, in a file without a name, and goes out as a whole when it is closed or synchronised.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::fault::Fault;
use crate::volume::{Object, split};

/// The most that the spools of one mount may hold.
const SPACE: u64 = 8 << 30;

#[derive(Debug, Default)]
pub(crate) struct Spools {
    open: Mutex<HashMap<String, Arc<Spool>>>,
    used: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    state: Mutex<State>,
    used: Arc<AtomicU64>,
    /// Held while it goes out, so that it goes once.
    pub(crate) uploading: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    size: u64,
    modified: SystemTime,
    /// Changes, so that what came in during an upload is known to be still due.
    version: u64,
    uploaded: u64,
    handles: usize,
}

impl Spools {
    /// The spool of a path, for one more handle.
    pub(crate) fn join(&self, path: &str) -> Option<Arc<Spool>> {
        let open = self.lock();
        let spool = open.get(path)?;
        spool.state().handles += 1;
        Some(Arc::clone(spool))
    }

    /// A new one, for one handle, unless there is one. A new file is due even while it is empty.
    pub(crate) fn make(&self, path: &str, due: bool) -> Result<Arc<Spool>, Fault> {
        let spool = self.unnamed(due)?;
        Ok(self.adopt(path, spool))
    }

    /// One that no path leads to yet.
    pub(crate) fn unnamed(&self, due: bool) -> Result<Arc<Spool>, Fault> {
        let state =
            State { size: 0, modified: SystemTime::now(), version: u64::from(due), uploaded: 0, handles: 1 };
        Ok(Arc::new(Spool {
            file: tempfile::tempfile()?,
            state: Mutex::new(state),
            used: Arc::clone(&self.used),
            uploading: tokio::sync::Mutex::default(),
        }))
    }

    /// Has a path lead to it, unless somebody was faster: then theirs counts.
    pub(crate) fn adopt(&self, path: &str, spool: Arc<Spool>) -> Arc<Spool> {
        let mut open = self.lock();
        if let Some(other) = open.get(path) {
            other.state().handles += 1;
            return Arc::clone(other);
        }
        open.insert(path.to_owned(), Arc::clone(&spool));
        spool
    }

    /// One handle less. The last takes the spool with it, whatever became of it.
    pub(crate) fn leave(&self, spool: &Arc<Spool>) {
        let mut open = self.lock();
        let left = {
            let mut state = spool.state();
            state.handles = state.handles.saturating_sub(1);
            state.handles
        };
        if left == 0 {
            open.retain(|_, other| !Arc::ptr_eq(other, spool));
        }
    }

    /// A file has another path; what is there goes.
    pub(crate) fn renamed(&self, from: &str, to: &str) {
        let mut open = self.lock();
        open.remove(to);
        if let Some(spool) = open.remove(from) {
            open.insert(to.to_owned(), spool);
        }
    }

    /// A file was removed. Who has it open goes on, and nothing goes out.
    pub(crate) fn removed(&self, path: &str) -> bool {
        self.lock().remove(path).is_some()
    }

    /// Where a spool is now. `None`: its file was removed.
    pub(crate) fn path(&self, spool: &Arc<Spool>) -> Option<String> {
        self.lock().iter().find(|(_, other)| Arc::ptr_eq(other, spool)).map(|(path, _)| path.clone())
    }

    pub(crate) fn object(&self, path: &str) -> Option<Object> {
        self.lock().get(path).map(|spool| spool.object())
    }

    /// Names and states of those in a directory.
    pub(crate) fn within(&self, directory: &str) -> Vec<(String, Object)> {
        let open = self.lock();
        let within = open.iter().filter(|(path, _)| split(path).0 == directory);
        within.map(|(path, spool)| (split(path).1.to_owned(), spool.object())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Spool>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn object(&self) -> Object {
        let state = self.state();
        Object { size: state.size, modified: state.modified, tag: None }
    }

    /// The version that is due, if one is.
    pub(crate) fn due(&self) -> Option<u64> {
        let state = self.state();
        (state.version != state.uploaded).then_some(state.version)
    }

    /// This version is out.
    pub(crate) fn sent(&self, version: u64) {
        self.state().uploaded = version;
    }

    pub(crate) fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Puts in what the object has; that is not a change.
    pub(crate) fn fill(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.grow(offset + bytes.len() as u64)?;
        Ok(self.file.write_all_at(bytes, offset)?)
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Fault::Full(SPACE))?;
        self.grow(end)?;
        self.file.write_all_at(bytes, offset)?;
        self.touch();
        Ok(())
    }

    pub(crate) fn resize(&self, size: u64) -> Result<(), Fault> {
        self.grow(size)?;
        self.file.set_len(size)?;
        let mut state = self.state();
        self.used.fetch_sub(state.size.saturating_sub(size), Ordering::Relaxed);
        state.size = size;
        drop(state);
        self.touch();
        Ok(())
    }

    fn touch(&self) {
        let mut state = self.state();
        state.version += 1;
        state.modified = SystemTime::now();
    }

    /// Takes the room for this size, holes counted in.
    fn grow(&self, size: u64) -> Result<(), Fault> {
        let mut state = self.state();
        let more = size.saturating_sub(state.size);
        if self.used.fetch_add(more, Ordering::Relaxed) + more > SPACE {
            self.used.fetch_sub(more, Ordering::Relaxed);
            return Err(Fault::Full(SPACE));
        }
        state.size = state.size.max(size);
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let size = self.state().size;
        self.used.fetch_sub(size, Ordering::Relaxed);
    }
}
