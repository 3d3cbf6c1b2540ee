//! The image that a sandbox is started from.

use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, de};

/// An image: its name, or how it is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Image {
    /// As a registry or the engine knows it, such as `python:3.14-slim` or `name@sha256:…`.
    Name(String),
    /// Built from a directory on the host.
    Build(ImageBuild),
}

/// How an image is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBuild {
    /// The directory that the build may copy from: relative to the base directory of whoever stages the manifest, or
    /// absolute below it.
    pub context: String,
    /// The build file, relative to `context`.
    #[serde(default = "dockerfile")]
    pub dockerfile: String,
    /// Values for the build file's `ARG`s.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub args: IndexMap<String, String>,
    /// The stage to build. `None`: the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

fn dockerfile() -> String {
    "Dockerfile".to_owned()
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> de::Visitor<'de> for Either {
            type Value = Image;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an image's name, or an object that says how it is built")
            }

            fn visit_str<E>(self, name: &str) -> Result<Image, E> {
                Ok(Image::Name(name.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Image, A::Error> {
                ImageBuild::deserialize(MapAccessDeserializer::new(map)).map(Image::Build)
            }
        }

        deserializer.deserialize_any(Either)
    }
}
