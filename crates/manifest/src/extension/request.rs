//! What a rule can say about a request beside its host: method, path, header.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text says nothing about a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no method.
    #[error("'{0}' is no method; write it as GET or POST")]
    Method(String),
    /// It is no path.
    #[error("'{0}' is no path; write it as /v1/models, or /v1/* for all that begins with /v1/")]
    Path(String),
    /// It is no header's name.
    #[error("'{0}' is no header's name; write it as Authorization")]
    Header(String),
}

/// A method, in capitals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(String);

/// Which paths are meant: one, or with a `*` at the end all that begin so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern(String);

/// A header's name, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderName(String);

impl Method {
    /// Reads a method. Small letters are made capitals.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        let method = text.to_ascii_uppercase();
        let good = (1..=32).contains(&method.len())
            && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if good { Ok(Self(method)) } else { Err(RequestError::Method(text.to_owned())) }
    }

    /// The method.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathPattern {
    /// Reads a pattern: it begins with `/`, a `*` may only be its last character, and nothing in it is encoded,
    /// doubled or climbs.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        let path = text.strip_suffix('*').unwrap_or(text);
        if path.starts_with('/') && !path.contains('*') && plain(path) {
            Ok(Self(text.to_owned()))
        } else {
            Err(RequestError::Path(text.to_owned()))
        }
    }

    /// Whether a request's path is meant; a query is no part of it. A path that a server may read in two ways, with
    /// `..`, doubled slashes, `\`, or encoded dots and slashes, is meant by no pattern but `/*`.
    pub fn matches(&self, path: &str) -> bool {
        if self.0 == "/*" {
            return path.starts_with('/');
        }
        plain(path)
            && match self.0.strip_suffix('*') {
                Some(beginning) => path.starts_with(beginning),
                None => path == self.0,
            }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether every server reads this path in the same way.
fn plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%25", "%00"].iter().any(|code| lower.contains(code));
    let odd = |char: char| char.is_control() || char.is_whitespace() || "\\?#;".contains(char);
    !encoded
        && !path.contains("//")
        && !path.contains(odd)
        && !path.split('/').any(|name| matches!(name, "." | ".."))
}

impl HeaderName {
    /// Reads a name. Capitals are made small.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        let name = text.to_ascii_lowercase();
        let good = (1..=128).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if good { Ok(Self(name)) } else { Err(RequestError::Header(text.to_owned())) }
    }

    /// `authorization`.
    pub(super) fn authorization() -> Self {
        Self("authorization".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! wire {
    ($kind:ident, $name:literal, $pattern:literal) => {
        impl FromStr for $kind {
            type Err = RequestError;

            fn from_str(text: &str) -> Result<Self, RequestError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }

        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
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

wire!(Method, "A method, such as GET.", "^[A-Za-z-]{1,32}$");
wire!(PathPattern, "A path, or with a * at its end all that begin so.", "^/[^*]*\\*?$");
wire!(HeaderName, "A header's name.", "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$");
