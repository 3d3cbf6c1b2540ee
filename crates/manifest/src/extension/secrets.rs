//! Secrets: a name that the operator's configuration knows, and the requests that may carry it.
//!
//! Commands in the sandbox see a stand-in. The proxy outside puts the real value in its place, in the named header of
//! a request that the manifest describes, and nowhere else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::object;
use super::{HeaderName, HostName, Method, PathPattern};

/// How one secret is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct SecretUse {
    /// The variable that holds the stand-in, in every command of the sandbox. `None`: no command sees any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The requests that may carry it; none: it is only for `git.*.credentials` and `mounts.*.credentials`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inject: Vec<Injection>,
}

/// Requests that may carry a secret, over TLS only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Injection {
    /// The host. It is one, not a pattern: whoever gets a secret is named.
    pub host: HostName,
    /// The port.
    #[serde(default = "https", skip_serializing_if = "is_https")]
    pub port: u16,
    /// The methods; none: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// The paths; none: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
    /// The header that holds the stand-in.
    #[serde(default = "authorization")]
    pub header: HeaderName,
}

object!(SecretUse: "an object");
object!(Injection: "an object");

impl Injection {
    /// Whether a request to this host and port may carry the secret.
    pub fn matches(&self, host: &HostName, port: u16, method: &Method, path: &str) -> bool {
        self.host == *host
            && self.port == port
            && (self.methods.is_empty() || self.methods.contains(method))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }
}

fn https() -> u16 {
    443
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_https(port: &u16) -> bool {
    *port == 443
}

fn authorization() -> HeaderName {
    HeaderName::authorization()
}
