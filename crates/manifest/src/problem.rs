//! What is wrong with a manifest, and where.

use std::fmt;

use crate::Format;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, such as `entries.src.children["../x"]`; empty for the manifest as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "manifest" } else { &self.path };
        write!(f, "{path}: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// A manifest cannot be read or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The text is not JSON, YAML or TOML.
    #[error("not valid {format} at line {line}, column {column}: {message}")]
    Syntax {
        /// What it was read as.
        format: Format,
        /// From 1; 0 where the parser does not say.
        line: usize,
        /// From 1; 0 where the parser does not say.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A file's ending names no format.
    #[error("cannot tell the format of '{path}' by its ending; name it .json, .yaml, .yml or .toml")]
    UnknownFormat {
        /// The file.
        path: String,
    },
    /// It does not have a manifest's structure.
    #[error("the manifest cannot be read: {}", lines(.0))]
    Structure(Vec<Problem>),
    /// It has a manifest's structure and cannot be used.
    #[error("the manifest is not valid: {}", lines(.0))]
    Invalid(Vec<Problem>),
}

impl ManifestError {
    /// The problems, where there are several to show one by one.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Structure(problems) | Self::Invalid(problems) => problems,
            _ => &[],
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => many.iter().fold(String::new(), |text, problem| text + "\n  " + &problem.to_string()),
    }
}

/// `parent.name`, or `parent["na/me"]` where the name is not a plain word.
pub(crate) fn member(parent: &str, name: &str) -> String {
    let plain =
        !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char));
    match (plain, parent.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{parent}.{name}"),
        (false, _) => format!("{parent}[{}]", serde_json::Value::from(name)),
    }
}
