//! What runs use, and what is set aside for the runs that they start.
//!
//! A budget is kept by construction: before a sub-agent begins, a share of what its caller has left is set aside for
//! it, and becomes its own limit. Nothing is shared while both work, so no two runs can spend the same token.

use mooring_model::Usage;
use serde::{Deserialize, Serialize};

use crate::Limits;

/// What a run has used, the runs of its sub-agents included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spent {
    /// Tokens.
    pub usage: Usage,
    /// Turns: answers of a model.
    pub turns: u64,
    /// Tool calls.
    pub tool_calls: u64,
}

impl Spent {
    /// Adds what another run has used.
    pub fn add(&mut self, other: &Self) {
        self.usage.add(&other.usage);
        self.turns += other.turns;
        self.tool_calls += other.tool_calls;
    }
}

/// Amounts that may be used; `None` where there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u64>,
    /// Tool calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u64>,
}

impl Budget {
    /// What is left under limits, when this much has been used and these shares are set aside.
    pub(crate) fn left<'a>(limits: &Limits, spent: &Spent, reserved: impl Iterator<Item = &'a Self>) -> Self {
        let mut left = Self {
            max_tokens: limits.max_tokens.map(|most| most.saturating_sub(spent.usage.total())),
            max_turns: Some(limits.max_turns.saturating_sub(spent.turns)),
            max_tool_calls: limits.max_tool_calls.map(|most| most.saturating_sub(spent.tool_calls)),
        };
        for share in reserved {
            let less = |left: Option<u64>, share: Option<u64>| {
                left.map(|left| left.saturating_sub(share.unwrap_or(0)))
            };
            left.max_tokens = less(left.max_tokens, share.max_tokens);
            left.max_turns = less(left.max_turns, share.max_turns);
            left.max_tool_calls = less(left.max_tool_calls, share.max_tool_calls);
        }
        left
    }

    /// An equal share, when this many runs are to begin.
    pub(crate) fn share(&self, runs: u64) -> Self {
        let part = |left: Option<u64>| left.map(|left| left / runs.max(1));
        Self {
            max_tokens: part(self.max_tokens),
            max_turns: part(self.max_turns),
            max_tool_calls: part(self.max_tool_calls),
        }
    }
}

impl Limits {
    /// These limits, each at most what the budget has.
    pub(crate) fn within(&self, budget: &Budget) -> Self {
        let least = |own: Option<u64>, share: Option<u64>| match (own, share) {
            (Some(own), Some(share)) => Some(own.min(share)),
            (own, share) => own.or(share),
        };
        Self {
            max_turns: least(Some(self.max_turns), budget.max_turns).unwrap_or(self.max_turns),
            max_tokens: least(self.max_tokens, budget.max_tokens),
            max_tool_calls: least(self.max_tool_calls, budget.max_tool_calls),
            ..self.clone()
        }
    }
}
