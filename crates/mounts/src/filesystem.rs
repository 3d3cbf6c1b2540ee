//! The kernel's questions about a mount. Each is answered in a task of its own, so that none waits for another; and
//! once the mount is ended, each fails at once.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::blocks::BLOCK;
use crate::fault::Fault;
use crate::inodes::Inodes;
use crate::spool::Spool;
use crate::volume::{Node, Object, Volume, join};

/// How long the kernel may believe what it was told.
const BELIEVED: Duration = Duration::from_secs(1);
/// The user and group that files appear to belong to: the sandbox's default user.
const OWNER: u32 = 1000;

/// A mounted volume.
pub(crate) struct Mounted {
    inner: Arc<Inner>,
    runtime: Handle,
    ended: CancellationToken,
}

struct Inner {
    volume: Arc<Volume>,
    inodes: Inodes,
    files: Mutex<HashMap<u64, Arc<Open>>>,
    /// Open directories, as they were when they were opened.
    directories: Mutex<HashMap<u64, Arc<Names>>>,
    next: AtomicU64,
    since: SystemTime,
}

/// What is in a directory, in order.
type Names = Vec<(String, FileType)>;

/// An open file.
enum Open {
    /// To be read, in the state that it had.
    Reading { path: String, object: Object, reached: AtomicU64 },
    /// To be written.
    Writing(Arc<Spool>),
}

impl Mounted {
    pub(crate) fn new(volume: Arc<Volume>, runtime: Handle, ended: CancellationToken) -> Self {
        let inner = Inner {
            volume,
            inodes: Inodes::default(),
            files: Mutex::default(),
            directories: Mutex::default(),
            next: AtomicU64::new(1),
            since: SystemTime::now(),
        };
        Self { inner: Arc::new(inner), runtime, ended }
    }

    /// Finds something out and answers. What fails is told, with the path.
    fn answer<T, F>(
        &self,
        operation: &'static str,
        path: Result<String, Fault>,
        work: impl FnOnce(Arc<Inner>, String) -> F + Send + 'static,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) where
        T: Send,
        F: Future<Output = Result<T, Fault>> + Send,
    {
        let (inner, ended) = (Arc::clone(&self.inner), self.ended.clone());
        self.runtime.spawn(async move {
            let path = match path {
                Ok(path) => path,
                Err(fault) => return reply(Err(fault.errno())),
            };
            let done = tokio::select! {
                biased;
                () = ended.cancelled() => Err(Fault::Ended),
                done = work(Arc::clone(&inner), path.clone()) => done,
            };
            if let Err(fault) = &done {
                inner.volume.faults.tell(operation, &path, fault);
            }
            reply(done.map_err(|fault| fault.errno()));
        });
    }

    fn path(&self, number: INodeNo) -> Result<String, Fault> {
        self.inner.inodes.path(number.0).ok_or(Fault::NotFound)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<String, Fault> {
        let directory = self.path(parent)?;
        let name = name.to_str().ok_or_else(|| Fault::Name(name.to_string_lossy().into_owned()))?;
        Ok(join(&directory, name))
    }

    fn open_file(&self, handle: FileHandle) -> Option<Arc<Open>> {
        lock(&self.inner.files).get(&handle.0).cloned()
    }
}

impl Inner {
    fn attributes(&self, number: u64, node: &Node) -> FileAttr {
        let (kind, perm, size, modified) = match node {
            Node::Directory => (FileType::Directory, 0o755, 0, self.since),
            Node::File(object) => (FileType::RegularFile, 0o644, object.size, object.modified),
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
            // A directory with one link tells programs that they cannot count its directories by its links.
            nlink: 1,
            uid: OWNER,
            gid: OWNER,
            rdev: 0,
            blksize: 1 << 17,
            flags: 0,
        }
    }

    fn keep(&self, open: Open) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(handle, Arc::new(open));
        FileHandle(handle)
    }

    /// The attributes of a path that the kernel is about to know.
    fn known(&self, path: &str, node: &Node) -> FileAttr {
        self.attributes(self.inodes.look(path), node)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entry(reply: ReplyEntry) -> impl FnOnce(Result<FileAttr, Errno>) + Send {
    move |done| match done {
        Ok(attributes) => reply.entry(&BELIEVED, &attributes, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn attr(reply: ReplyAttr) -> impl FnOnce(Result<FileAttr, Errno>) + Send {
    move |done| match done {
        Ok(attributes) => reply.attr(&BELIEVED, &attributes),
        Err(errno) => reply.error(errno),
    }
}

fn empty(reply: ReplyEmpty) -> impl FnOnce(Result<(), Errno>) + Send {
    move |done| match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // So that a file that is written anew goes out once, and not as an empty one before. Where the kernel cannot, it
        // asks for both.
        let _ = config.add_capabilities(InitFlags::FUSE_ATOMIC_O_TRUNC);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let work = |inner: Arc<Inner>, path: String| async move {
            let node = inner.volume.stat(&path).await?;
            Ok(inner.known(&path, &node))
        };
        // What no key can be called is not there.
        let path = self.child(parent, name).map_err(|_| Fault::NotFound);
        self.answer("look up", path, work, entry(reply));
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.inner.inodes.forget(number.0, count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let open = handle.and_then(|handle| self.open_file(handle));
        let work = move |inner: Arc<Inner>, path: String| async move {
            let node = match open.as_deref() {
                Some(Open::Writing(spool)) => Node::File(spool.object()),
                Some(Open::Reading { object, .. }) => Node::File(object.clone()),
                None => inner.volume.stat(&path).await?,
            };
            Ok(inner.attributes(number.0, &node))
        };
        self.answer("look at", self.path(number), work, attr(reply));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let open = handle.and_then(|handle| self.open_file(handle));
        let work = move |inner: Arc<Inner>, path: String| async move {
            let node = match open.as_deref() {
                Some(Open::Writing(spool)) => Node::File(spool.object()),
                _ => inner.volume.stat(&path).await?,
            };
            let now = inner.attributes(number.0, &node);
            let other = |asked: Option<u32>, have: u32| asked.is_some_and(|asked| asked != have);
            let asked_mode = mode.map(|mode| mode & 0o7777);
            if other(asked_mode, u32::from(now.perm)) || other(uid, now.uid) || other(gid, now.gid) {
                return Err(Fault::NoPermissions);
            }
            // A time is the server's own: that of the last upload.
            let Some(size) = size else { return Ok(now) };
            match (open.as_deref(), &node) {
                (_, Node::Directory) => Err(Fault::IsDirectory),
                (Some(Open::Writing(spool)), _) => {
                    spool.resize(size)?;
                    Ok(inner.attributes(number.0, &Node::File(spool.object())))
                }
                (_, Node::File(object)) => {
                    let spool = inner.volume.edit(&path, object, size == 0).await?;
                    let done = match spool.resize(size) {
                        Ok(()) => inner.volume.upload(&spool).await,
                        failed => failed,
                    };
                    let node = Node::File(spool.object());
                    inner.volume.spools.leave(&spool);
                    done?;
                    Ok(inner.attributes(number.0, &node))
                }
            }
        };
        self.answer("change", self.path(number), work, attr(reply));
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let work = |inner: Arc<Inner>, path: String| async move {
            inner.volume.make_directory(&path).await?;
            Ok(inner.known(&path, &Node::Directory))
        };
        self.answer("make", self.child(parent, name), work, entry(reply));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let work = |inner: Arc<Inner>, path: String| async move { inner.volume.remove_file(&path).await };
        self.answer("remove", self.child(parent, name), work, empty(reply));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let work =
            |inner: Arc<Inner>, path: String| async move { inner.volume.remove_directory(&path).await };
        self.answer("remove", self.child(parent, name), work, empty(reply));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let to = self.child(new_parent, new_name);
        let work = move |inner: Arc<Inner>, from: String| async move {
            let to = to?;
            let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
            if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
                return Err(Fault::NoRename);
            }
            if from == to {
                return Ok(());
            }
            inner.volume.rename(&from, &to, replace).await?;
            inner.inodes.renamed(&from, &to);
            Ok(())
        };
        self.answer("rename", self.child(parent, name), work, empty(reply));
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writing = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let work = move |inner: Arc<Inner>, path: String| async move {
            let Node::File(object) = inner.volume.stat(&path).await? else { return Err(Fault::IsDirectory) };
            let open = if writing {
                Open::Writing(inner.volume.edit(&path, &object, truncate).await?)
            } else if let Some(spool) = inner.volume.spools.join(&path) {
                Open::Writing(spool)
            } else {
                Open::Reading { path, object, reached: AtomicU64::new(0) }
            };
            Ok(inner.keep(open))
        };
        self.answer("open", self.path(number), work, move |done| match done {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        });
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let work = |inner: Arc<Inner>, path: String| async move {
            let spool = inner.volume.create(&path).await?;
            let attributes = inner.known(&path, &Node::File(spool.object()));
            Ok((attributes, inner.keep(Open::Writing(spool))))
        };
        self.answer("make", self.child(parent, name), work, move |done| match done {
            Ok((attributes, handle)) => {
                reply.created(&BELIEVED, &attributes, Generation(0), handle, FopenFlags::empty());
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let open = self.open_file(handle);
        let work = move |inner: Arc<Inner>, _: String| async move {
            match open.as_deref() {
                None => Err(Fault::Handle),
                Some(Open::Writing(spool)) => spool.read(offset, size as usize),
                Some(Open::Reading { path, object, reached }) => {
                    let end = offset + u64::from(size);
                    // Reads come somewhat out of order, and the first tells nothing yet.
                    let before = reached.fetch_max(end, Ordering::Relaxed);
                    let ahead = before > 0 && offset <= before + BLOCK && end + BLOCK >= before;
                    inner.volume.read(path, object, offset, u64::from(size), ahead).await
                }
            }
        };
        self.answer("read", self.path(number), work, move |done| match done {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        });
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // At once, since the bytes are the kernel's; a disk does not keep others waiting for long.
        let done = match self.open_file(handle).as_deref() {
            Some(Open::Writing(spool)) => spool.write(offset, data),
            _ => Err(Fault::Handle),
        };
        match done {
            Ok(()) => reply.written(data.len() as u32),
            Err(fault) => {
                let path = self.path(number).unwrap_or_default();
                self.inner.volume.faults.tell("write", &path, &fault);
                reply.error(fault.errno());
            }
        }
    }

    fn flush(&self, _: &Request, number: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.send(number, handle, reply);
    }

    fn fsync(&self, _: &Request, number: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.send(number, handle, reply);
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let open = lock(&self.inner.files).remove(&handle.0);
        let work = move |inner: Arc<Inner>, _: String| async move {
            let Some(Open::Writing(spool)) = open.as_deref() else { return Ok(()) };
            // Closing has sent it; this is for what was written through a map since.
            let sent = inner.volume.upload(spool).await;
            inner.volume.spools.leave(spool);
            sent
        };
        let path = Ok(self.path(number).unwrap_or_default());
        self.answer("upload", path, work, empty(reply));
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let work = |inner: Arc<Inner>, path: String| async move {
            let listing = inner.volume.list(&path).await?;
            let kind = |node: &Node| match node {
                Node::Directory => FileType::Directory,
                Node::File(_) => FileType::RegularFile,
            };
            let listing = listing.iter().map(|(name, node)| (name.clone(), kind(node))).collect::<Names>();
            let handle = inner.next.fetch_add(1, Ordering::Relaxed);
            lock(&inner.directories).insert(handle, Arc::new(listing));
            Ok(FileHandle(handle))
        };
        self.answer("list", self.path(number), work, move |done| match done {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        });
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = lock(&self.inner.directories).get(&handle.0).cloned();
        let (Some(listing), Ok(directory)) = (listing, self.path(number)) else {
            return reply.error(Errno::EBADF);
        };
        for at in offset.. {
            let (name, number, kind) = match at {
                0 => (".", number.0, FileType::Directory),
                1 => ("..", number.0, FileType::Directory),
                at => {
                    let Some((name, kind)) = listing.get(at as usize - 2) else { break };
                    (name.as_str(), self.inner.inodes.number(&join(&directory, name)), *kind)
                }
            };
            if reply.add(INodeNo(number), at + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        lock(&self.inner.directories).remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // Nobody knows; programs that ask first whether there is room are told that there is.
        let (blocks, size) = (1 << 40, 4096);
        reply.statfs(blocks, blocks, blocks, 1 << 40, 1 << 40, size, 255, size);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}

impl Mounted {
    /// Sends what was written through a handle.
    fn send(&self, number: INodeNo, handle: FileHandle, reply: ReplyEmpty) {
        let open = self.open_file(handle);
        let work = move |inner: Arc<Inner>, _: String| async move {
            match open.as_deref() {
                Some(Open::Writing(spool)) => inner.volume.upload(spool).await,
                _ => Ok(()),
            }
        };
        self.answer("upload", self.path(number), work, empty(reply));
    }
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted").finish_non_exhaustive()
    }
}
