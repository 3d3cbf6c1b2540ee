//! A test program's own tests once more, as somebody without rights.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

/// A number that no account of the machine has.
const USER: &str = "54321";

/// Runs the tests of the running program again as an ordinary user, with these arguments and variables; gives what
/// they told. Needs root.
///
/// # Panics
/// Where one of them fails.
#[expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
pub fn tests_as_ordinary_user(args: &[&str], variables: &[(&str, &str)]) -> String {
    // Root's own directories are closed to that user.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    let program = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let run = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"])
        .arg(&program)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", folder.path())
        .env("RUST_BACKTRACE", "1")
        .envs(variables.iter().copied())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "as user {USER}:\n{told}");
    told
}
