//! Who watches a run as it goes.

use std::time::Duration;

use mooring_journal::Record;

/// What happens between two events. Shown to people, never recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum Live {
    /// More of the model's answer.
    Text(String),
    /// More of the model's reasoning.
    Reasoning(String),
    /// The model began to call a tool.
    ToolCallStarted {
        /// The tool.
        tool: String,
    },
    /// The model is tried again; what was shown of this answer is void.
    Retrying {
        /// Which try comes next, from 2.
        attempt: u32,
        /// How long until then.
        after: Duration,
        /// What failed.
        reason: String,
    },
    /// A tool's output as it comes.
    ToolOutput {
        /// Of which call.
        call_id: String,
        /// Some text.
        text: String,
    },
    /// Something to know about the run's surroundings.
    Note(String),
}

/// Watches a run. Both methods must return at once.
pub trait Observer: Send + Sync {
    /// An event was recorded.
    fn recorded(&self, record: &Record);

    /// Something happens that is not recorded.
    fn live(&self, live: Live) {
        let _ = live;
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn recorded(&self, _record: &Record) {}
}
