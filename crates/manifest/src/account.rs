//! Users and groups.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A user of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Its name.
    pub name: String,
}

/// A group of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its members.
    pub users: Vec<User>,
}

/// The group that an entry belongs to. A user stands for the group of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Owner {
    /// A group.
    Group(Group),
    /// A user.
    User(User),
}

impl Owner {
    /// The group's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Group(Group { name, .. }) | Self::User(User { name }) => name,
        }
    }
}
