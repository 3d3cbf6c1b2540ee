//! The engine of the tests, and an image on it.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::query_parameters::CreateImageOptions;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::TryStreamExt as _;
use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, ExecResult, Outcome, SandboxClient as _, SandboxSession};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient};
use rustix::fs::FlockOperation;
use tempfile::TempDir;

pub(crate) const VARIABLE: &str = "MOORING_TEST_DOCKER";

/// An image of busybox and nothing else: no libc, no loader, no bash.
pub(crate) const IMAGE: &str = "mooring-test/busybox:1";

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The engine's socket. `None`: whoever runs the tests has no engine, and said so.
pub(crate) fn socket() -> Option<PathBuf> {
    static SOCKET: OnceLock<Option<(PathBuf, Option<File>)>> = OnceLock::new();
    let found = SOCKET.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(none) if none == "none" => None,
        Ok(named) => Some((named.strip_prefix("unix://").unwrap().into(), None)),
        Err(_) => Some(start()),
    });
    found.as_ref().map(|(socket, _)| socket.clone())
}

/// Starts the tests' own engine, unless it runs, and keeps it running for as long as the file is open.
fn start() -> (PathBuf, Option<File>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // The engine's own sockets are below it, and their paths must be short.
    let number = root
        .canonicalize()
        .unwrap()
        .display()
        .to_string()
        .bytes()
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let folder = PathBuf::from(format!("/tmp/mooring-test-docker-{number:08x}"));
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("in-use")).unwrap();
    rustix::fs::flock(lock.as_fd(), FlockOperation::LockShared).unwrap();
    let started = Command::new(root.join("scripts/docker-engine")).arg(&folder).output().unwrap();
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(started.status.success(), "no engine for the tests: {said}\n{VARIABLE}=none leaves them out");
    (folder.join("docker.sock"), Some(lock))
}

pub(crate) async fn docker(socket: &Path) -> Docker {
    let docker = Docker::connect_with_unix(socket.to_str().unwrap(), 60, API_DEFAULT_VERSION).unwrap();
    docker.negotiate_version().await.unwrap()
}

/// Makes sure that the engine has [`IMAGE`].
pub(crate) async fn make_image(docker: &Docker) {
    if docker.inspect_image(IMAGE).await.is_ok() {
        return;
    }
    let busybox =
        std::fs::read("/bin/busybox").expect("the package busybox-static; run scripts/setup --tests");
    let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |kind, path: &str, mode, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            archive.append_data(&mut header, path, content).unwrap();
        } else {
            archive.append_link(&mut header, path, link).unwrap();
        }
    };
    for folder in ["bin", "dev", "etc", "home", "proc", "srv", "sys", "usr", "usr/bin", "var"] {
        add(tar::EntryType::Directory, folder, 0o755, "", b"");
    }
    add(tar::EntryType::Directory, "root", 0o700, "", b"");
    add(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox);
    for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
        add(tar::EntryType::Symlink, &format!("bin/{applet}"), 0o777, "busybox", b"");
    }
    let archive = archive.into_inner().unwrap();
    let (repo, tag) = IMAGE.split_once(':').unwrap();
    let options = CreateImageOptions {
        from_src: Some("-".into()),
        repo: Some(repo.into()),
        tag: Some(tag.into()),
        changes: vec!["ENV FROM_IMAGE=yes LD_PRELOAD=/nowhere.so".into()],
        ..CreateImageOptions::default()
    };
    let body = bollard::body_full(archive.into());
    docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
}

/// A client with a state directory of its own.
pub(crate) struct Bench {
    pub(crate) client: DockerSandboxClient,
    pub(crate) docker: Docker,
    pub(crate) state: TempDir,
}

impl Bench {
    /// `None`: there is no engine, and that is said.
    pub(crate) async fn new(change: impl FnOnce(&mut DockerOptions)) -> Option<Self> {
        let Some(socket) = socket() else {
            eprintln!("left out: {VARIABLE}=none");
            return None;
        };
        let docker = docker(&socket).await;
        make_image(&docker).await;
        let state = tempfile::tempdir().unwrap();
        let mut options = DockerOptions::new(&socket, state.path());
        options.image = Some(IMAGE.into());
        change(&mut options);
        Some(Self { client: DockerSandboxClient::new(options), docker, state })
    }

    /// A session, started.
    pub(crate) async fn start(&self, request: CreateRequest) -> Arc<dyn SandboxSession> {
        let session = self.client.create(request).await.unwrap();
        session.start().await.unwrap();
        session
    }

    /// How many containers there are of this session.
    pub(crate) async fn containers(&self, session: &str) -> usize {
        let filters = [("label".to_owned(), vec![format!("dev.mooring.session={session}")])].into();
        let options = bollard::query_parameters::ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..Default::default()
        };
        self.docker.list_containers(Some(options)).await.unwrap().len()
    }
}

pub(crate) fn request() -> CreateRequest {
    use std::hash::{BuildHasher as _, RandomState};
    let number = RandomState::new().hash_one(std::process::id());
    CreateRequest { session_id: format!("t{number:016x}"), manifest: Manifest::default(), workspace: None }
}

pub(crate) async fn sh(session: &dyn SandboxSession, line: &str) -> ExecResult {
    session.exec(ExecRequest::shell(line).timeout(SOON)).await.unwrap()
}

/// A line's output, which must succeed and say nothing on standard error.
pub(crate) async fn out(session: &dyn SandboxSession, line: &str) -> String {
    let result = sh(session, line).await;
    assert_eq!((result.outcome, result.stderr.text().as_str()), (Outcome::Exited { code: 0 }, ""), "{line}");
    result.stdout.text()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
