//! What opens a mount's storage.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::object;

/// How one mount is opened. Whoever serves it stands outside of the sandbox, and so do its credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct MountOptions {
    /// The secrets that open it, by the provider's own names for them (`access_key_id`, `account_key`, …): each is a name
    /// below `secrets`. None: the storage is asked as anybody may ask it.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub credentials: IndexMap<String, String>,
}

object!(MountOptions: "an object");
