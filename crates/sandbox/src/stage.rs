//! A plan as a tar stream, made while it is read: memory is bounded, whatever the workspace's size.

use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mooring_archive::{ArchiveError, Kind, Meta, Writer};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use crate::git::{Clone, WORK};
use crate::plan::{Content, Plan, Step, stage};
use crate::source::{Fault, Links, open_beneath, visit};
use crate::{Materialised, SandboxError};

/// The time of what has none of its own: the first that every archive format can hold. The same manifest gives the
/// same bytes.
const NO_TIME: u64 = 315_532_800;

/// The digest of what each entry brought, by its path.
pub(crate) type Entries = BTreeMap<String, String>;

/// Why staging ended early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Whoever read the stream stopped.
    Unread,
    /// It failed by itself.
    Failed(SandboxError),
}

/// Writes the plan's archive. `clones` are the repositories of its steps, in their order; without them, the steps that
/// are repositories are left out.
pub(crate) fn produce(
    plan: &Plan,
    clones: Option<&[Clone]>,
    out: impl Write,
) -> Result<(Materialised, Entries), Halt> {
    let mut stager = Stager {
        plan,
        writer: Writer::new(BufWriter::with_capacity(128 << 10, out)),
        digests: BTreeMap::new(),
        commits: BTreeMap::new(),
        own: Sha256::new(),
    };
    let mut entries = Entries::new();
    let mut cloned = clones.unwrap_or_default().iter();
    for step in plan.steps.iter() {
        if clones.is_none() && matches!(step.content, Content::Git(_)) {
            continue;
        }
        stager.step(step, &mut cloned).map_err(|fault| halt(step, fault))?;
        let own = std::mem::take(&mut stager.own).finalize();
        entries.insert(step.path.to_string_lossy().into_owned(), hex(&own));
    }
    let digest = stager.digest();
    let stats = stager.writer.finish().map_err(|error| match error {
        ArchiveError::Stream { .. } => Halt::Unread,
        error => Halt::Failed(SandboxError::of_archive(error)),
    })?;
    let commits = stager.commits;
    let staged = Materialised { files: stats.files, bytes: stats.bytes, digest, commits, setup: None };
    Ok((staged, entries))
}

/// Reads what would be staged, and keeps its digests alone.
pub(crate) fn survey(plan: &Plan, clones: Option<&[Clone]>) -> Result<(Materialised, Entries), SandboxError> {
    produce(plan, clones, std::io::sink()).map_err(|halt| match halt {
        Halt::Failed(error) => error,
        Halt::Unread => SandboxError::Invalid { reason: "staging was interrupted".to_owned() },
    })
}

fn halt(step: &Step, fault: Fault) -> Halt {
    match fault {
        Fault::Archive(ArchiveError::Stream { .. }) => Halt::Unread,
        fault => Halt::Failed(stage(&step.path.to_string_lossy(), &fault)),
    }
}

struct Stager<'a, W: Write> {
    plan: &'a Plan,
    writer: Writer<W>,
    /// What the digest is made of, by path.
    digests: BTreeMap<Vec<u8>, String>,
    commits: BTreeMap<String, String>,
    /// The digest of the step that is being made.
    own: Sha256,
}

impl<W: Write> Stager<'_, W> {
    fn step<'c>(&mut self, step: &Step, clones: &mut impl Iterator<Item = &'c Clone>) -> Result<(), Fault> {
        let meta = Meta { mode: step.mode, mtime: NO_TIME, group: &step.group, ..Meta::default() };
        match &step.content {
            Content::Directory => self.directory(&step.path, meta),
            Content::Text(text) => self.file(&step.path, meta, text.len() as u64, &mut text.as_bytes(), true),
            Content::File(below) => {
                let mut file = self.base()?.file(below)?;
                let found = file.metadata().map_err(|error| Fault::Refused(error.to_string()))?;
                let meta = Meta { mtime: mtime(&found), ..meta };
                self.file(&step.path, meta, found.len(), &mut file, true)
            }
            Content::Tree(below) => {
                let tree = self.base()?.directory(below)?;
                self.directory(&step.path, meta)?;
                self.tree(&tree, below, &step.path, Links::Inside, None)
            }
            Content::Git(source) => {
                let clone = clones.next().ok_or_else(|| Fault::Refused("it was not cloned".to_owned()))?;
                let tree = open_clone(clone, source.subpath.as_deref())?;
                self.directory(&step.path, Meta { mtime: clone.time, ..meta })?;
                self.tree(&tree, Path::new(""), &step.path, Links::All, Some(clone.time))?;
                self.commits.insert(step.path.to_string_lossy().into_owned(), clone.commit.clone());
                Ok(())
            }
        }
    }

    fn base(&self) -> Result<&crate::source::Base, Fault> {
        self.plan.base.as_ref().ok_or_else(|| Fault::Refused("the plan has no base directory".to_owned()))
    }

    /// Copies a tree; `time` replaces its files' own times.
    fn tree(
        &mut self,
        tree: &OwnedFd,
        source: &Path,
        at: &Path,
        links: Links,
        time: Option<u64>,
    ) -> Result<(), Fault> {
        let plan = self.plan;
        visit(tree, source, at, links, &plan.named, &mut |path, node| {
            // Git's own files hold times and addresses that differ between two clones of one commit.
            let counts = time.is_none() || !node.path.starts_with(".git");
            let meta = Meta { mode: node.mode & 0o777, mtime: time.unwrap_or(node.mtime), ..Meta::default() };
            match &node.kind {
                Kind::Directory => {
                    self.writer.directory(path, meta)?;
                    self.count(counts, path, || format!("dir {:o}", meta.mode));
                }
                Kind::Symlink(target) => {
                    self.writer.symlink(path, meta, target)?;
                    self.count(counts, path, || {
                        format!("link {}", hex(&Sha256::digest(target.as_os_str().as_bytes())))
                    });
                }
                Kind::File => self.file(path, meta, node.size, &mut node.open()?, counts)?,
                Kind::Fifo | Kind::Other => {}
            }
            Ok(())
        })
    }

    fn directory(&mut self, path: &Path, meta: Meta<'_>) -> Result<(), Fault> {
        self.writer.directory(path, meta)?;
        self.count(true, path, || format!("dir {:o}", meta.mode));
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        meta: Meta<'_>,
        size: u64,
        content: &mut dyn Read,
        counts: bool,
    ) -> Result<(), Fault> {
        let mut hashed = Hashed { content, hash: Sha256::new() };
        self.writer.file(path, meta, size, &mut hashed)?;
        let hash = hashed.hash.finalize();
        self.count(counts, path, || format!("file {:o} {}", meta.mode, hex(&hash)));
        Ok(())
    }

    fn count(&mut self, counts: bool, path: &Path, what: impl FnOnce() -> String) {
        if counts {
            let (path, what) = (path.as_os_str().as_bytes(), what());
            hash_line(&mut self.own, path, &what);
            self.digests.insert(path.to_owned(), what);
        }
    }

    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, what) in &self.digests {
            hash_line(&mut hash, path, what);
        }
        hex(&hash.finalize())
    }
}

fn hash_line(hash: &mut Sha256, path: &[u8], what: &str) {
    hash.update(path);
    hash.update([0]);
    hash.update(what);
    hash.update([0]);
}

/// What of a clone is copied.
fn open_clone(clone: &Clone, subpath: Option<&str>) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let work = rustix::fs::open(clone.directory.path().join(WORK), flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Fault::Refused(format!("the clone cannot be opened: {error}")))?;
    match subpath {
        None => Ok(work),
        Some(subpath) => open_beneath(&work, Path::new(subpath), flags)
            .map_err(|fault| Fault::Refused(format!("in the repository, {fault}"))),
    }
}

struct Hashed<'a> {
    content: &'a mut dyn Read,
    hash: Sha256,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    })
}

fn mtime(metadata: &std::fs::Metadata) -> u64 {
    u64::try_from(std::os::unix::fs::MetadataExt::mtime(metadata)).unwrap_or(0)
}
