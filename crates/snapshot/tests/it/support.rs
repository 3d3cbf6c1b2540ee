//! Workspaces without a sandbox: directories that are packed and unpacked as a sandbox would.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mooring_archive::{Limits, pack, unpack};
use mooring_sandbox::{
    ArchiveReader, ArchiveWriter, BoxFuture, ExecRequest, FileStat, HostWorkspace, Isolation, Process,
    SandboxError, SandboxSession, SessionState, WriteOptions,
};
use mooring_snapshot::{NewSnapshot, Snapshot, SnapshotStore};
use tokio_util::io::SyncIoBridge;

/// A directory as a session. `near`: it says where it lies.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) path: PathBuf,
    pub(crate) near: bool,
    /// A session that is asked for streams instead.
    pub(crate) of: Option<Arc<dyn SandboxSession>>,
}

fn never<T>() -> BoxFuture<'static, Result<T, SandboxError>> {
    Box::pin(async { Err(SandboxError::Invalid { reason: "a directory runs nothing".into() }) })
}

impl SandboxSession for Dir {
    fn id(&self) -> &'static str {
        "dir"
    }
    fn root(&self) -> &'static str {
        "/workspace"
    }
    fn state(&self) -> SessionState {
        SessionState { backend: "dir".into(), session_id: "dir".into(), data: serde_json::Value::Null }
    }
    fn isolation(&self) -> Option<Isolation> {
        None
    }
    fn host_workspace(&self) -> Option<HostWorkspace> {
        let (users, groups) = (BTreeMap::new(), BTreeMap::new());
        self.near.then(|| HostWorkspace {
            layers: vec![self.path.clone()],
            users,
            groups,
            mounts: Vec::new(),
        })
    }
    fn start(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        never()
    }
    fn stop(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        never()
    }
    fn spawn(&self, _: ExecRequest) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        never()
    }
    fn read<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<Bytes, SandboxError>> {
        never()
    }
    fn write<'a>(&'a self, _: &'a str, _: Bytes, _: WriteOptions) -> BoxFuture<'a, Result<(), SandboxError>> {
        never()
    }
    fn rename<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), SandboxError>> {
        never()
    }
    fn list<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        never()
    }
    fn mkdir<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        never()
    }
    fn remove<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        never()
    }
    fn stat<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<FileStat, SandboxError>> {
        never()
    }
    fn unpack<'a>(&'a self, _: &'a str, _: ArchiveReader) -> BoxFuture<'a, Result<(), SandboxError>> {
        never()
    }
    fn persist<'a>(
        &'a self,
        archive: ArchiveWriter,
        without: &'a [String],
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        if let Some(session) = &self.of {
            return session.persist(archive, without);
        }
        let path = self.path.clone();
        Box::pin(async move {
            let out = SyncIoBridge::new(archive);
            let packed = tokio::task::spawn_blocking(move || pack(&path, out, &[], &|_, _| ("", "")));
            packed.await.unwrap().map(drop).map_err(SandboxError::of_archive)
        })
    }
    fn restore(&self, archive: ArchiveReader) -> BoxFuture<'_, Result<(), SandboxError>> {
        let path = self.path.clone();
        Box::pin(async move {
            let input = SyncIoBridge::new(archive);
            let unpacked =
                tokio::task::spawn_blocking(move || unpack(&path, input, &Limits::default(), &|_, _| None));
            unpacked.await.unwrap().map(drop).map_err(SandboxError::of_archive)
        })
    }
}

/// A store and workspaces, in a directory that goes with it.
pub(crate) struct Place {
    pub(crate) home: tempfile::TempDir,
    pub(crate) store: SnapshotStore,
}

impl Place {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(&home.path().join("store")).unwrap();
        Self { home, store }
    }

    /// A workspace that this host sees.
    pub(crate) fn near(&self, name: &str) -> Dir {
        let path = self.home.path().join(name);
        fs::create_dir_all(&path).unwrap();
        Dir { path, near: true, of: None }
    }

    /// The same one, as from elsewhere.
    pub(crate) fn far(&self, name: &str) -> Dir {
        Dir { near: false, ..self.near(name) }
    }

    pub(crate) async fn take(&self, dir: &Dir, id: &str) -> Snapshot {
        let new = NewSnapshot { id: id.into(), replaces: true, manifest_digest: "m".into(), taken_ms: 1 };
        self.store.take(dir, new).await.unwrap()
    }
}

/// Everything about each path that must come back.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    look(root, root, &mut found);
    found
}

fn look(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if metadata.is_dir() {
            look(root, &path, found);
            "dir".into()
        } else if metadata.file_type().is_fifo() {
            "fifo".into()
        } else {
            let content = fs::read(&path).unwrap();
            format!("file of {} links, {} bytes, {}", metadata.nlink(), content.len(), blake3::hash(&content))
        };
        // A link's own permissions are always all.
        let mode = if metadata.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
        let time = (metadata.mtime(), metadata.mtime_nsec());
        let owner = (metadata.uid(), metadata.gid());
        found.insert(
            path.strip_prefix(root).unwrap().into(),
            format!("{content} {mode:o} {time:?} {owner:?}"),
        );
    }
}

pub(crate) fn on_disk(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}
