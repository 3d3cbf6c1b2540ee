//! What can go wrong for a program that uses the library. A run that fails by itself is no such error: see
//! [`crate::Run::error`].

use mooring_harness::HarnessError;
use mooring_journal::JournalError;
use mooring_model::ModelError;
use mooring_transfer::TransferError;

/// An agent could not be built, or a run not be driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An agent's parts do not fit together. Known before anything starts.
    #[error("agent '{agent}': {reason}")]
    Agent {
        /// The agent.
        agent: String,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// The model cannot be reached this way: no key, no address, no such provider.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The run could not be driven.
    #[error(transparent)]
    Run(#[from] HarnessError),
    /// The journal failed, or knows no such run.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The run could not be carried.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The directory of the runtime cannot be made.
    #[error("cannot make {path}: {source}")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The agent's answer is not of the type that was asked for.
    #[error("the answer of run {run} is not what was asked for: {source}")]
    Output {
        /// The run.
        run: mooring_journal::RunId,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The run's driver was asked to cancel it and has not ended it yet; the request stays with it.
    #[error("the driver of run {run} did not end it within {seconds} s")]
    StillDriven {
        /// The run.
        run: mooring_journal::RunId,
        /// How long was waited.
        seconds: u64,
    },
}
