//! What a supervisor is told at its start, and what it says when it is ready.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::wire::Failure;

/// The first frame to the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The protocol's generation, [`crate::wire::GENERATION`]. Another one is refused.
    pub generation: u32,
    /// What to do.
    pub task: Task,
}

/// What a supervisor is started for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Set up a sandbox and serve in it.
    Start(Box<Setup>),
    /// Remove a directory that several users of an ordinary caller's sandboxes wrote in.
    Discard {
        /// The directory.
        folder: PathBuf,
    },
    /// Find out what this host can isolate.
    Probe {
        /// Where workspaces would lie.
        state_dir: PathBuf,
    },
}

/// The first frame from the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hello {
    /// The sandbox is up.
    Ready(Ready),
    /// It cannot be had. The supervisor ends.
    Failed(Failure),
    /// What this host can isolate. The supervisor ends.
    Checks(Vec<Check>),
    /// It is done. The supervisor ends.
    Done,
}

/// A running sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The protocol's generation.
    pub generation: u32,
    /// Each mechanism of isolation and its state.
    pub mechanisms: BTreeMap<String, String>,
    /// The upper bounds that it was started with.
    pub limits: Limits,
}

/// How far a sandbox is kept apart from its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Namespaces, seccomp, no capabilities, no network.
    Namespaces,
    /// By a container engine, in whose container the supervisor is the first process. What it adds is that commands
    /// have no rights, and its own list of system calls.
    Container,
    /// Not at all: commands run as the caller, on the host. Only for what is trusted.
    None,
}

/// Upper bounds on what one sandbox may use, all its processes together. `None`: not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processors; `0.5` is half of one.
    pub cpus: Option<f64>,
    /// What its workspace may hold, in bytes.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// How long it may run after a start, in milliseconds.
    #[serde(default)]
    pub wall_clock_ms: Option<u64>,
}

/// A sandbox to set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The session's id: letters, digits, `-` and `_`.
    pub session: String,
    /// How far to isolate.
    pub level: Level,
    /// The workspace's directory on the host, absolute and without links.
    pub workspace: PathBuf,
    /// Layers below it, the highest first, none of which is ever written to: then the workspace is an overlay, what is
    /// changed is kept in `workspace`, and the kernel works in a directory `work` beside that.
    #[serde(default)]
    pub layers: Vec<PathBuf>,
    /// Whether the directory is the sandbox's own, so that its owner may be changed.
    pub private: bool,
    /// Where the workspace appears inside.
    pub root: String,
    /// Users beside the default one, in order.
    pub users: Vec<String>,
    /// Groups and their members, in order.
    pub groups: Vec<(String, Vec<String>)>,
    /// Variables that every command gets.
    pub environment: BTreeMap<String, String>,
    /// Directories of the host that it sees as well; none lies in another.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// Upper bounds.
    pub limits: Limits,
    /// How it lives on without a client. `None`: it ends with the client that started it.
    pub linger: Option<Linger>,
    /// What is mounted in the workspace and served by the client. Their devices come out of standard output, which is
    /// then a socket, in this order.
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
}

/// A directory of the host that a sandbox sees beside its workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The directory, absolute and without links.
    pub source: PathBuf,
    /// Where it appears inside; [`crate::root_allowed`] says where that may be.
    pub path: String,
    /// Whether commands may change what is there.
    pub writable: bool,
}

/// A place in the workspace where the client serves files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Where, relative to the root.
    pub path: String,
    /// Whether nothing may be written there.
    pub read_only: bool,
}

/// How a sandbox lives on between clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linger {
    /// The session's directory on the host, for [`crate::DOOR`] and [`crate::LOCK`]. Who can enter it can use the
    /// sandbox.
    pub folder: PathBuf,
    /// How long it waits for the next client after the last has left, in milliseconds.
    pub grace_ms: u64,
}

/// One thing that a sandbox needs from the host, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at: `user namespace`, `cgroup memory`, ….
    pub name: String,
    /// Whether it can be used.
    pub ok: bool,
    /// What was found, or what the kernel said.
    pub detail: String,
    /// What to do where it is missing; empty where it is there.
    pub hint: String,
}
