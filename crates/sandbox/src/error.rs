//! What can go wrong in the compute plane, the same on every backend.

/// An error of a sandbox. Every message says what failed, on what, why, and the next step where there is one.
///
/// A command that fails is not an error: see [`crate::Outcome`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The backend cannot do or enforce what was asked. Known before anything starts.
    #[error("not supported: {operation} on the {backend} sandbox: {reason}")]
    Unsupported {
        /// What was asked for, in the words of the manifest or the call.
        operation: String,
        /// The backend's id.
        backend: String,
        /// Why, and what to do instead.
        reason: String,
    },
    /// The host cannot isolate as asked: a kernel primitive is missing or refused. Nothing was started.
    #[error("cannot isolate: {primitive} is not available: {reason}. {hint}")]
    Isolation {
        /// The primitive: `user namespace`, `cgroup memory controller`, ….
        primitive: String,
        /// What the kernel said.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// Nothing exists at the path.
    #[error("no such file or directory: {path}")]
    NotFound {
        /// The path as it was asked for.
        path: String,
    },
    /// Something exists at the path where nothing may.
    #[error("already exists: {path}")]
    AlreadyExists {
        /// The path as it was asked for.
        path: String,
    },
    /// The path leaves the workspace, by name or through a symbolic link.
    #[error("path leaves the workspace: {path}: {reason}")]
    PathEscape {
        /// The path as it was asked for.
        path: String,
        /// How it leaves.
        reason: String,
    },
    /// A file operation failed for another reason.
    #[error("cannot {operation} {path}: {reason}")]
    File {
        /// `read`, `write`, `list`, ….
        operation: &'static str,
        /// The path as it was asked for.
        path: String,
        /// Why, in the system's words.
        reason: String,
    },
    /// A command could not be started: no such program, no such user, no such directory.
    #[error("cannot start {command}: {reason}")]
    Start {
        /// The command as asked for.
        command: String,
        /// Why.
        reason: String,
    },
    /// A command does not read its standard input, and as much as may wait for it does.
    #[error(
        "the command does not read its standard input, and 4 MiB wait there already; send more once it does"
    )]
    StdinFull,
    /// A port inside cannot be connected to, or listened at.
    #[error("port {port} in the sandbox: {reason}")]
    Port {
        /// The port.
        port: u16,
        /// Why, in the system's words.
        reason: String,
    },
    /// A source on the host, or a repository, could not be staged.
    #[error("cannot stage entry '{entry}': {reason}")]
    Stage {
        /// The manifest entry.
        entry: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A set-up command of the manifest failed. Later ones were not run.
    #[error("setup command '{command}' failed: {reason}")]
    Setup {
        /// The command line.
        command: String,
        /// How it ended, and its last words.
        reason: String,
    },
    /// An archive was refused: it would write outside the workspace, or holds what a workspace may not.
    #[error("archive refused at '{member}': {reason}")]
    Archive {
        /// The member's name.
        member: String,
        /// Why.
        reason: String,
    },
    /// The session is not running, or its sandbox is gone. The run can go on in a new one.
    #[error("sandbox session {session} is gone: {reason}")]
    Gone {
        /// The session's id.
        session: String,
        /// What happened.
        reason: String,
    },
    /// The sandbox did not answer in time.
    #[error("the sandbox did not answer within {seconds} s: {operation}")]
    Deadline {
        /// What was asked.
        operation: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The request itself makes no sense.
    #[error("invalid request: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
}

impl SandboxError {
    /// Whether the same call may succeed on a new session of the same backend.
    pub fn session_lost(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Deadline { .. })
    }
}
