//! How a repository is fetched.

use std::fmt;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::object::object;

/// How one repository is fetched. Which commit a branch or tag was is said by the lock file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct GitOptions {
    /// How much of its history comes with it.
    pub depth: Depth,
    /// Whether its submodules are fetched, at every depth of nesting.
    pub submodules: bool,
    /// Whether files that it keeps in Git LFS are fetched.
    pub lfs: bool,
    /// The secret to fetch it with, by its name below `secrets`. It never enters the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

object!(GitOptions: "an object");

/// How much of a history is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// That many commits.
    Commits(NonZeroU32),
    /// All of it.
    Full,
}

impl Default for Depth {
    fn default() -> Self {
        Self::Commits(NonZeroU32::MIN)
    }
}

impl Serialize for Depth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Commits(count) => serializer.serialize_u32(count.get()),
            Self::Full => serializer.serialize_str("full"),
        }
    }
}

impl<'de> Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl de::Visitor<'_> for Either {
            type Value = Depth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of commits from 1, or \"full\"")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Depth, E> {
                let commits = u32::try_from(count).ok().and_then(NonZeroU32::new);
                commits
                    .map(Depth::Commits)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(count), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Depth, E> {
                match text {
                    "full" => Ok(Depth::Full),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Depth {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Depth".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of commits, or all of the history.",
            "anyOf": [{ "type": "integer", "minimum": 1 }, { "const": "full" }],
        })
    }
}
