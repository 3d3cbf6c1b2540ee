//! Starts `moor` with a home of its own and an environment that holds nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A user's home, and the program.
pub(crate) struct Moor {
    pub(crate) dir: TempDir,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Standard output as JSON lines.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The last event.
    pub(crate) fn last(&self) -> Value {
        self.json().pop().unwrap_or_else(|| panic!("no output; stderr: {}", self.err))
    }

    /// The run's id.
    pub(crate) fn run(&self) -> String {
        self.json()[0]["run"].as_str().unwrap().to_owned()
    }
}

impl Moor {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A file of this user's.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    /// `moor` with arguments, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moor"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("MOOR_HOME", self.home())
            .stdin(Stdio::null());
        command
    }

    /// Runs `moor` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// The lines of the journal's events of a run.
    pub(crate) fn events(&self, run: &str) -> Vec<Value> {
        self.run(&["events", run, "--json"]).json()
    }
}

/// The repository's root.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// A script's line: the model says something and runs shell commands.
pub(crate) fn exec(turn: usize, commands: &[&str]) -> String {
    let call = |(n, command): (usize, &&str)| {
        json!({
            "type": "function_call",
            "call_id": format!("call_{turn}_{n}"),
            "name": "exec_command",
            "arguments": json!({"cmd": command}).to_string(),
        })
    };
    format!("{}\n", commands.iter().enumerate().map(call).collect::<Value>())
}

/// A script's last line.
pub(crate) fn say(text: &str) -> String {
    let message =
        json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]});
    format!("{}\n", json!([message]))
}
