//! Why a run could not be driven. A run that fails by itself is no such error: see [`crate::Finished`].

use mooring_journal::{JournalError, RunId};
use mooring_sandbox::SandboxError;
use mooring_snapshot::SnapshotError;

use crate::FoldError;

/// The driver could not begin, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// The run was refused before anything started.
    #[error("the run was not started: {0}")]
    Refused(#[from] SandboxError),
    /// The journal failed. What it holds is whole, and the run can be resumed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The run's events do not fit together.
    #[error("run {run} cannot be resumed: {source}")]
    Fold {
        /// The run.
        run: RunId,
        /// What is wrong.
        source: FoldError,
    },
    /// The run has no events: its driver died before it recorded how the run begins. Nothing had been done.
    #[error(
        "run {run} has not begun: its driver died before the first event. Nothing had been done: start it again"
    )]
    Empty {
        /// The run.
        run: RunId,
    },
    /// The run ended with an answer.
    #[error("run {run} has completed: there is nothing to resume. `moor show {run}` tells what it did")]
    Completed {
        /// The run.
        run: RunId,
    },
    /// The run never asked for this approval, or no longer waits for it.
    #[error(
        "run {run} does not wait for an approval '{approval_id}'. `moor approvals` lists those that wait"
    )]
    NoApproval {
        /// The run.
        run: RunId,
        /// The approval.
        approval_id: String,
    },
    /// A call asks for input that was not given, or was given some that it does not ask for.
    #[error("{}", input_needed(approval_id, schema))]
    Input {
        /// The run.
        run: RunId,
        /// The approval.
        approval_id: String,
        /// The JSON Schema of the input asked for; `Null` where none is.
        schema: serde_json::Value,
    },
    /// The run is the work of a sub-agent: whoever called it goes on with it.
    #[error("run {run} is part of run {of}, which goes on with it: use {of} instead")]
    Part {
        /// The run.
        run: RunId,
        /// The run that it belongs to.
        of: RunId,
    },
    /// The run has no event of that number.
    #[error("run {run} has no event {seq}: its events are 1 to {last}. `moor events {run}` lists them")]
    NoEvent {
        /// The run.
        run: RunId,
        /// What was asked for.
        seq: u64,
        /// Its last event.
        last: u64,
    },
    /// Two tools of an agent have one name: nobody could tell which one a call means.
    #[error(
        "agent '{agent}' has two tools named '{tool}'. Give one of them another name (`tool` of a handoff or a \
         sub-agent)"
    )]
    SameName {
        /// The agent.
        agent: String,
        /// The tools' name.
        tool: String,
    },
    /// The run's cost is limited, and one of its models has no price.
    #[error(
        "agent '{agent}': max_cost needs to know what {model} costs, and the table of prices has no price for it. Add \
         [prices.\"{model}\"] with `input` and `output` to the configuration file, or leave max_cost out"
    )]
    NoPrice {
        /// The agent that may ask it.
        agent: String,
        /// The model.
        model: String,
    },
    /// An agent that cannot work as it is written.
    #[error("agent '{agent}' cannot work: {reason}")]
    Agent {
        /// The agent.
        agent: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A snapshot could not be restored. The run that it is of is as it was.
    #[error("the workspace was not restored: {0}")]
    Snapshot(#[from] SnapshotError),
    /// The run needs something that this host does not offer.
    #[error("run {run} needs {what}, which was not given to its driver")]
    Missing {
        /// The run.
        run: RunId,
        /// What is missing.
        what: String,
    },
}

fn input_needed(approval_id: &str, schema: &serde_json::Value) -> String {
    if schema.is_null() {
        return format!("'{approval_id}' asks for no input: answer it without");
    }
    format!("'{approval_id}' asks for input, a JSON object after this schema: {schema}")
}
