//! What a sandbox may reach.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::object;
use super::{HostName, HostPattern, Method, PathPattern};

/// What a sandbox may reach: `deny`, `unrestricted`, or `allow` with a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing.
    Deny,
    /// What the rules name, and nothing else.
    Allow(Vec<AllowRule>),
    /// Everything that the host can reach.
    Unrestricted,
}

/// Requests that are allowed. As plain text: every request to this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(transform = super::object::or_text)]
pub struct AllowRule {
    /// The host, or `*.example.com`.
    pub host: HostPattern,
    /// The ports; none: 80 and 443.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// The methods; none: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// The paths; none: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
}

object!(AllowRule: "a host or an object", |text| HostPattern::parse(text).map(AllowRule::host));

impl AllowRule {
    /// Every request to a host, on the usual ports.
    pub fn host(host: HostPattern) -> Self {
        Self { host, ports: Vec::new(), methods: Vec::new(), paths: Vec::new() }
    }

    /// Whether connections to a host and port may be allowed. Where [`AllowRule::needs_requests`] says so, the
    /// request decides.
    pub fn reaches(&self, host: &HostName, port: u16) -> bool {
        let port = if self.ports.is_empty() { matches!(port, 80 | 443) } else { self.ports.contains(&port) };
        port && self.host.matches(host)
    }

    /// Whether requests must be seen to decide.
    pub fn needs_requests(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }

    /// Whether a request is allowed on a connection that [`AllowRule::reaches`].
    pub fn allows(&self, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }
}

impl Network {
    /// The rules; none where nothing is allowed, or everything.
    pub fn rules(&self) -> &[AllowRule] {
        match self {
            Self::Allow(rules) => rules,
            Self::Deny | Self::Unrestricted => &[],
        }
    }
}
