//! A plan: a manifest that a backend can have, with everything refused that can be refused before anything starts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mooring_manifest::extension::{GitOptions, SetupCommand};
use mooring_manifest::{EntryKind, GitRepo, Located, Manifest, ManifestError, RelPath};

use crate::git::GitSource;
use crate::source::{Base, Fault, Links, Named, visit};
use crate::support::check_support;
use crate::{Credentials, SandboxError, Support};

/// A manifest, checked against a backend and the host it takes files from.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) steps: Arc<Vec<Step>>,
    pub(crate) base: Option<Base>,
    pub(crate) named: Arc<Named>,
    /// The paths of the entries that no other entry is around.
    pub(crate) top: Vec<String>,
    /// What runs once everything is there.
    pub(crate) setup: Arc<Vec<SetupCommand>>,
}

/// One entry to stage.
#[derive(Debug)]
pub(crate) struct Step {
    /// Below the root.
    pub(crate) path: PathBuf,
    /// Permission bits of the entry itself.
    pub(crate) mode: u32,
    /// Group of the entry itself; empty for none.
    pub(crate) group: String,
    pub(crate) content: Content,
}

/// Where an entry's content comes from.
#[derive(Debug)]
pub(crate) enum Content {
    /// A directory; what is in it are steps of their own.
    Directory,
    Text(String),
    /// A file below the base.
    File(PathBuf),
    /// A directory below the base.
    Tree(PathBuf),
    Git(GitSource),
}

impl Plan {
    /// Plans a manifest for a backend. Sources on the host are looked up below `base`, and every file of them is
    /// opened, so that what cannot be copied is known now; this blocks.
    ///
    /// An entry wins over what a source around it brings at the same path, and a `dir` takes in what it brings.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] with all problems of the manifest; [`SandboxError::Unsupported`] for what the
    /// backend lacks; [`SandboxError::Stage`] for a source that is missing, outside of `base`, or holds sockets,
    /// FIFOs, devices or links that leave it.
    pub fn new(
        manifest: &Manifest,
        base: &Path,
        support: &Support,
        backend: &str,
    ) -> Result<Self, SandboxError> {
        Self::with_credentials(manifest, base, support, backend, &Credentials::new())
    }

    /// The same with what its private repositories are fetched with, which is used by materialisation alone.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn with_credentials(
        manifest: &Manifest,
        base: &Path,
        support: &Support,
        backend: &str,
        credentials: &Credentials,
    ) -> Result<Self, SandboxError> {
        manifest.validate().map_err(|problems| SandboxError::Invalid {
            reason: ManifestError::Invalid(problems).to_string(),
        })?;
        check_support(manifest, support, backend)?;
        let mut sources = Sources { path: base, opened: None };
        let options = git_options(manifest);
        let (mut steps, mut named) = (Vec::new(), Named::default());
        for located in manifest.located() {
            let Located { path: Some(path), entry, .. } = located else { continue };
            // It is there when the sandbox is up, and nothing is ever written into it.
            if matches!(entry.kind, EntryKind::Mount(_)) {
                named.add(path.as_ref(), false);
                continue;
            }
            let content = sources.content(&entry.kind, options.get(&path).copied());
            let mut content = content.map_err(|fault| stage(path.as_str(), &fault))?;
            check_git(&mut content, path.as_str(), backend, credentials)?;
            named.add(path.as_ref(), matches!(entry.kind, EntryKind::Dir(_)));
            steps.push(Step {
                path: PathBuf::from(path.as_str()),
                mode: entry.permissions.mode(),
                group: entry.group.as_ref().map(|group| group.name().to_owned()).unwrap_or_default(),
                content,
            });
        }
        let top = steps.iter().filter(|step| !named.is_around(&step.path));
        let top = top.map(|step| step.path.to_string_lossy().into_owned()).collect();
        let setup = Arc::new(manifest.extension.setup.clone());
        let plan = Self { steps: Arc::new(steps), base: sources.opened, named: Arc::new(named), top, setup };
        plan.check_trees()?;
        Ok(plan)
    }

    /// Makes sure that staging into a directory of this host would overwrite nothing: staging replaces files and
    /// merges directories.
    ///
    /// # Errors
    /// [`SandboxError::AlreadyExists`] with the first entry whose path is taken.
    pub fn refuse_conflicts(&self, directory: &Path) -> Result<(), SandboxError> {
        for entry in &self.top {
            let path = directory.join(entry);
            if path.symlink_metadata().is_ok() {
                return Err(SandboxError::AlreadyExists {
                    path: format!(
                        "{} (the manifest's entry '{entry}' would overwrite it: name another directory, or move it \
                         away)",
                        path.display()
                    ),
                });
            }
        }
        Ok(())
    }

    /// Goes through all trees once, which needs all entries to be known.
    fn check_trees(&self) -> Result<(), SandboxError> {
        let Some(base) = &self.base else { return Ok(()) };
        for step in self.steps.iter() {
            if let Content::Tree(below) = &step.content {
                base.directory(below)
                    .and_then(|tree| {
                        visit(&tree, below, &step.path, Links::Inside, &self.named, &mut |_, node| {
                            if node.kind == mooring_archive::Kind::File {
                                node.open()?;
                            }
                            Ok(())
                        })
                    })
                    .map_err(|fault| stage(&step.path.to_string_lossy(), &fault))?;
            }
        }
        Ok(())
    }
}

/// The base directory, opened once a manifest has something to look up there.
struct Sources<'a> {
    path: &'a Path,
    opened: Option<Base>,
}

impl Sources<'_> {
    fn content(&mut self, kind: &EntryKind, options: Option<&GitOptions>) -> Result<Content, Fault> {
        Ok(match kind {
            EntryKind::File(file) => Content::Text(file.content.clone()),
            EntryKind::LocalFile(file) => {
                let base = self.base()?;
                let below = base.locate(Path::new(&file.src))?;
                base.file(&below)?;
                Content::File(below)
            }
            EntryKind::LocalDir(dir) => match &dir.src {
                None => Content::Directory,
                Some(src) => {
                    let base = self.base()?;
                    let below = base.locate(Path::new(src))?;
                    base.directory(&below)?;
                    Content::Tree(below)
                }
            },
            EntryKind::GitRepo(repo) => Content::Git(self.git(repo, options.cloned().unwrap_or_default())?),
            EntryKind::Dir(_) | EntryKind::Mount(_) => Content::Directory,
        })
    }

    fn git(&mut self, repo: &GitRepo, options: GitOptions) -> Result<GitSource, Fault> {
        let Some(directory) = repo.host.strip_prefix("file://") else {
            return Ok(GitSource::remote(repo, options));
        };
        let base = self.base()?;
        let below = base.locate(Path::new(directory))?;
        let bare = below.join(format!("{}.git", repo.repo));
        let found = base.directory(&bare).map(|_| bare).or_else(|_| {
            let plain = below.join(&repo.repo);
            base.directory(&plain).map(|_| plain)
        })?;
        Ok(GitSource::local(repo, options, &base.real.join(found), &base.real))
    }

    fn base(&mut self) -> Result<&Base, Fault> {
        match self.opened {
            Some(ref base) => Ok(base),
            None => Ok(self.opened.insert(Base::open(self.path)?)),
        }
    }
}

/// How the manifest's repositories are fetched, by the paths of their entries.
fn git_options(manifest: &Manifest) -> HashMap<RelPath, &GitOptions> {
    let options = manifest.extension.git.iter();
    options.filter_map(|(path, options)| Some((RelPath::parse(path).ok()?, options))).collect()
}

/// What fetching a repository needs on this host.
fn check_git(
    content: &mut Content,
    entry: &str,
    backend: &str,
    credentials: &Credentials,
) -> Result<(), SandboxError> {
    let lacks = |what: &str, reason: &str| SandboxError::Unsupported {
        operation: format!("git {what} of entry '{entry}'"),
        backend: backend.to_owned(),
        reason: reason.to_owned(),
    };
    let Content::Git(source) = content else { return Ok(()) };
    if let Err(name) = source.find_credential(credentials) {
        let reason = "no secret of that name is configured on this machine; configure it (`moor` takes MOOR_SECRET_NAME, or [secrets] of \
             config.toml), or remove the credentials";
        return Err(lacks(&format!("credentials '{name}'"), reason));
    }
    let installed = || {
        std::process::Command::new("git-lfs").arg("version").output().is_ok_and(|ran| ran.status.success())
    };
    if source.needs_lfs() && !installed() {
        return Err(lacks("lfs", "the program 'git-lfs' is not installed on this host; install it"));
    }
    Ok(())
}

pub(crate) fn stage(entry: &str, fault: &Fault) -> SandboxError {
    SandboxError::Stage { entry: entry.to_owned(), reason: fault.to_string() }
}
