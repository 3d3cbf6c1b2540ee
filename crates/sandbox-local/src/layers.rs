//! Forks of private workspaces without copying: layers that two sessions share.
//!
//! What a session has changed so far is frozen as a layer, and both it and its fork go on in empty layers of their own
//! above. Freezing is one exchange of two directories: the session's own goes to `STATE/layers/NAME`, and one that was
//! made ready comes in its place. So a process that is killed at any moment leaves a session that has all its files.
//! A session's layers stand in the file `layers` of its directory, the highest first; what nobody names is removed.
//!
//! A layer must never change while somebody sees it. Only a session that nothing runs in is frozen, which its locks
//! tell; one that runs is copied instead (by whoever asked, through a snapshot).

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mooring_sandbox::SandboxError;
use mooring_supervisor::LOCK;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use crate::store::{self, file};

/// The list of a session's layers, in its directory.
const LIST: &str = "layers";

/// More are copied together instead: each costs every look-up of a file, and the kernel takes no more than some.
const MAX_LAYERS: usize = 16;

/// Why a session cannot be forked without a copy.
pub(crate) type Reason = String;

fn home(state_dir: &Path) -> PathBuf {
    state_dir.join("layers")
}

/// The names of a session's layers.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, SandboxError> {
    let list = folder.join(LIST);
    match fs::read_to_string(&list) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(file("read", &list, &error)),
    }
}

/// Where the layers of a session lie.
pub(crate) fn paths(state_dir: &Path, folder: &Path) -> Result<Vec<PathBuf>, SandboxError> {
    let names = names(folder)?;
    Ok(names.iter().map(|name| home(state_dir).join(name).join("workspace")).collect())
}

/// Keeps a session's directory from being frozen, for as long as it lives. `None`: there is none.
pub(crate) fn hold(folder: &Path) -> Result<Option<File>, SandboxError> {
    loop {
        let opened = match File::open(folder) {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("open", folder, &error)),
        };
        flock(&opened, FlockOperation::LockShared).map_err(|errno| file("lock", folder, &errno.into()))?;
        // It may have been exchanged meanwhile, and the lock be that of a layer.
        let same = |now: std::io::Result<std::fs::Metadata>, then: std::io::Result<std::fs::Metadata>| {
            now.ok()
                .zip(then.ok())
                .is_some_and(|(now, then)| (now.dev(), now.ino()) == (then.dev(), then.ino()))
        };
        if same(std::fs::metadata(folder), opened.metadata()) {
            return Ok(Some(opened));
        }
    }
}

/// The locks of a session that nothing runs in, which then nothing is started in. `None`: something runs.
pub(crate) fn idle(folder: &Path) -> Result<Option<Vec<File>>, SandboxError> {
    let mut locks = Vec::new();
    for path in [folder.to_owned(), folder.join(LOCK)] {
        match File::open(&path) {
            Ok(opened) if try_lock(&opened, folder)? => locks.push(opened),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path != folder => {}
            Err(error) => return Err(file("open", &path, &error)),
        }
    }
    Ok(Some(locks))
}

/// Makes the directory of a new session that begins with all files of another one. `Err` with a reason where that
/// needs a copy.
pub(crate) fn fork(state_dir: &Path, parent: &str, child: &str) -> Result<Result<(), Reason>, SandboxError> {
    let folder = store::folder(state_dir, parent);
    let Some(_idle) = idle(&folder)? else { return Ok(Err("it is running".into())) };
    // Nothing is collected between being made and being named.
    let _collecting = collecting(state_dir, FlockOperation::LockShared)?;
    let mut layers = names(&folder)?;
    if !layers.is_empty() && is_empty(&folder.join("workspace"))? {
        // Nothing of its own yet: it may go on above what it has.
        return make(state_dir, child, &folder, &layers).map(Ok);
    }
    if layers.len() >= MAX_LAYERS {
        return Ok(Err(format!("it has {MAX_LAYERS} layers already")));
    }
    // A fork that was interrupted may have left a layer of that name, and the parent stand on it.
    let mut names = (1..).map(|number| format!("{child}.{number}"));
    let name = names.find(|name| !home(state_dir).join(name).exists()).unwrap_or_default();
    let ready = home(state_dir).join(&name);
    layers.insert(0, name);
    prepare(&ready, &folder, &layers)?;
    match renameat_with(CWD, &ready, CWD, &folder, RenameFlags::EXCHANGE) {
        Ok(()) => make(state_dir, child, &ready, &layers).map(Ok),
        Err(Errno::INVAL | Errno::NOSYS) => {
            store::remove_tree(&ready).map_err(|error| file("remove", &ready, &error))?;
            Ok(Err("its file system cannot exchange two directories".into()))
        }
        Err(errno) => Err(file("freeze", &folder, &errno.into())),
    }
}

fn make(state_dir: &Path, child: &str, like: &Path, layers: &[String]) -> Result<(), SandboxError> {
    prepare(&store::folder(state_dir, child), like, layers)
}

/// A session's directory with an empty highest layer, which looks like that of `like`.
fn prepare(folder: &Path, like: &Path, layers: &[String]) -> Result<(), SandboxError> {
    store::make_folder(folder)?;
    let prepare = || -> std::io::Result<()> {
        let (workspace, work) = (folder.join("workspace"), folder.join("work"));
        let metadata = fs::metadata(like.join("workspace"))?;
        for path in [&workspace, &work] {
            fs::create_dir_all(path)?;
            std::os::unix::fs::chown(path, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        fs::set_permissions(&workspace, std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        let list = fs::File::create(folder.join(LIST))?;
        std::io::Write::write_all(&mut &list, (layers.join("\n") + "\n").as_bytes())?;
        list.sync_all()
    };
    prepare().map_err(|error| file("prepare", folder, &error))
}

/// Makes a workspace of two layers, to find out whether one can be started. Gives its directory, and what to remove
/// afterwards.
pub(crate) fn trial(state_dir: &Path, child: &str) -> Result<(PathBuf, [PathBuf; 2]), SandboxError> {
    let (lower, top) =
        (home(state_dir).join(format!("trial-{child}")), home(state_dir).join(format!("trial-{child}-top")));
    fs::create_dir_all(lower.join("workspace")).map_err(|error| file("create", &lower, &error))?;
    prepare(&top, &lower, &[format!("trial-{child}")])?;
    Ok((top.clone(), [top, lower]))
}

/// Where it is remembered that layers work on this kernel.
pub(crate) fn known_to_work(state_dir: &Path) -> PathBuf {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    home(state_dir).join(format!("works-on-{release}"))
}

/// Removes the layers that no session names. Blocks.
pub(crate) fn collect(state_dir: &Path) -> Result<u64, SandboxError> {
    let home = home(state_dir);
    if !home.is_dir() {
        return Ok(0);
    }
    let _collecting = collecting(state_dir, FlockOperation::LockExclusive)?;
    let list = |path: &Path| -> Result<Vec<PathBuf>, SandboxError> {
        let entries = fs::read_dir(path).map_err(|error| file("list", path, &error))?;
        let entries = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>();
        entries.map_err(|error| file("list", path, &error))
    };
    let mut named = HashSet::new();
    for session in list(&state_dir.join("sandboxes"))? {
        named.extend(names(&session)?);
    }
    let mut removed = 0;
    for layer in list(&home)? {
        let name = layer.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if layer.is_dir() && !named.contains(&name) {
            store::remove_tree(&layer).map_err(|error| file("remove", &layer, &error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn collecting(state_dir: &Path, how: FlockOperation) -> Result<File, SandboxError> {
    let home = home(state_dir);
    let open = || -> std::io::Result<File> {
        fs::create_dir_all(&home)?;
        let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(home.join("lock"))?;
        flock(&lock, how)?;
        Ok(lock.into_parts().0)
    };
    open().map_err(|error| file("lock", &home, &error))
}

fn try_lock(opened: &File, folder: &Path) -> Result<bool, SandboxError> {
    match flock(opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(file("lock", folder, &errno.into())),
    }
}

fn is_empty(path: &Path) -> Result<bool, SandboxError> {
    let mut entries = fs::read_dir(path).map_err(|error| file("list", path, &error))?;
    Ok(entries.next().is_none())
}
