//! The workspace contract: types, wire form, validation, digest, JSON Schema.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A user of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
}

/// A group of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its members.
    pub users: Vec<User>,
}

/// A portable description of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Absolute path of the workspace inside the sandbox.
    pub root: String,
    /// Users to provision.
    pub users: Vec<User>,
    /// Groups to provision.
    pub groups: Vec<Group>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self { root: "/workspace".into(), users: Vec::new(), groups: Vec::new() }
    }
}

impl Manifest {
    /// The variables that every command in the workspace gets.
    pub fn resolved_environment(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}
