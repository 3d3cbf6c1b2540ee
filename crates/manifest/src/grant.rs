//! Paths outside of the workspace that a session may reach.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::path::has_drive;

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathGrant {
    /// The path in the sandbox: absolute, normalised, not `/`.
    pub path: String,
    /// Whether nothing may be written there.
    #[serde(default)]
    pub read_only: bool,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// The path on the host, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
}

impl PathGrant {
    /// Normalises the path and checks both; the SDK's model does the same, so this belongs to reading. The name of
    /// the field and what is wrong with it are returned.
    pub(crate) fn settle(&mut self) -> Result<(), (&'static str, &'static str)> {
        if !self.path.starts_with('/') {
            return Err(("path", "a path grant's path must be absolute, such as /opt/tools"));
        }
        let mut names: Vec<&str> = Vec::new();
        for name in self.path.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        if names.is_empty() {
            return Err(("path", "a path grant's path must not be the filesystem root"));
        }
        self.path = format!("/{}", names.join("/"));
        self.host_path.as_deref().map_or(Ok(()), check_host_path).map_err(|message| ("host_path", message))
    }
}

fn check_host_path(path: &str) -> Result<(), &'static str> {
    if path.starts_with("//") || path.starts_with("\\\\") {
        return Err("a path grant's host_path must not be a UNC or device path");
    }
    let rest = if has_drive(path) { &path[2..] } else { path };
    if !(rest.starts_with('/') || rest.starts_with('\\') && has_drive(path)) {
        return Err("a path grant's host_path must be an absolute path on the host");
    }
    if rest.split(['/', '\\']).any(|name| name == "..") {
        return Err("a path grant's host_path must not hold '..'");
    }
    if rest.split(['/', '\\']).all(|name| matches!(name, "" | ".")) {
        return Err("a path grant's host_path must not be a filesystem root");
    }
    Ok(())
}
