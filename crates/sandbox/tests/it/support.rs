//! A session that is nothing but a directory, and a look at trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mooring_archive::{Limits, unpack};
use mooring_manifest::Manifest;
use mooring_sandbox::{
    ArchiveReader, ArchiveWriter, BoxFuture, ExecRequest, FileKind, FileStat, Isolation, NetworkSupport,
    Plan, Process, ResourceSupport, SandboxError, SandboxSession, SessionState, Support, WriteOptions,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::io::SyncIoBridge;

/// Holds a workspace in a directory, and runs nothing.
#[derive(Debug)]
pub(crate) struct DirSession {
    pub(crate) root: TempDir,
    /// What loses its mode on the way, as on a file system that keeps none.
    pub(crate) spoils: Option<&'static str>,
}

impl DirSession {
    pub(crate) fn new() -> Self {
        Self { root: TempDir::new().unwrap(), spoils: None }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }
}

fn unsupported<'a, T>(operation: &str) -> BoxFuture<'a, Result<T, SandboxError>> {
    let error = SandboxError::Unsupported {
        operation: operation.to_owned(),
        backend: "directory".to_owned(),
        reason: "it is only for tests".to_owned(),
    };
    Box::pin(async { Err(error) })
}

fn file_stat(name: &str, path: &Path) -> Result<FileStat, SandboxError> {
    let found = fs::symlink_metadata(path).map_err(|_| SandboxError::NotFound { path: name.to_owned() })?;
    Ok(FileStat {
        name: name.to_owned(),
        kind: if found.is_dir() {
            FileKind::Directory
        } else if found.is_symlink() {
            FileKind::Symlink
        } else {
            FileKind::File
        },
        size: found.len(),
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        user: String::new(),
        group: String::new(),
        modified_ns: found.mtime() * 1_000_000_000,
        target: None,
    })
}

impl SandboxSession for DirSession {
    fn id(&self) -> &'static str {
        "directory"
    }

    fn root(&self) -> &'static str {
        "/workspace"
    }

    fn state(&self) -> SessionState {
        SessionState { backend: "directory".into(), session_id: "directory".into(), data: Value::Null }
    }

    fn isolation(&self) -> Option<Isolation> {
        None
    }

    fn start(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async { Ok(()) })
    }

    fn spawn(&self, _: ExecRequest) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        unsupported("spawn")
    }

    fn read<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<Bytes, SandboxError>> {
        unsupported("read")
    }

    fn write<'a>(&'a self, _: &'a str, _: Bytes, _: WriteOptions) -> BoxFuture<'a, Result<(), SandboxError>> {
        unsupported("write")
    }

    fn rename<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), SandboxError>> {
        unsupported("rename")
    }

    fn list<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        let at = self.path().join(path);
        Box::pin(async move {
            let names =
                fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.map(|name| file_stat(&name, &at.join(&name))).collect()
        })
    }

    fn mkdir<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        unsupported("mkdir")
    }

    fn remove<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        unsupported("remove")
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileStat, SandboxError>> {
        Box::pin(async move { file_stat(path, &self.path().join(path)) })
    }

    fn unpack<'a>(
        &'a self,
        path: &'a str,
        archive: ArchiveReader,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        assert_eq!(path, self.root());
        let root = self.path().to_owned();
        Box::pin(async move {
            let archive = SyncIoBridge::new(archive);
            let unpacked =
                tokio::task::spawn_blocking(move || unpack(&root, archive, &Limits::default(), &|_, _| None));
            unpacked.await.unwrap().map_err(SandboxError::of_archive)?;
            if let Some(path) = self.spoils {
                chmod(self.path().join(path), 0o640);
            }
            Ok(())
        })
    }

    fn persist<'a>(&'a self, _: ArchiveWriter, _: &'a [String]) -> BoxFuture<'a, Result<(), SandboxError>> {
        unsupported("persist")
    }

    fn restore(&self, _: ArchiveReader) -> BoxFuture<'_, Result<(), SandboxError>> {
        unsupported("restore")
    }
}

/// A base directory with files in it.
pub(crate) fn base(files: &[(&str, &str)]) -> TempDir {
    let base = TempDir::new().unwrap();
    for (name, content) in files {
        write(base.path().join(name), content);
    }
    base
}

pub(crate) fn write(path: PathBuf, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub(crate) fn chmod(path: PathBuf, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Plans entries for a backend that has everything.
pub(crate) fn plan(entries: &Value, base: &Path) -> Result<Plan, SandboxError> {
    let everything = Support {
        mounts: true,
        users: true,
        path_grants: true,
        tty: true,
        resources: ResourceSupport::ALL,
        network: NetworkSupport::ALL,
        secrets: true,
        ports: true,
        image: true,
        setup: true,
    };
    let manifest = Manifest::from_value(&json!({
        "entries": entries, "groups": [{ "name": "devs", "users": [] }],
    }))
    .unwrap();
    Plan::new(&manifest, base, &everything, "directory")
}

pub(crate) fn refusal(entries: &Value, base: &Path) -> String {
    plan(entries, base).unwrap_err().to_string()
}

/// Every path below `root` with kind, mode and content or target; nothing of `.git`.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    look(root, root, &mut found);
    found
}

fn look(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if path.ends_with(".git") {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.mode() & 0o7777;
        let text = if metadata.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if metadata.is_dir() {
            look(root, &path, found);
            format!("dir {mode:o}")
        } else {
            format!("{mode:o} {:?}", fs::read_to_string(&path).unwrap())
        };
        found.insert(name, text);
    }
}

/// A tree as text, one line each.
pub(crate) fn listing(root: &Path) -> String {
    tree(root).iter().fold(String::new(), |text, (name, what)| text + name + ": " + what + "\n")
}
