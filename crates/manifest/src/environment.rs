//! Variables for every command of the workspace.

use indexmap::IndexMap;
use serde::Serialize;

/// The variables, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// Name and value, in the order they were written.
    pub value: IndexMap<String, EnvVar>,
}

/// A variable. The three forms mean the same, but are kept as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EnvVar {
    /// The value.
    Plain(String),
    /// The value with its type.
    Value(EnvValue),
    /// The value with what else is to be said about it.
    Entry(EnvEntry),
}

/// A value with its type, which is always `str`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "str")]
pub struct EnvValue {
    /// The value.
    pub value: String,
}

/// A described variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvEntry {
    /// What it is for.
    pub description: Option<String>,
    /// Whether a snapshot leaves it out. It says nothing about secrecy: the manifest holds the value in clear text.
    pub ephemeral: bool,
    /// The value.
    pub value: EnvValue,
}

impl EnvVar {
    /// The value.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Plain(value) | Self::Value(EnvValue { value }) => value,
            Self::Entry(entry) => &entry.value.value,
        }
    }
}
