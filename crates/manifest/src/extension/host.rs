//! Host names and patterns of them. Addresses are no names: what a name leads to is decided after the policy.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A host name in lower case: ASCII letters, digits, `-` and `_` in labels of at most 63, at most 253 in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Which hosts are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This one: `api.example.com`.
    Exact(HostName),
    /// Every host below this one, at any depth, but not it itself: `*.example.com`.
    Below(HostName),
}

/// Why a text is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It holds what no name may hold, or is too long.
    #[error("'{0}' is no host name; write it as api.example.com, names that are not ASCII as xn--…")]
    Name(String),
    /// It is an address.
    #[error("'{0}' is an address; write the host's name")]
    Address(String),
    /// It is a pattern of another form.
    #[error("'{0}' is no host pattern; write a name, or *.example.com for all names below one")]
    Pattern(String),
    /// It would match every name of a top-level domain.
    #[error("'{0}' would be a whole top-level domain; name what is below it")]
    TopLevel(String),
}

impl HostName {
    /// Reads a name. Capitals are made small.
    ///
    /// # Errors
    /// For what is no name, and for addresses: a last label of digits alone, or `0x…`, or `[…]`.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let name = text.to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        let number = !last.is_empty()
            && (last.bytes().all(|byte| byte.is_ascii_digit())
                || last
                    .strip_prefix("0x")
                    .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())));
        if number || name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok() {
            return Err(HostError::Address(text.to_owned()));
        }
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(HostError::Name(text.to_owned()));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HostPattern {
    /// Reads a name or `*.NAME`, where NAME has two labels at least.
    ///
    /// # Errors
    /// For every other form.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let Some(below) = text.strip_prefix("*.") else {
            return if text.contains('*') {
                Err(HostError::Pattern(text.to_owned()))
            } else {
                HostName::parse(text).map(Self::Exact)
            };
        };
        if below.contains('*') {
            return Err(HostError::Pattern(text.to_owned()));
        }
        let name = HostName::parse(below)?;
        if !name.as_str().contains('.') {
            return Err(HostError::TopLevel(text.to_owned()));
        }
        Ok(Self::Below(name))
    }

    /// Whether a host is meant.
    pub fn matches(&self, host: &HostName) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(name) => host
                .0
                .strip_suffix(name.as_str())
                .is_some_and(|label| label.len() > 1 && label.ends_with('.')),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

macro_rules! wire {
    ($kind:ident, $name:literal, $pattern:literal) => {
        impl FromStr for $kind {
            type Err = HostError;

            fn from_str(text: &str) -> Result<Self, HostError> {
                Self::parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }

        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($kind).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $name, "pattern": $pattern })
            }
        }
    };
}

wire!(HostName, "A host name.", "^[A-Za-z0-9_][A-Za-z0-9_.-]*$");
wire!(
    HostPattern,
    "A host name, or *.example.com for all names below one.",
    "^(\\*\\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*$"
);
