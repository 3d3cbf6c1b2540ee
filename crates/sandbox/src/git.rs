//! Repositories: cloned by the control plane with the `git` command line, because a sandbox has no network.
//!
//! The repository is not trusted: no hooks, no helpers, no protocol but the one asked for, and none of the operator's
//! configuration or credentials but the one that the manifest names. It is only read afterwards, never run.

mod ask;
mod submodules;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mooring_manifest::GitRepo;
use mooring_manifest::extension::{Depth, GitOptions};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use self::ask::Asked;
use crate::{Credential, Credentials, SandboxError};

/// How long one repository may take.
const DEADLINE: Duration = Duration::from_mins(10);

/// How much of what git says is kept.
const MAX_OUTPUT: u64 = 64 << 10;

/// How many lines of it an error shows.
const SHOWN_LINES: usize = 5;

/// What would make git work on another repository than the clone, run a program, ask somebody, or tell too much.
const UNSET: [&str; 27] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ASKPASS",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CURL_VERBOSE",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROXY_COMMAND",
    "GIT_SHALLOW_FILE",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_TEMPLATE_DIR",
    // They show what is sent.
    "GIT_TRACE",
    "GIT_TRACE2",
    "GIT_TRACE2_EVENT",
    "GIT_TRACE2_PERF",
    "GIT_TRACE_CURL",
    "GIT_TRACE_PACKET",
    "GIT_WORK_TREE",
    "SSH_ASKPASS",
];

/// Configuration for every command.
const CONFIG: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
];

/// Configuration without which git-lfs fetches files and leaves them where it fetched them to.
const LFS: [&str; 4] = [
    "filter.lfs.clean=git-lfs clean -- %f",
    "filter.lfs.smudge=git-lfs smudge -- %f",
    "filter.lfs.process=git-lfs filter-process",
    "filter.lfs.required=true",
];

/// A repository to copy.
#[derive(Debug, Clone)]
pub(crate) struct GitSource {
    url: String,
    protocol: &'static str,
    reference: String,
    /// The directory to copy; `None`: all of it.
    pub(crate) subpath: Option<String>,
    options: GitOptions,
    /// Where submodules may be.
    reach: Reach,
    /// What it is fetched with.
    credential: Option<Credential>,
    /// While it is fetched: where git asks for that.
    asked: Option<Arc<Asked>>,
}

/// What else a repository may make us read. It names its submodules itself, and is not trusted.
#[derive(Debug, Clone)]
enum Reach {
    /// Repositories of the same host.
    Host(String),
    /// Repositories below a directory of this host.
    Below(PathBuf),
}

/// A cloned repository. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Clone {
    pub(crate) directory: TempDir,
    pub(crate) commit: String,
    /// The commit's time, in seconds since the Unix epoch.
    pub(crate) time: u64,
}

impl GitSource {
    pub(crate) fn remote(repo: &GitRepo, options: GitOptions) -> Self {
        let url = format!("https://{}/{}.git", repo.host, repo.repo);
        Self::new(repo, options, url, "https", Reach::Host(format!("https://{}/", repo.host)))
    }

    /// A repository in a directory on the host, `path` below `base`.
    pub(crate) fn local(repo: &GitRepo, options: GitOptions, path: &Path, base: &Path) -> Self {
        // Git decodes a URL's path.
        let url = format!("file://{}", path.to_string_lossy().replace('%', "%25"));
        Self::new(repo, options, url, "file", Reach::Below(base.to_owned()))
    }

    fn new(repo: &GitRepo, options: GitOptions, url: String, protocol: &'static str, reach: Reach) -> Self {
        let subpath = repo.subpath.clone().filter(|subpath| !matches!(subpath.as_str(), "" | "."));
        let reference = repo.reference.clone();
        Self { url, protocol, reference, subpath, options, reach, credential: None, asked: None }
    }

    /// Whether the program that fetches files from Git LFS is needed.
    pub(crate) fn needs_lfs(&self) -> bool {
        self.options.lfs
    }

    /// Finds the credential that it is to be fetched with. The name of the secret, where there is none.
    pub(crate) fn find_credential(&mut self, known: &Credentials) -> Result<(), String> {
        let Some(name) = &self.options.credentials else { return Ok(()) };
        self.credential = Some(known.get(name).ok_or_else(|| name.clone())?.clone());
        Ok(())
    }

    /// Clones the one commit that is asked for.
    ///
    /// # Errors
    /// [`SandboxError::Stage`] with what git said.
    pub(crate) async fn bring(&self, entry: &str) -> Result<Clone, SandboxError> {
        let failed = |reason: String| SandboxError::Stage { entry: entry.to_owned(), reason };
        let directory = TempDir::new().map_err(|error| failed(format!("no temporary directory: {error}")))?;
        let asked = self.credential.as_ref().map(|credential| Asked::offer(credential, directory.path()));
        let asked =
            asked.transpose().map_err(|error| failed(format!("no place for its credential: {error}")))?;
        let source = Self { asked: asked.map(Arc::new), ..self.clone() };
        let cloning = async {
            source.fetch(directory.path()).await?;
            let work = directory.path().join(WORK);
            if self.options.submodules {
                source.submodules(&work).await?;
            }
            if self.options.lfs {
                source.lfs(&work).await?;
            }
            let show = ["show", "--no-patch", "--no-show-signature", "--format=%H %ct", "HEAD"];
            source.git(&work, &show).await
        };
        let shown = tokio::time::timeout(DEADLINE, cloning)
            .await
            .map_err(|_| failed(format!("{} took longer than {} s", self.url, DEADLINE.as_secs())))?
            .map_err(|said| {
                failed(format!("git cannot copy '{}' of {}: {said}{}", self.reference, self.url, self.hint()))
            })?;
        let odd = || failed(format!("git named no commit of {}: {shown}", self.url));
        let (commit, time) = shown.trim().split_once(' ').ok_or_else(odd)?;
        let time = time.parse().map_err(|_| odd())?;
        Ok(Clone { directory, commit: commit.to_owned(), time })
    }

    async fn fetch(&self, into: &Path) -> Result<(), String> {
        let work = into.join(WORK);
        let depth = self.depth();
        let depth = depth.as_deref();
        if self.is_commit() {
            self.git(into, &["init", "--quiet", "--template=", WORK]).await?;
            self.git(&work, &["remote", "add", "origin", &self.url]).await?;
            let fetch = ["fetch", "--quiet", "--no-tags"].into_iter().chain(depth);
            let fetch: Vec<&str> = fetch.chain(["origin", &self.reference]).collect();
            if self.git(&work, &fetch).await.is_ok() {
                self.git(&work, &["checkout", "--quiet", "--detach", "FETCH_HEAD"]).await?;
                return Ok(());
            }
            // A branch or tag may look like a commit, and some servers give out no commit by its name.
            tokio::fs::remove_dir_all(&work).await.map_err(|error| error.to_string())?;
        }
        let branch = format!("--branch={}", self.reference);
        let clone =
            ["clone", "--quiet", "--template=", "--single-branch", "--no-tags"].into_iter().chain(depth);
        let clone: Vec<&str> = clone.chain([&branch, "--", &self.url, WORK]).collect();
        self.git(into, &clone).await.map(drop)
    }

    /// The argument for how much history is fetched; `None`: all of it.
    fn depth(&self) -> Option<String> {
        match self.options.depth {
            Depth::Commits(count) => Some(format!("--depth={count}")),
            Depth::Full => None,
        }
    }

    /// Puts files in the place of what Git LFS left for them. Where they are is said by the repository's address and
    /// not by the repository, which could name any other host.
    async fn lfs(&self, work: &Path) -> Result<(), String> {
        let lfs = match self.reach {
            Reach::Host(_) => format!("lfs.url={}/info/lfs", self.url),
            Reach::Below(_) => format!("lfs.url={}", self.url),
        };
        let mut pull = vec!["-c", &lfs];
        pull.extend(LFS.iter().flat_map(|setting| ["-c", setting]));
        pull.extend(["lfs", "pull"]);
        self.git(work, &pull).await.map(drop)
    }

    fn is_commit(&self) -> bool {
        // In full, it is 40 digits long, or 64 where the repository uses SHA-256.
        matches!(self.reference.len(), 7..=40 | 64)
            && self.reference.chars().all(|char| char.is_ascii_hexdigit())
    }

    fn hint(&self) -> &'static str {
        if self.is_commit() && self.reference.len() < 40 {
            "; write all 40 digits of a commit, or a branch or tag"
        } else {
            ""
        }
    }

    /// Runs git in a directory, and returns what it printed or why it failed.
    async fn git(&self, directory: &Path, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("git");
        for name in UNSET {
            command.env_remove(name);
        }
        for setting in CONFIG {
            command.args(["-c", setting]);
        }
        if let (Some(asked), Reach::Host(host)) = (&self.asked, &self.reach) {
            command.args(["-c", &asked.setting(host)]);
        }
        command
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", self.protocol)
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            // Neither the operator's .netrc nor anything else of theirs is found there.
            .env("HOME", "/dev/null")
            .env("XDG_CONFIG_HOME", "/dev/null")
            .env("LC_ALL", "C")
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .map_err(|error| format!("the program 'git' cannot be started: {error}; install it"))?;
        let mut running = Running(child);
        let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
        let (stdout, stderr) = tokio::join!(kept(stdout), kept(stderr));
        let status = running.0.wait().await.map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(stdout);
        }
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join(" / ");
        let last = self.credential.as_ref().map_or(last.clone(), |credential| credential.scrub(&last));
        Err(if last.is_empty() { status.to_string() } else { last })
    }
}

/// The clone's name in its temporary directory.
pub(crate) const WORK: &str = "work";

/// A git that is running, and everything it started: all of it ends when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Without an id it has ended and was waited for.
        if let Some(group) = self.0.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// The first part of a stream; the rest is read and dropped, so that nobody waits for us.
async fn kept(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        // A stream that breaks ends here; the exit status says whether that matters.
        let _ = (&mut stream).take(MAX_OUTPUT).read_to_end(&mut text).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}
