//! Manifests from what others wrote, and back.
//!
//! Three forms are read: a dev container's `devcontainer.json`, a Harbor task folder, and an environment of Claude
//! Managed Agents; the last is also written. No two of these say the same things. What a form says and another has no
//! place for is never dropped silently: it is in [`Converted::left_out`], with the place that said it.
//!
//! Nothing here reads a file: whoever calls says what lies where.

mod devcontainer;
mod harbor;
mod managed;
mod taker;

pub use devcontainer::{Project, from_devcontainer};
pub use harbor::{HarborTask, from_harbor};
pub use managed::{from_managed_agents, to_managed_agents};

use crate::Problem;

/// A manifest or another form, and what it could not take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted<T> {
    /// What came out.
    pub value: T,
    /// What was said and has no place in it.
    pub left_out: Vec<Problem>,
}

/// A text as one word of a shell.
fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_-./=:@%+,".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
