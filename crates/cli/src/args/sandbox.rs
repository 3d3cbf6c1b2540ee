//! What can be said after `moor sandbox`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Backend, IsolationArg};

/// `moor sandbox`. A SANDBOX is a sandbox's id as `list` shows it, the beginning of one, or a run's id.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Make a sandbox and stage its workspace.
    Create(CreateArgs),
    /// List sandboxes, the newest first.
    List(ListArgs),
    /// Run a command in a sandbox. What it leaves in the background goes on until the sandbox has been unused for a
    /// quarter of an hour; in a container it ends with the command.
    Exec(ExecArgs),
    /// Open a shell in a sandbox.
    Shell(ShellArgs),
    /// Copy files into a sandbox or out of it.
    Cp(CpArgs),
    /// Make ports of a sandbox reachable at this machine's loopback address, until interrupted.
    Ports(PortsArgs),
    /// Take a snapshot of a sandbox's workspace.
    Snapshot(SnapshotArgs),
    /// Restore a snapshot: into a new sandbox, or in place of another one's workspace.
    Restore(RestoreArgs),
    /// Make a sandbox that begins with another one's workspace. Where nothing runs in that, they share what neither
    /// changes; else the files are copied.
    Fork(ForkArgs),
    /// Print what changed in a workspace since it was staged, as a patch that `git apply` takes.
    Diff(DiffArgs),
    /// Remove sandboxes or snapshots.
    Rm(RmArgs),
    /// Remove workspaces and snapshots that have not been used for long, and what only they needed.
    Prune(PruneArgs),
}

/// What a new sandbox is like.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NewArgs {
    /// Its id: letters, digits, `-` and `_`.
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<String>,
    /// Where it is.
    #[arg(long, value_name = "BACKEND")]
    pub(crate) sandbox: Option<Backend>,
    /// The image of a docker sandbox whose manifest names none.
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// How the local sandbox isolates.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) isolation: Option<IsolationArg>,
    /// The most memory, such as 512MiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// The most processes and threads at a time.
    #[arg(long, value_name = "COUNT")]
    pub(crate) pids: Option<u64>,
    /// The most processors, such as 1.5.
    #[arg(long, value_name = "COUNT")]
    pub(crate) cpus: Option<f64>,
}

/// `moor sandbox create`.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// What it is like.
    #[command(flatten)]
    pub(crate) new: NewArgs,
    /// Manifest of the workspace (JSON, YAML or TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Keep the workspace in this directory and leave it there.
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
}

/// `moor sandbox list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// List snapshots instead.
    #[arg(long)]
    pub(crate) snapshots: bool,
    /// Print one JSON object per line, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor sandbox exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// The sandbox.
    pub(crate) sandbox: String,
    /// Send it standard input.
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Working directory: absolute inside, or relative to the workspace.
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Variables, as NAME=VALUE.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The user of the manifest to run as.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// End it, and what it started, after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `moor sandbox shell`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShellArgs {
    /// The sandbox.
    pub(crate) sandbox: String,
    /// The user of the manifest to be.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

/// `moor sandbox cp`.
#[derive(Debug, clap::Args)]
pub(crate) struct CpArgs {
    /// A path here, or SANDBOX:PATH.
    pub(crate) from: String,
    /// A path here, or SANDBOX:PATH. A directory that exists gets the copy put into it.
    pub(crate) to: String,
}

/// `moor sandbox ports`.
#[derive(Debug, clap::Args)]
pub(crate) struct PortsArgs {
    /// The sandbox.
    pub(crate) sandbox: String,
    /// Ports inside, each as PORT or HERE:PORT. Without HERE it is the same number, or else a free one. Without any it is
    /// those of the sandbox's manifest.
    #[arg(value_name = "[HERE:]PORT")]
    pub(crate) ports: Vec<String>,
}

/// `moor sandbox snapshot`.
#[derive(Debug, clap::Args)]
pub(crate) struct SnapshotArgs {
    /// The sandbox.
    pub(crate) sandbox: String,
    /// Its id.
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<String>,
    /// Print a JSON object, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor sandbox restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The snapshot's id, or the beginning of it.
    pub(crate) snapshot: String,
    /// Replace the workspace of this sandbox instead of making a new one.
    #[arg(long, value_name = "SANDBOX", conflicts_with_all = ["name", "sandbox", "image", "isolation", "memory", "pids", "cpus"])]
    pub(crate) into: Option<String>,
    /// What a new one is like. Its users, variables and root are those of the sandbox that the snapshot is of, where
    /// that is still known.
    #[command(flatten)]
    pub(crate) new: NewArgs,
}

/// `moor sandbox fork`.
#[derive(Debug, clap::Args)]
pub(crate) struct ForkArgs {
    /// The sandbox to begin with.
    #[arg(value_name = "SANDBOX")]
    pub(crate) of: String,
    /// The new one's id: letters, digits, `-` and `_`.
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<String>,
}

/// `moor sandbox diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// The sandbox.
    pub(crate) sandbox: String,
    /// Since this snapshot, and not since it was staged.
    #[arg(long, value_name = "SNAPSHOT")]
    pub(crate) since: Option<String>,
}

/// `moor sandbox rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Sandboxes or snapshots.
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// `moor sandbox prune`.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Unused for at least so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub(crate) older_than: u32,
    /// Only say what would be removed.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
