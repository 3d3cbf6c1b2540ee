//! The calls that a supervisor answers.
//!
//! Calls carry an id and are answered in any order; a call that waits (for output, for a child) holds up nothing
//! else. Changes that an older peer would misread raise [`GENERATION`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use mooring_sandbox::{CommandLine, FileStat, Outcome, Stream, TtySize, WriteOptions};
use serde::{Deserialize, Serialize};

/// The protocol's generation. Both sides must speak the same one.
pub const GENERATION: u32 = 5;

/// A call, from harness to supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the caller, for the answer.
    pub id: u64,
    /// What to do.
    pub call: Call,
}

/// An answer, from supervisor to harness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The call's id.
    pub id: u64,
    /// How it went.
    pub reply: Result<Reply, Failure>,
}

/// What a supervisor can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Call {
    /// Start a command. The payload is its standard input with [`Input::Bytes`]. Answered with
    /// [`Reply::Started`] once the program runs.
    Spawn(Spawn),
    /// Output of a process. Answered with [`Reply::Output`].
    Output {
        /// The process.
        process: u64,
        /// Where to read on.
        after: u64,
        /// At most about so many bytes.
        max_bytes: u64,
        /// Wait so long for some, in milliseconds.
        wait_ms: u64,
    },
    /// Bytes for standard input or the terminal: the payload.
    WriteStdin {
        /// The process.
        process: u64,
    },
    /// End of standard input.
    CloseStdin {
        /// The process.
        process: u64,
    },
    /// A new terminal size.
    Resize {
        /// The process.
        process: u64,
        /// The size.
        size: TtySize,
    },
    /// A signal to the command's process group.
    Signal {
        /// The process.
        process: u64,
        /// The signal's number.
        signal: i32,
    },
    /// Kill the command and everything it started. Answered when all of it is gone.
    Cancel {
        /// The process.
        process: u64,
    },
    /// The same without grace, and forget the process.
    Release {
        /// The process.
        process: u64,
    },
    /// A file's content, as the payload of [`Reply::Done`].
    Read {
        /// The file.
        path: String,
        /// Refuse a larger one.
        max_bytes: u64,
    },
    /// Write a file: the payload.
    Write {
        /// The file.
        path: String,
        /// How.
        options: WriteOptions,
    },
    /// Rename within the workspace.
    Rename {
        /// What.
        from: String,
        /// Where to; nothing may be there.
        to: String,
    },
    /// A directory's entries. Answered with [`Reply::Files`].
    List {
        /// The directory.
        path: String,
    },
    /// Make a directory.
    Mkdir {
        /// The directory.
        path: String,
        /// Make its parents too.
        parents: bool,
    },
    /// Remove a file, a directory, or a whole tree.
    Remove {
        /// What.
        path: String,
        /// A whole tree.
        recursive: bool,
    },
    /// Metadata of paths. Answered with [`Reply::Files`], in their order.
    Stat {
        /// The paths.
        paths: Vec<String>,
    },
    /// Start unpacking a tar stream below a directory. Answered with [`Reply::Job`]; [`Call::Feed`] it then.
    Unpack {
        /// The directory.
        path: String,
    },
    /// The same for the whole workspace, in place of what is there. That goes only when all has come.
    Restore,
    /// Start packing the workspace. Answered with [`Reply::Job`]; [`Call::Pull`] from it then.
    Persist {
        /// What to leave out, relative to the root.
        without: Vec<String>,
    },
    /// The next bytes for a job: the payload; an empty one is the end, and is answered when the job is done.
    Feed {
        /// The job.
        job: u64,
    },
    /// Give up a job. Answered when it is gone.
    Abort {
        /// The job.
        job: u64,
    },
    /// The next bytes from a job, as the payload of [`Reply::Done`]; none at the end.
    Pull {
        /// The job.
        job: u64,
    },
    /// Connect to a port of the sandbox's loopback interface. Answered with [`Reply::Channel`] once connected.
    Connect {
        /// The port.
        port: u16,
    },
    /// Listen at a port of the sandbox's loopback network, where others may listen too. Answered with
    /// [`Reply::Listening`].
    Listen {
        /// The port.
        port: u16,
    },
    /// The next connection of a listener. Answered with [`Reply::Channel`] when there is one.
    Accept {
        /// The listener.
        listener: u64,
    },
    /// The next bytes of a channel, as the payload of [`Reply::Done`]; none at its end. Answered when there are some:
    /// a channel's bytes are taken from its peer as fast as they are asked for, and no faster.
    Receive {
        /// The channel.
        channel: u64,
    },
    /// Bytes for a channel: the payload. Answered when they are on their way; an empty payload is the end.
    Transmit {
        /// The channel.
        channel: u64,
    },
    /// End the sandbox, whoever else uses it. Answered before it does; its end shows as the end of the stream.
    End,
    /// Whether a process is held. Answered with [`Reply::Started`].
    Find {
        /// The process.
        process: u64,
    },
    /// Forget a channel. Who waits for it is told so.
    Hangup {
        /// The channel.
        channel: u64,
    },
}

/// A command to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// What to run.
    pub command: CommandLine,
    /// Where; `None`: the workspace's root.
    pub cwd: Option<String>,
    /// Variables on top of the session's.
    pub env: BTreeMap<String, String>,
    /// As whom; `None`: the default user.
    pub user: Option<String>,
    /// Standard input.
    pub stdin: Input,
    /// The terminal's size, where it gets one.
    pub tty: Option<TtySize>,
    /// The deadline in milliseconds from now.
    pub timeout_ms: Option<u64>,
    /// How much output is kept.
    pub output_limit: u64,
    /// Whether it waits for its reader, who is whoever starts it, once so much was not read.
    pub paced: bool,
}

/// What a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Nothing.
    Null,
    /// The payload of the call.
    Bytes,
    /// What [`Call::WriteStdin`] brings.
    Open,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// A process runs.
    Started {
        /// Its number.
        process: u64,
    },
    /// Output; the bytes of all pieces are the payload, one after the other.
    Output {
        /// The pieces.
        pieces: Vec<Piece>,
        /// Where to read on.
        next: u64,
        /// How the command ended, once it has and this is the end of its output.
        outcome: Option<Outcome>,
    },
    /// Files.
    Files {
        /// Their metadata.
        files: Vec<FileStat>,
    },
    /// A job runs.
    Job {
        /// Its number.
        job: u64,
    },
    /// A listener is there.
    Listening {
        /// Its number.
        listener: u64,
        /// What connects to this address is for whoever asked.
        address: Ipv4Addr,
    },
    /// A connection is there.
    Channel {
        /// Its number.
        channel: u64,
    },
}

/// A piece of output, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where it starts.
    pub at: u64,
    /// Which stream.
    pub stream: Stream,
    /// How many bytes of the payload.
    pub len: u64,
}

/// Why a call failed. What each means is said at `mooring_sandbox::SandboxError`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Failure {
    /// The host cannot isolate as asked.
    #[error("{primitive}: {reason}. {hint}")]
    Isolation {
        /// What is missing.
        primitive: String,
        /// What the kernel said.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// Nothing is there.
    #[error("{path}: not found")]
    NotFound {
        /// The path.
        path: String,
    },
    /// Something is there.
    #[error("{path}: already exists")]
    AlreadyExists {
        /// The path.
        path: String,
    },
    /// The path leaves the workspace.
    #[error("{path}: {reason}")]
    PathEscape {
        /// The path.
        path: String,
        /// How.
        reason: String,
    },
    /// Another failure of a file operation.
    #[error("{path}: {reason}")]
    File {
        /// The path.
        path: String,
        /// Why.
        reason: String,
    },
    /// A command did not start.
    #[error("{command}: {reason}")]
    Start {
        /// The command.
        command: String,
        /// Why.
        reason: String,
    },
    /// An archive was refused.
    #[error("{member}: {reason}")]
    Archive {
        /// The member.
        member: String,
        /// Why.
        reason: String,
    },
    /// A port cannot be connected to, or listened at.
    #[error("port {port}: {reason}")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        reason: String,
    },
    /// Too much waits for a command that does not read it.
    #[error("the command does not read its standard input, and 4 MiB wait there already")]
    StdinFull,
    /// The session runs already, in a supervisor of its own.
    #[error("the session runs already")]
    Running,
    /// The call makes no sense.
    #[error("{reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
}
