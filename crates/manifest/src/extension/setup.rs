//! Commands that make a workspace ready.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Seconds;
use super::object::object;

/// A command that runs in the workspace once its entries are there. As plain text: the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(transform = super::object::or_text)]
pub struct SetupCommand {
    /// The command line, for a shell.
    pub run: String,
    /// The directory below the root that it runs in. `None`: the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// How long it may take.
    #[serde(default = "ten_minutes")]
    pub timeout: Seconds,
}

object!(SetupCommand: "a command line or an object", |text| Ok::<_, std::convert::Infallible>(SetupCommand::new(text)));

impl SetupCommand {
    /// A command line in the root, with the usual ten minutes.
    pub fn new(run: impl Into<String>) -> Self {
        Self { run: run.into(), cwd: None, timeout: ten_minutes() }
    }
}

fn ten_minutes() -> Seconds {
    Seconds::TEN_MINUTES
}
