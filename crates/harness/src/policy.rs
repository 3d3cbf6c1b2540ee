//! What an agent may do without asking.
//!
//! Rules are tried in order and the first that matches decides; where none matches, what stays in the sandbox is
//! allowed and what leaves it is asked for. A policy is recorded with its run and cannot change under it.
//!
//! Rules about the text of a command guard against accidents. They are no wall: a shell has a thousand ways to say
//! one thing. The wall is the sandbox.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What to do about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Call the tool.
    Allow,
    /// Ask a person first.
    Ask,
    /// Do not call it; tell the model why.
    Deny,
}

/// One rule. Every condition that is given must hold. `*` stands for any text, `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The tool's name.
    #[serde(default = "anything")]
    pub tool: String,
    /// Arguments by name. A string is compared as it is, anything else as JSON; a tool that takes free text has it
    /// under `input`. An argument that the call lacks matches nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    /// The sandbox's backend; `none` where the run has none, or one that isolates nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Where something came from that the model has read in this run: one of [`Rule::READ`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    /// What to do then.
    pub action: Action,
    /// Why, for people and for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn anything() -> String {
    "*".into()
}

/// The rules of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Tried in order.
    pub rules: Vec<Rule>,
    /// How many seconds a person has to answer.
    pub expires_s: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { rules: Vec::new(), expires_s: 7 * 24 * 60 * 60 }
    }
}

/// A call, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The tool.
    pub tool: &'a str,
    /// Its arguments, or `{"input": …}`.
    pub arguments: &'a Value,
    /// The sandbox's backend, or `none` where nothing is isolated.
    pub sandbox: &'a str,
    /// Where what the model has read came from.
    pub read: &'a std::collections::BTreeSet<String>,
    /// Whether the tool acts outside of the sandbox.
    pub leaves_sandbox: bool,
}

/// What a policy says of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// Which rule says so; `None` for the default.
    pub rule: Option<u64>,
    /// Why.
    pub reason: String,
}

impl Policy {
    /// Names this policy: SHA-256 of its JSON form, hex.
    pub fn version(&self) -> String {
        // A policy is plain data with string keys.
        digest(&[serde_json::to_string(self).unwrap_or_default().as_bytes()])
    }

    /// Decides about a call.
    pub fn decide(&self, asked: &Asked<'_>) -> Decision {
        for (index, rule) in (0_u64..).zip(&self.rules) {
            if rule.matches(asked) {
                let reason =
                    rule.reason.clone().unwrap_or_else(|| format!("rule {} of the policy", index + 1));
                return Decision { action: rule.action, rule: Some(index), reason };
            }
        }
        if asked.leaves_sandbox {
            let reason = "it acts outside of a sandbox, and no rule allows it".into();
            return Decision { action: Action::Ask, rule: None, reason };
        }
        Decision { action: Action::Allow, rule: None, reason: "it stays in the sandbox".into() }
    }
}

impl Rule {
    /// Where what a model reads comes from: the workspace and the commands in it, other tools, other agents, and the
    /// runtime itself.
    pub const READ: [&str; 4] = ["sandbox", "tool", "agent", "runtime"];

    fn matches(&self, asked: &Asked<'_>) -> bool {
        let argument = |(name, pattern): (&String, &String)| match asked.arguments.get(name) {
            None => false,
            Some(Value::String(text)) => glob(pattern, text),
            Some(value) => glob(pattern, &value.to_string()),
        };
        glob(&self.tool, asked.tool)
            && self.arguments.iter().all(argument)
            && self.sandbox.as_ref().is_none_or(|pattern| glob(pattern, asked.sandbox))
            && self.read.as_ref().is_none_or(|pattern| asked.read.iter().any(|read| glob(pattern, read)))
    }
}

/// Whether a text matches a pattern with `*` and `?`.
pub fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last `*` does not fit: linear in the text for each `*`.
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// SHA-256 over parts, each with its length before it, hex.
pub(crate) fn digest(parts: &[&[u8]]) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
