//! All other tests once more, as somebody without rights but to the engine's socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::engine::{DOCKER, docker, is_root};

/// A number that no account of the machine has.
const USER: &str = "54321";

#[test]
fn everything_holds_for_an_ordinary_user_too() {
    let Some(socket) = docker().filter(|_| is_root()) else { return };
    // Root's own directories are closed to that user.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    let program = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let run = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"])
        .arg(&program)
        // What is tried from inside does not depend on who is outside.
        .args(["--test-threads", "3", "--skip", "escape::"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", folder.path())
        .env(DOCKER, format!("unix://{}", socket.display()))
        .env("RUST_BACKTRACE", "1")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "as user {USER}:\n{told}");
    assert!(told.contains("conformance::"), "the tests did run:\n{told}");
}
