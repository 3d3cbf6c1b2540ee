//! The most that a sandbox may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::object;
use super::{Cpu, Seconds, Size};

/// Upper bounds. What is absent is not limited by the manifest; what the operator limits holds all the same, and of
/// two limits the tighter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Resources {
    /// Processors, such as `1.5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory, such as `512MiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Processes and threads at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pids: Option<u64>,
    /// Space for what the workspace holds, staged entries included, such as `2GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Size>,
    /// How long a run may go on, such as `30m`: as `max_seconds` of its agent, and of the two the shorter. A sandbox that
    /// belongs to no run ends so long after each of its starts, and all commands in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_clock: Option<Seconds>,
}

object!(Resources: "an object");

impl Resources {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
