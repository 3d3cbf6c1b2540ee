//! Paths of a manifest. All rules about them are here.

use std::fmt;

/// The kernel takes no longer path.
const MAX_PATH: usize = 4095;

/// The kernel takes no longer name.
const MAX_NAME: usize = 255;

/// A path below the workspace root: relative, normalised, never empty, never leading out.
///
/// ```
/// use mooring_manifest::{PathError, RelPath};
///
/// assert_eq!(RelPath::parse("./src//main.py").unwrap().as_str(), "src/main.py");
/// assert_eq!(RelPath::parse("a/../b"), Err(PathError::Escape));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

/// Why a path is not one below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty or `.`.
    #[error("manifest path must name something below the root")]
    Empty,
    /// It begins with `/` or a drive letter.
    #[error("manifest path must be relative")]
    Absolute,
    /// It has a `..` in it, wherever that leads.
    #[error("manifest path must not escape root")]
    Escape,
    /// It has a `\` in it, which is a separator on some hosts and part of a name on others.
    #[error("manifest path must separate names by '/'")]
    Backslash,
    /// It holds a NUL.
    #[error("manifest path must not hold a NUL")]
    Nul,
    /// It is longer than 4095 bytes, or a name in it longer than 255.
    #[error("manifest path must have at most 4095 bytes, and 255 in each name")]
    Long,
}

impl RelPath {
    /// Reads a path as manifests write it.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.contains('\0') {
            return Err(PathError::Nul);
        }
        if text.starts_with(['/', '\\']) || has_drive(text) {
            return Err(PathError::Absolute);
        }
        let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if text.split(['/', '\\']).any(|name| name == "..") {
            return Err(PathError::Escape);
        }
        if text.contains('\\') {
            return Err(PathError::Backslash);
        }
        if names.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > MAX_PATH || names.iter().any(|name| name.len() > MAX_NAME) {
            return Err(PathError::Long);
        }
        Ok(Self(names.join("/")))
    }

    /// The path, with `/` between its names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The paths of the directories that it is in, the nearest first.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.rmatch_indices('/').map(|(at, _)| &self.0[..at])
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<std::path::Path> for RelPath {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

/// `C:`, `C:/…` or `C:\…`.
pub(crate) fn has_drive(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|letter| letter.is_ascii_alphabetic())
        && chars.next() == Some(':')
        && matches!(chars.next(), None | Some('/' | '\\'))
}

/// A path as Python's `PurePosixPath` writes it: `.` and doubled slashes go, `..` stays.
pub(crate) fn posix(text: &str) -> String {
    // Two slashes at the beginning have a meaning of their own; three or more are one.
    let lead = match text.len() - text.trim_start_matches('/').len() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let path = format!("{lead}{}", names.join("/"));
    if path.is_empty() { ".".to_owned() } else { path }
}
