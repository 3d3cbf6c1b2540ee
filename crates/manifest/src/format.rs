//! The text forms of a manifest. All of them become one JSON value before anything looks at it.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::tree::Tree;
use crate::{ManifestError, Problem};

/// A text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.json`
    Json,
    /// `.yaml`, `.yml`
    Yaml,
    /// `.toml`
    Toml,
}

impl Format {
    /// The format that a file's ending names.
    ///
    /// # Errors
    /// [`ManifestError::UnknownFormat`] for every ending but `.json`, `.yaml`, `.yml` and `.toml`.
    pub fn from_path(path: &Path) -> Result<Self, ManifestError> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => Ok(Self::Json),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("toml") => Ok(Self::Toml),
            _ => Err(ManifestError::UnknownFormat { path: path.display().to_string() }),
        }
    }

    /// The text as a value, and the keys that came twice in it.
    pub(crate) fn parse(self, text: &str) -> Result<(Value, Vec<Problem>), ManifestError> {
        let twice = RefCell::new(Vec::new());
        let tree = Tree::new(&twice);
        let value = match self {
            Self::Json => {
                let mut reader = serde_json::Deserializer::from_str(text);
                let value = tree.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
                value.map_err(|error| self.syntax(error.line(), error.column(), &error))?
            }
            Self::Yaml => tree.deserialize(serde_yaml_ng::Deserializer::from_str(text)).map_err(|error| {
                let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
                self.syntax(line, column, &error)
            })?,
            Self::Toml => {
                let failed = |error: toml::de::Error| {
                    let (line, column) = error.span().map_or((0, 0), |span| place(text, span.start));
                    self.syntax(line, column, &error.message())
                };
                tree.deserialize(toml::Deserializer::parse(text).map_err(failed)?).map_err(failed)?
            }
        };
        Ok((value, twice.into_inner()))
    }

    fn syntax(self, line: usize, column: usize, message: &dyn fmt::Display) -> ManifestError {
        let message = message.to_string();
        // The JSON and YAML parsers repeat the place at the end.
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        ManifestError::Syntax { format: self, line, column, message }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
        })
    }
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
