//! The peers: programs of others that do the same work, each in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

use crate::Error;

/// What a bench prints in a peer's place.
pub const NOT_INSTALLED: &str = "peer not installed: run benches/peers/install";

/// Runs `peers/SCRIPT ARGS…` and reads its lines. `None` where the peer is not installed.
///
/// # Errors
/// Where the script cannot be started, fails, or prints what cannot be read. Its standard error is passed on.
pub fn run<T: DeserializeOwned>(script: &str, args: &[&str]) -> Result<Option<Vec<T>>, Error> {
    let Some(python) = python() else { return Ok(None) };
    let mut command = Command::new(python);
    command.arg(folder().join("peers").join(script)).args(args);
    lines(&mut command).map(Some)
}

/// Runs a program that prints one JSON object a line.
///
/// # Errors
/// As for [`run`].
pub fn lines<T: DeserializeOwned>(command: &mut Command) -> Result<Vec<T>, Error> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{line}: {error}").into()))
        .collect()
}

/// The peers' interpreter, where `peers/install` put it.
pub fn python() -> Option<PathBuf> {
    let python = folder().parent()?.join("target/peers/venv/bin/python");
    python.exists().then_some(python)
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
