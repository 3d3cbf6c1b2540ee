//! How mounted storage is reached.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::object;

/// How one mount's storage is reached. Without credentials it is reached as anybody: the machine's own identity is
/// never used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct MountOptions {
    /// Names below `secrets`, by the field of the entry that each stands for. They never enter the sandbox, and no
    /// request of a command carries them.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub credentials: IndexMap<String, String>,
}

object!(MountOptions: "an object");
