//! What runs use, and what is set aside for the runs that they start.
//!
//! A budget is kept by construction: before a sub-agent begins, a share of what its caller has left is set aside for
//! it, and becomes its own limit. Nothing is shared while both work, so no two runs can spend the same token. Time is
//! the exception: it passes for all of them at once, so a sub-agent has what is left of its caller's.
//!
//! Six things are limited in the same way, so all arithmetic is over [`Resource`]s in whole units.

use std::fmt;

use mooring_model::{Cost, Usage};
use serde::{Deserialize, Serialize};

use crate::Limits;

/// A thing that a run uses up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Tokens, read and produced.
    Tokens,
    /// Money, in the unit of the prices.
    Cost,
    /// Time with a driver.
    Seconds,
    /// Time with a running sandbox.
    SandboxSeconds,
    /// Answers of the model.
    Turns,
    /// Tool calls.
    ToolCalls,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Tokens, Self::Cost, Self::Seconds, Self::SandboxSeconds, Self::Turns, Self::ToolCalls];

    /// The name of its limit.
    pub fn limit(self) -> &'static str {
        match self {
            Self::Tokens => "max_tokens",
            Self::Cost => "max_cost",
            Self::Seconds => "max_seconds",
            Self::SandboxSeconds => "max_sandbox_seconds",
            Self::Turns => "max_turns",
            Self::ToolCalls => "max_tool_calls",
        }
    }

    /// So many units of it, for people.
    pub fn show(self, units: u128) -> String {
        match self {
            Self::Tokens => format!("{units} tokens"),
            Self::Cost => Cost::from_units(units).to_string(),
            Self::Seconds => format!("{} s", Seconds(units as u64)),
            Self::SandboxSeconds => format!("{} s of a sandbox", Seconds(units as u64)),
            Self::Turns => format!("{units} turns"),
            Self::ToolCalls => format!("{units} tool calls"),
        }
    }
}

/// Seconds with up to three decimals. Read from a number, written as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Seconds(u64);

impl Seconds {
    /// From milliseconds.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// As milliseconds.
    pub fn millis(self) -> u64 {
        self.0
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        if !seconds.is_finite() || !(0.0..=1e12).contains(&seconds) {
            return Err(format!("{seconds} is no number of seconds"));
        }
        Ok(Self((seconds * 1000.0).round() as u64))
    }
}

impl From<Seconds> for f64 {
    fn from(seconds: Seconds) -> Self {
        seconds.0 as Self / 1000.0
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(*self))
    }
}

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
    /// Money, as far as prices are known.
    pub cost: Cost,
    /// Time with a driver, in milliseconds. That of sub-agents passes within it.
    pub driven_ms: u64,
    /// Time with a running sandbox, in milliseconds; that of each sub-agent's sandbox counts by itself.
    pub sandbox_ms: u64,
}

impl Spent {
    /// Adds what another run has used. Its time passed within this one's.
    pub fn add(&mut self, other: &Self) {
        self.usage.add(&other.usage);
        self.turns += other.turns;
        self.tool_calls += other.tool_calls;
        self.cost += other.cost;
        self.sandbox_ms += other.sandbox_ms;
    }

    /// How much of a resource, in whole units.
    pub fn of(&self, resource: Resource) -> u128 {
        match resource {
            Resource::Tokens => self.usage.total().into(),
            Resource::Cost => self.cost.units(),
            Resource::Seconds => self.driven_ms.into(),
            Resource::SandboxSeconds => self.sandbox_ms.into(),
            Resource::Turns => self.turns.into(),
            Resource::ToolCalls => self.tool_calls.into(),
        }
    }
}

/// Amounts that may be used; `None` where there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Money.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<Cost>,
    /// Time with a driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<Seconds>,
    /// Time with a running sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sandbox_seconds: Option<Seconds>,
    /// Turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u64>,
    /// Tool calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u64>,
}

impl Budget {
    /// How much of a resource, in whole units.
    pub fn of(&self, resource: Resource) -> Option<u128> {
        match resource {
            Resource::Tokens => self.max_tokens.map(Into::into),
            Resource::Cost => self.max_cost.map(Cost::units),
            Resource::Seconds => self.max_seconds.map(|seconds| seconds.0.into()),
            Resource::SandboxSeconds => self.max_sandbox_seconds.map(|seconds| seconds.0.into()),
            Resource::Turns => self.max_turns.map(Into::into),
            Resource::ToolCalls => self.max_tool_calls.map(Into::into),
        }
    }

    /// Amounts of each resource, in whole units.
    pub fn by(amount: impl Fn(Resource) -> Option<u128>) -> Self {
        let whole = |resource| amount(resource).map(|units| u64::try_from(units).unwrap_or(u64::MAX));
        Self {
            max_tokens: whole(Resource::Tokens),
            max_cost: amount(Resource::Cost).map(Cost::from_units),
            max_seconds: whole(Resource::Seconds).map(Seconds),
            max_sandbox_seconds: whole(Resource::SandboxSeconds).map(Seconds),
            max_turns: whole(Resource::Turns),
            max_tool_calls: whole(Resource::ToolCalls),
        }
    }

    /// What is left under limits, when this much has been used and these shares are set aside.
    pub(crate) fn left(limits: &Limits, spent: &Spent, reserved: &[Self]) -> Self {
        let most = limits.budget();
        Self::by(|resource| {
            let aside = |share: &Self| share.of(resource).unwrap_or(0);
            let aside = match resource {
                Resource::Seconds => 0,
                _ => reserved.iter().map(aside).fold(0, u128::saturating_add),
            };
            Some(most.of(resource)?.saturating_sub(spent.of(resource)).saturating_sub(aside))
        })
    }

    /// An equal part, where so many begin.
    pub(crate) fn part(&self, of: u64) -> Self {
        let of = u128::from(of.max(1));
        Self::by(|resource| {
            let left = self.of(resource)?;
            Some(if resource == Resource::Seconds { left } else { left / of })
        })
    }

    /// A share for each of the runs that are to begin, by their own limits: as much for each, except that nobody gets
    /// more than its own limit allows, and the others get what it leaves.
    pub(crate) fn shares(&self, runs: &[Limits]) -> Vec<Self> {
        let own: Vec<Self> = runs.iter().map(Limits::budget).collect();
        let level = |resource| self.of(resource).map(|left| level(left, resource, &own));
        let levels = Resource::ALL.map(level);
        let share = |own: &Self| {
            Self::by(|resource| {
                let level = levels[resource as usize]?;
                Some(own.of(resource).map_or(level, |own| own.min(level)))
            })
        };
        own.iter().map(share).collect()
    }
}

/// How much each gets whose own limit allows it: the height to which water rises that is poured into vessels of these
/// sizes.
fn level(all: u128, resource: Resource, own: &[Budget]) -> u128 {
    if resource == Resource::Seconds {
        return all;
    }
    let mut sizes: Vec<Option<u128>> = own.iter().map(|own| own.of(resource)).collect();
    // Those without a limit take what comes.
    sizes.sort_by_key(|size| size.unwrap_or(u128::MAX));
    let mut left = all;
    let mut waiting = sizes.len() as u128;
    for size in sizes {
        let equal = left / waiting;
        match size {
            Some(size) if size < equal => left -= size,
            _ => return equal,
        }
        waiting -= 1;
    }
    // Each has all that it may have.
    all
}

impl Limits {
    /// The limits of what is used up.
    pub fn budget(&self) -> Budget {
        Budget {
            max_tokens: self.max_tokens,
            max_cost: self.max_cost,
            max_seconds: self.max_seconds,
            max_sandbox_seconds: self.max_sandbox_seconds,
            max_turns: Some(self.max_turns),
            max_tool_calls: self.max_tool_calls,
        }
    }

    /// These limits, each at most what the budget has.
    pub(crate) fn within(&self, budget: &Budget) -> Self {
        let own = self.budget();
        let least = Budget::by(|resource| match (own.of(resource), budget.of(resource)) {
            (Some(own), Some(share)) => Some(own.min(share)),
            (own, share) => own.or(share),
        });
        Self {
            max_tokens: least.max_tokens,
            max_cost: least.max_cost,
            max_seconds: least.max_seconds,
            max_sandbox_seconds: least.max_sandbox_seconds,
            max_turns: least.max_turns.unwrap_or(self.max_turns),
            max_tool_calls: least.max_tool_calls,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(max_tokens: Option<u64>) -> Limits {
        Limits { max_tokens, ..Limits::default() }
    }

    #[test]
    fn who_may_use_little_leaves_the_rest_to_the_others() {
        let left = Budget { max_tokens: Some(100), ..Budget::default() };
        let shares = |own: &[Option<u64>]| -> Vec<u64> {
            let runs: Vec<Limits> = own.iter().map(|own| tokens(*own)).collect();
            left.shares(&runs).into_iter().map(|share| share.max_tokens.unwrap()).collect()
        };
        assert_eq!(shares(&[None, None]), [50, 50]);
        assert_eq!(shares(&[Some(10), None]), [10, 90]);
        assert_eq!(shares(&[None, Some(10), Some(40)]), [50, 10, 40]);
        assert_eq!(shares(&[Some(10), Some(20)]), [10, 20]);
        assert_eq!(shares(&[Some(1000), Some(1000), Some(1000)]), [33, 33, 33]);
        assert!(left.shares(&[]).is_empty());
    }

    #[test]
    fn time_passes_for_all_at_once_and_is_not_divided() {
        let left = Budget {
            max_seconds: Some(Seconds(9_000)),
            max_sandbox_seconds: Some(Seconds(9_000)),
            ..Budget::default()
        };
        for share in left.shares(&[tokens(None), tokens(None), tokens(None)]) {
            assert_eq!(
                (share.max_seconds, share.max_sandbox_seconds),
                (Some(Seconds(9_000)), Some(Seconds(3_000)))
            );
        }
    }

    proptest! {
        /// Shares never come to more than there is, and nothing is left while somebody could use it.
        #[test]
        fn shares_fit(left in 0_u64..10_000, own in proptest::collection::vec(proptest::option::of(0_u64..5_000), 1..8)) {
            let runs: Vec<Limits> = own.iter().map(|own| tokens(*own)).collect();
            let budget = Budget { max_tokens: Some(left), ..Budget::default() };
            let shares: Vec<u64> = budget.shares(&runs).into_iter().map(|share| share.max_tokens.unwrap()).collect();
            let sum: u64 = shares.iter().sum();
            prop_assert!(sum <= left);
            let hungry = own.iter().zip(&shares).any(|(own, share)| own.is_none_or(|own| own > *share));
            prop_assert!(!hungry || left - sum < own.len() as u64, "{shares:?} of {left} for {own:?}");
        }
    }
}
