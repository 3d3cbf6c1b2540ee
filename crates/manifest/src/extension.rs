//! What the SDK's form has no place for: limits, network, secrets, ports, set-up, image, git options, outputs.
//!
//! All of it stands below one key, `x-mooring` at the top of a manifest. The SDK's `Manifest.model_validate` ignores
//! that key and drops it; its shortcut for plain dictionaries (`SandboxRunConfig(manifest={…})`) refuses every key
//! that it does not know, which is as well: it could not keep what is promised here.
//!
//! Unlike the rest of the form, nothing below this key is ever ignored: a key that is not known is a limit that
//! would not be kept, so reading fails. What a backend cannot enforce is refused by name when a run is planned.

mod git;
mod host;
mod image;
mod mounts;
mod network;
mod object;
mod outputs;
mod request;
mod resources;
mod secrets;
mod setup;
mod units;
mod validate;

pub use git::{Depth, GitOptions};
pub use host::{HostError, HostName, HostPattern};
pub use image::{Image, ImageBuild};
pub use mounts::MountOptions;
pub use network::{AllowRule, Network};
pub use outputs::Output;
pub use request::{HeaderName, Method, PathPattern, RequestError};
pub use resources::Resources;
pub use secrets::{Injection, SecretUse};
pub use setup::SetupCommand;
pub use units::{Cpu, Seconds, Size, UnitError};

pub(crate) use validate::check;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Our own additions to a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Extension {
    /// The most that the sandbox may use. What is absent is not limited.
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// What the sandbox may reach. `None`: what its backend does by itself, which is nothing at all for the local one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Secrets that requests of the sandbox may carry, by the name that the operator's configuration knows. The
    /// manifest never holds a value.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub secrets: IndexMap<String, SecretUse>,
    /// TCP ports in the sandbox that can be reached from outside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(range(min = 1)))]
    pub ports: Vec<u16>,
    /// Commands that run in the workspace once its entries are there, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<SetupCommand>,
    /// The image that the sandbox is started from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// How repositories are fetched, by the path of their entry.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub git: IndexMap<String, GitOptions>,
    /// How mounted storage is reached, by the path of its entry.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub mounts: IndexMap<String, MountOptions>,
    /// What a run is to leave in the workspace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output>,
}

object::object!(Extension: "an object");

impl Extension {
    /// Whether nothing is said. An empty extension is not written.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
