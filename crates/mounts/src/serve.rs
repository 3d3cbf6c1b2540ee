//! Answers the kernel. Each request is answered by a task of its own, so that a slow one holds up no other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, Request, Session, SessionACL,
};
use tokio::runtime::Handle;

use crate::bucket::{Bucket, Entry, FRESH, Fault, File, Listing, join};
use crate::table::Table;

/// Serves a mount until it is unmounted, in a thread of its own.
pub(crate) fn serve(bucket: Bucket, runtime: Handle, device: OwnedFd, uid: u32, gid: u32) {
    let began = SystemTime::now();
    let files = Files { shared: Arc::new(Shared::new(bucket, uid, gid, began)), runtime };
    let work = move || {
        let session = Session::from_fd(files, device, SessionACL::All, Config::default());
        // It ends when the sandbox does. One that cannot begin is a mount that answers nothing but errors.
        if let Ok(session) = session {
            let _ = session.run();
        }
    };
    // Without a thread the device is closed, and the mount is dead: every access to it is an error.
    let _ = std::thread::Builder::new().name("moor-mount".into()).spawn(work);
}

#[derive(Debug)]
struct Shared {
    bucket: Bucket,
    table: Mutex<Table>,
    open: Mutex<HashMap<u64, Arc<Opened>>>,
    /// What directories that are open held when they were read first.
    listings: Mutex<HashMap<u64, Arc<Listing>>>,
    next: AtomicU64,
    uid: u32,
    gid: u32,
    began: SystemTime,
}

/// A file that is open.
#[derive(Debug)]
struct Opened {
    path: String,
    file: File,
    /// One at a time: what several ask for at once is often in one block.
    turn: tokio::sync::Mutex<()>,
}

impl Shared {
    fn new(bucket: Bucket, uid: u32, gid: u32, began: SystemTime) -> Self {
        let (table, open, listings) = (Mutex::new(Table::new()), Mutex::default(), Mutex::default());
        Self { bucket, table, open, listings, next: AtomicU64::new(1), uid, gid, began }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Opened>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<u64, Arc<Listing>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, number: u64, entry: &Entry) -> FileAttr {
        let (kind, perm, size, modified) = match entry {
            Entry::Directory => (FileType::Directory, 0o555, 0, self.began),
            Entry::File(file) => (FileType::RegularFile, 0o444, file.size, file.modified),
        };
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: modified,
            mtime: modified,
            ctime: modified,
            crtime: modified,
            kind,
            perm,
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 128 << 10,
            flags: 0,
        }
    }

    fn directory(&self, number: INodeNo) -> Result<String, Errno> {
        let node = self.table().get(number.0).ok_or(Errno::ENOENT)?;
        match node.entry {
            Entry::Directory => Ok(node.path),
            Entry::File(_) => Err(Errno::ENOTDIR),
        }
    }

    async fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let parent = self.directory(parent)?;
        // Objects have names in UTF-8.
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        let entry = self.bucket.find(&parent, name).await.map_err(|fault| errno(&fault))?;
        let number = self.table().tell(join(&parent, name), entry.clone());
        Ok(self.attributes(number, &entry))
    }

    async fn look(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        let node = self.table().get(number.0).ok_or(Errno::ENOENT)?;
        if node.seen.elapsed() < FRESH || node.entry == Entry::Directory {
            return Ok(self.attributes(number.0, &node.entry));
        }
        let file = self.bucket.look(&node.path).await.map_err(|fault| errno(&fault))?;
        let entry = Entry::File(file);
        self.table().update(number.0, entry.clone());
        Ok(self.attributes(number.0, &entry))
    }

    async fn open_file(&self, number: INodeNo) -> Result<(FileHandle, FopenFlags), Errno> {
        let node = self.table().get(number.0).ok_or(Errno::ENOENT)?;
        if node.entry == Entry::Directory {
            return Err(Errno::EISDIR);
        }
        let file = self.bucket.look(&node.path).await.map_err(|fault| errno(&fault))?;
        let keep = {
            let mut table = self.table();
            table.update(number.0, Entry::File(file.clone()));
            table.open(number.0, &file.version)
        };
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let opened = Opened { path: node.path, file, turn: tokio::sync::Mutex::default() };
        self.open().insert(handle, Arc::new(opened));
        let flags = if keep { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
        Ok((FileHandle(handle), flags))
    }

    async fn read(&self, handle: FileHandle, from: u64, most: u32) -> Result<bytes::Bytes, Errno> {
        let opened = self.open().get(&handle.0).cloned().ok_or(Errno::EBADF)?;
        let _turn = opened.turn.lock().await;
        let read = self.bucket.read(&opened.path, &opened.file, from, most.into()).await;
        read.map_err(|fault| errno(&fault))
    }

    async fn list(
        &self,
        number: INodeNo,
        handle: FileHandle,
        from: u64,
        reply: &mut ReplyDirectory,
    ) -> Result<(), Errno> {
        let path = self.directory(number)?;
        let known = self.listings().get(&handle.0).filter(|_| from > 0).cloned();
        let listing = match known {
            Some(listing) => listing,
            None => self.bucket.list(&path).await.map_err(|fault| errno(&fault))?,
        };
        self.listings().insert(handle.0, Arc::clone(&listing));
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let above = self.table().number(above);
        let dots = [(number.0, FileType::Directory, "."), (above, FileType::Directory, "..")];
        // A file's number is told when its name is looked up; until then any that is not zero will do.
        let named = listing.iter().map(|(name, entry)| match entry {
            Entry::Directory => (u64::MAX, FileType::Directory, name.as_str()),
            Entry::File(_) => (u64::MAX, FileType::RegularFile, name.as_str()),
        });
        let after = usize::try_from(from).unwrap_or(usize::MAX);
        for ((number, kind, name), next) in dots.into_iter().chain(named).zip(1..).skip(after) {
            if reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        Ok(())
    }
}

fn errno(fault: &Fault) -> Errno {
    match fault {
        Fault::Missing => Errno::ENOENT,
        Fault::Denied(_) => Errno::EACCES,
        Fault::Changed => Errno::ESTALE,
        Fault::Late => Errno::ETIMEDOUT,
        Fault::Failed(_) => Errno::EIO,
    }
}

/// What the kernel asks.
#[derive(Debug)]
struct Files {
    shared: Arc<Shared>,
    runtime: Handle,
}

const GENERATION: Generation = Generation(0);
const KNOWN: Duration = FRESH;

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.runtime.spawn(async move {
            match shared.lookup(parent, &name).await {
                Ok(attributes) => reply.entry(&KNOWN, &attributes, GENERATION),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        self.shared.table().forget(number.0, times);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            match shared.look(number).await {
                Ok(attributes) => reply.attr(&KNOWN, &attributes),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            reply.error(Errno::EROFS);
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            match shared.open_file(number).await {
                Ok((handle, flags)) => reply.opened(handle, flags),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        from: u64,
        most: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            match shared.read(handle, from, most).await {
                Ok(read) => reply.data(&read),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.open().remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.shared.next.fetch_add(1, Ordering::Relaxed);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.shared.listings().remove(&handle.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        from: u64,
        mut reply: ReplyDirectory,
    ) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            match shared.list(number, handle, from, &mut reply).await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }
}
