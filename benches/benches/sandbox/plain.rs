//! The floor: the same work without a sandbox, in namespaces alone, and with bubblewrap.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use mooring_benches::Error;

/// Starts a program and waits for its end, with its output read from pipes, as ours is. Milliseconds.
pub(crate) fn run(argv: &[&str]) -> Result<f64, Error> {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]);
    timed(&mut command)
}

/// Runs `true` in new namespaces and nothing else: the least that any isolation costs. Milliseconds.
pub(crate) fn namespaces() -> Result<f64, Error> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"]);
    command.args(["--fork", "--mount-proc", "/bin/true"]);
    timed(&mut command)
}

/// Where bubblewrap is.
pub(crate) fn bwrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("bwrap")).find(|file| file.exists())
}

/// Runs `true` in new namespaces of every kind, with the host's programs and one writable directory. Milliseconds.
pub(crate) fn wrapped(bwrap: &Path, workspace: &Path) -> Result<f64, Error> {
    let mut command = Command::new(bwrap);
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]);
    command.args(["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc"]);
    for name in ["bin", "lib", "lib64", "sbin"] {
        let target = format!("usr/{name}");
        if Path::new("/").join(&target).exists() {
            command.args(["--symlink", &target, &format!("/{name}")]);
        }
    }
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind"]);
    command.arg(workspace).args(["/workspace", "--chdir", "/workspace", "/bin/true"]);
    timed(&mut command)
}

/// Writes 1,000 files with their modes. Milliseconds.
pub(crate) fn write(
    folder: &Path,
    name: fn(usize) -> String,
    content: fn(usize) -> String,
) -> Result<f64, Error> {
    fs_err::create_dir(folder)?;
    let began = Instant::now();
    for index in 0..1_000 {
        let path = folder.join(name(index));
        fs_err::write(&path, content(index))?;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn timed(command: &mut Command) -> Result<f64, Error> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} ended with {}: {text}", output.status).into());
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
