//! What a run is to leave in the workspace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::object;

/// A file or directory that a run leaves. As plain text: its path, and that it must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(transform = super::object::or_text)]
pub struct Output {
    /// Its path below the root.
    pub path: String,
    /// Whether it must be there when the run is over.
    #[serde(default = "yes")]
    pub required: bool,
    /// What it is; shown to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

object!(Output: "a path or an object", |text| Ok::<_, std::convert::Infallible>(Output::new(text)));

impl Output {
    /// A path that must be there.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), required: true, description: None }
    }
}

fn yes() -> bool {
    true
}
