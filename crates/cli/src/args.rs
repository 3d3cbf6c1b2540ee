//! What can be said on the command line.

pub(crate) mod sandbox;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Run agents in sandboxes, with every step in a durable journal.
#[derive(Debug, Parser)]
#[command(name = "moor", version, max_term_width = 100)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an agent.
    Run(RunArgs),
    /// Talk with an agent: each line is a run, and all of them one conversation.
    Chat(ChatArgs),
    /// Go on with a run that was interrupted, failed, was cancelled or waits.
    Resume(ResumeArgs),
    /// List runs, the newest first.
    Runs(RunsArgs),
    /// Tell the story of a run.
    Show(ShowArgs),
    /// Print the events of a run.
    Events(EventsArgs),
    /// Cancel a run.
    Cancel(CancelArgs),
    /// Show what tenants have used, and what is set aside for which runs.
    Budget(BudgetArgs),
    /// List the calls that wait for a person to approve them.
    Approvals(ApprovalsArgs),
    /// Approve a call.
    Approve(ApproveArgs),
    /// Deny a call.
    Deny(DenyArgs),
    /// Begin a new run with the events of another, up to one of them, and go on from there.
    Fork(ForkArgs),
    /// Write a run, its sub-agents' runs and its workspace to a file, to go on with it elsewhere.
    ExportState(ExportArgs),
    /// Bring in a run that was exported.
    ImportState(ImportArgs),
    /// Check, apply and describe manifests.
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Make and use sandboxes, without an agent or after one.
    #[command(subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Say what this machine can isolate, which keys are set, and what is missing.
    Doctor,
}

/// Where an agent works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// This machine, isolated with Linux namespaces.
    Local,
    /// A container of this machine's Docker engine.
    Docker,
}

impl Backend {
    /// As an agent file names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Docker => "docker",
        }
    }
}

/// How the local sandbox isolates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IsolationArg {
    /// Namespaces, seccomp, no network.
    Namespaces,
    /// None at all: commands run as you, on this machine.
    None,
}

/// What `moor run` and `moor chat` have in common.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AgentArgs {
    /// Agent file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) agent: Option<PathBuf>,
    /// Model: openai/NAME, anthropic/NAME, chat/NAME or script:FILE. Goes before the agent file's.
    #[arg(long, value_name = "SPEC")]
    pub(crate) model: Option<String>,
    /// Manifest of the workspace (JSON, YAML or TOML). Goes before the agent file's.
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Where the agent works.
    #[arg(long, value_name = "BACKEND")]
    pub(crate) sandbox: Option<Backend>,
    /// The image of a docker sandbox whose manifest names none. Goes before the agent file's.
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// How the local sandbox isolates. Goes before the agent file's.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) isolation: Option<IsolationArg>,
    /// Keep the workspace in this directory and leave it there.
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Go on with the conversation of this name, in its workspace, or begin it.
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// Who pays: a tenant that the configuration file describes. Goes before the agent file's.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Print one JSON event per line, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The agent.
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    /// Copy what the manifest says that the run leaves (`outputs`) to this directory, once the run is over.
    #[arg(long, value_name = "DIR")]
    pub(crate) outputs: Option<PathBuf>,
    /// What the agent is to do.
    pub(crate) prompt: String,
}

/// `moor chat`.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    /// The agent.
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

/// `moor resume`.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// The run's id.
    pub(crate) run: String,
    /// Copy what the manifest says that the run leaves (`outputs`) to this directory, once the run is over.
    #[arg(long, value_name = "DIR")]
    pub(crate) outputs: Option<PathBuf>,
    /// Print one JSON event per line, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor runs`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunsArgs {
    /// Print one JSON object per line, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The run's id.
    pub(crate) run: String,
    /// Fold nothing.
    #[arg(long)]
    pub(crate) full: bool,
}

/// `moor events`.
#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// The run's id.
    pub(crate) run: String,
    /// Wait for further events until the run is over.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Print one JSON event per line, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor cancel`.
#[derive(Debug, clap::Args)]
pub(crate) struct CancelArgs {
    /// The run's id.
    pub(crate) run: String,
}

/// `moor budget`.
#[derive(Debug, clap::Args)]
pub(crate) struct BudgetArgs {
    /// Give back what is set aside for a run without a driver and not used, by what its journal says.
    #[arg(long, value_name = "RUN")]
    pub(crate) settle: Option<String>,
    /// Print one JSON object per line, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor approvals`.
#[derive(Debug, clap::Args)]
pub(crate) struct ApprovalsArgs {
    /// Print one JSON object per line, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor approve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    /// The approval's id, as `moor approvals` lists it.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// In this run, do not ask again for this tool by the same rule.
    #[arg(long)]
    pub(crate) always: bool,
    /// What the call asks for: a JSON object after the schema that `moor approvals` shows.
    #[arg(long, value_name = "JSON")]
    pub(crate) input: Option<String>,
}

/// `moor deny`.
#[derive(Debug, clap::Args)]
pub(crate) struct DenyArgs {
    /// The approval's id, as `moor approvals` lists it.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Why; the model gets to read it.
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

/// `moor fork`.
#[derive(Debug, clap::Args)]
pub(crate) struct ForkArgs {
    /// The run's id.
    pub(crate) run: String,
    /// The last event that the new run has too, as `moor events` numbers them.
    #[arg(long, value_name = "SEQ")]
    pub(crate) at: u64,
    /// Say this to the model at that point.
    #[arg(long, value_name = "TEXT")]
    pub(crate) input: Option<String>,
    /// Print one JSON event per line, as into a pipe.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moor export-state`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The run's id.
    pub(crate) run: String,
    /// Where to; nothing that is there is overwritten. By default RUN.tar, here.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Leave the workspace here: it is made anew from the manifest where the run goes on.
    #[arg(long)]
    pub(crate) without_workspace: bool,
}

/// `moor import-state`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The file.
    pub(crate) file: PathBuf,
}

/// `moor manifest`.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Say whether manifests are valid, and what is wrong where.
    Check(ManifestCheckArgs),
    /// Stage a manifest into a directory of this machine.
    Apply(ManifestApplyArgs),
    /// Write down what a manifest's sources are now; whoever stages it later gets the same or is refused.
    Lock(ManifestLockArgs),
    /// Print a manifest made from what another program wrote; what has no place in it is named on standard error.
    Import(ManifestImportArgs),
    /// Print an environment of Claude Managed Agents made from a manifest; what has no place in it is named on
    /// standard error.
    Export(ManifestExportArgs),
    /// Print the JSON Schema of manifests.
    Schema,
}

/// `moor manifest check`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManifestCheckArgs {
    /// Manifests (JSON, YAML or TOML).
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `moor manifest apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManifestApplyArgs {
    /// The manifest (JSON, YAML or TOML).
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The directory; made where it is missing. Nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: PathBuf,
}

/// `moor manifest lock`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManifestLockArgs {
    /// The manifest (JSON, YAML or TOML). The lock is written beside it, with the ending .lock.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `moor manifest import`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManifestImportArgs {
    /// A devcontainer.json or the project that has one, a Harbor task's folder, or an environment of Claude Managed
    /// Agents (JSON or YAML). Paths in the manifest are relative to the current directory.
    #[arg(value_name = "PATH")]
    pub(crate) source: PathBuf,
}

/// `moor manifest export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManifestExportArgs {
    /// The manifest (JSON, YAML or TOML).
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The environment's name; the file's where it is not given.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}
