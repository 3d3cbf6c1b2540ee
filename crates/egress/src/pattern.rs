//! What a rule can say about hosts and paths. Both are small on purpose: a pattern that takes thought to read is one
//! that lets something through.

use std::fmt;

use crate::host::{Host, HostError, HostName};

/// Which hosts a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host and no other.
    Exact(Host),
    /// Every name below this one, at any depth, and not the name itself: `*.example.com`.
    Below(HostName),
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix("*.") {
            Some(parent) => HostName::parse(parent).map(Self::Below),
            None => Host::parse(text).map(Self::Exact),
        }
    }

    /// Whether the host is meant.
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(exact), host) => exact == host,
            (Self::Below(parent), Host::Name(name)) => name.is_below(parent),
            (Self::Below(_), Host::Address(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// Which paths a rule is about, compared byte for byte with the path of a request, without its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    /// Whether anything may follow.
    prefix: bool,
}

/// Why text is no path pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a path pattern: begin with `/`, end with `*` where anything may follow, and leave out `..`, \
     `//` and encoded slashes and dots"
)]
pub struct PathError(pub String);

impl PathPattern {
    /// Reads `/exact/path` or `/prefix/*`.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let (path, prefix) = match text.strip_suffix('*') {
            Some(path) => (path, true),
            None => (text, false),
        };
        let sound = path.starts_with('/') && !path.contains(['*', '?', '#']) && is_plain(path);
        if sound { Ok(Self { text: path.into(), prefix }) } else { Err(PathError(text.into())) }
    }

    /// Whether the path is meant. A path that a server could read as another one is never meant.
    pub fn matches(&self, path: &str) -> bool {
        is_plain(path) && if self.prefix { path.starts_with(&self.text) } else { path == self.text }
    }
}

/// Whether every server reads the path alike: no dot segments, empty segments, backslashes, parameters, or encoded
/// forms of these.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let odd = ["//", "\\", ";", "%2e", "%2f", "%5c", "%3b", "%25", "%00"];
    !odd.iter().any(|odd| lower.contains(odd))
        && !lower.split('/').any(|segment| segment == "." || segment == "..")
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}
