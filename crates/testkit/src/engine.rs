//! A real Docker engine: the tests' own, started by whichever test needs it first and ended after the last. Only root can
//! start one; anybody else names one that runs, or goes without.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::FlockOperation;

/// The variable that names another engine, as `unix:///run/docker.sock`, or is `none`. Where it is not set, root starts
/// one, and nobody else has one.
pub const DOCKER: &str = "MOORING_TEST_DOCKER";

/// An image on the engine: busybox and nothing else.
pub const IMAGE: &str = "mooring-test/busybox:1";

/// An image on the engine: busybox, and this machine's Python with its libraries.
pub const PYTHON: &str = "mooring-test/python:1";

/// The engine's socket, with [`IMAGE`] on the engine. `None`: whoever runs the tests has no engine, and said so; the
/// test says that it is left out.
///
/// # Panics
/// Where no engine can be started.
pub fn docker() -> Option<PathBuf> {
    // The lock keeps the engine running for as long as this process does.
    static ENGINE: OnceLock<Option<(PathBuf, Option<File>)>> = OnceLock::new();
    let found = ENGINE.get_or_init(|| {
        let found = match std::env::var(DOCKER) {
            Ok(none) if none == "none" => return say("=none"),
            Ok(named) => (PathBuf::from(named.trim_start_matches("unix://")), None),
            Err(_) if rustix::process::geteuid().is_root() => start(),
            Err(_) => return say(" is not set, and only root can start an engine"),
        };
        script(&["image".as_ref(), &found.0]);
        Some(found)
    });
    found.as_ref().map(|(socket, _)| socket.clone())
}

#[expect(clippy::print_stderr, reason = "a test says so on standard error")]
fn say<T>(why: &str) -> Option<T> {
    eprintln!("left out: {DOCKER}{why}");
    None
}

fn start() -> (PathBuf, Option<File>) {
    // The engine's own sockets are below it, and their paths must be short.
    let number = root()
        .display()
        .to_string()
        .bytes()
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let folder = PathBuf::from(format!("/tmp/mooring-test-docker-{number:08x}"));
    let lock = std::fs::create_dir_all(&folder).and_then(|()| File::create(folder.join("in-use")));
    let lock = lock.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    rustix::fs::flock(lock.as_fd(), FlockOperation::LockShared)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    script(&["start".as_ref(), &folder]);
    (folder.join("docker.sock"), Some(lock))
}

fn script(arguments: &[&Path]) {
    let ran = Command::new(root().join("scripts/docker-engine")).args(arguments).output();
    let ran = ran.unwrap_or_else(|error| panic!("scripts/docker-engine: {error}"));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "no engine for the tests: {said}\n{DOCKER}=unix:///… names one that runs, {DOCKER}=none leaves these tests out"
    );
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.canonicalize().unwrap_or(here)
}
