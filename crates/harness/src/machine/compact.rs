//! When a conversation is shortened, and the swap itself: a compare-and-swap, in the fold. See `compaction.rs` for
//! what is swapped.
//!
//! It must never go round in circles. At one point of the run there are two tries; after each, the conversation must
//! have grown before the next is worth it; after four failures in a row there are none any more. A try that fails is no
//! end: the run goes on with the conversation as it is, unless the provider has refused just that.

use std::collections::BTreeMap;
use std::ops::Range;

use mooring_journal::event::{Compacted, CompactionFailed, CompactionRequested, RunError, ToolCompleted};
use mooring_model::{Cost, Item, Usage};
use serde::Deserialize;
use serde_json::Value;

use super::{State, parse_items};
use crate::compaction::{digest_of, range};

/// Tries before the next answer of the model.
const TRIES: u64 = 2;

/// Failures in a row after which there are no more tries in this run.
const FAILURES: u32 = 4;

/// What the machine knows of shortening.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Compactions {
    /// How often the conversation was shortened.
    pub(super) done: u64,
    /// Tries since the last answer of the model.
    tries: u64,
    /// Failures in a row.
    failures: u32,
    /// The size from which on another try is worth it.
    worth_from: u64,
    /// What is being summarised.
    requested: Option<Box<CompactionRequested>>,
    /// Where the last summary stands.
    pub(super) summary: Option<usize>,
    /// The provider's refusal of a conversation that is too long.
    pub(super) overflow: Option<RunError>,
    /// Commands that still run, by the id that reaches them.
    running: BTreeMap<i64, String>,
}

impl State {
    /// The part of the conversation to summarise now, if there is one.
    pub(super) fn compaction_due(&self) -> Option<Range<usize>> {
        let settings = self.agent.compaction.as_ref().filter(|settings| !settings.provider)?;
        let known = &self.compactions;
        if known.tries >= TRIES || known.failures >= FAILURES || self.no_room().is_some() {
            return None;
        }
        let size = self.context_tokens();
        if known.overflow.is_none() && (size <= settings.at_tokens || size < known.worth_from) {
            return None;
        }
        // The second try gives up more.
        let keep = if known.tries == 0 { settings.keep_turns } else { settings.keep_turns.min(1) };
        range(&self.items, known.summary, keep)
    }

    /// How often the conversation was shortened.
    pub fn compactions(&self) -> u64 {
        self.compactions.done
    }

    /// Which try at this point of the run the next one is, from 1.
    pub fn compaction_try(&self) -> u64 {
        self.compactions.tries + 1
    }

    /// Where the last summary stands among the items.
    pub fn summary_at(&self) -> Option<usize> {
        self.compactions.summary
    }

    /// Commands that still run in the sandbox, by the id that reaches them.
    pub fn running_commands(&self) -> &BTreeMap<i64, String> {
        &self.compactions.running
    }

    /// Whether these items in the place of that part make the conversation smaller by a fifth at least.
    pub fn is_worth(&self, part: &Range<usize>, new: &[Item]) -> bool {
        let all = self.estimated();
        let part: u64 = self.items[part.clone()].iter().map(super::spend::estimate).sum();
        let new: u64 = new.iter().map(super::spend::estimate).sum();
        (all - part + new) * 5 <= all * 4
    }

    /// The model that writes summaries.
    pub fn summariser(&self) -> &str {
        let own = self.agent.compaction.as_ref().and_then(|settings| settings.model.as_deref());
        own.unwrap_or(&self.agent.model)
    }

    pub(super) fn compaction_requested(&mut self, requested: &CompactionRequested) -> Result<(), String> {
        self.part(requested.from, requested.to, &requested.digest)?;
        if self.open_calls().next().is_some() {
            return Err("tool calls are open".into());
        }
        self.model_asked();
        self.compactions.tries += 1;
        self.wait_for_growth();
        self.compactions.requested = Some(Box::new(requested.clone()));
        Ok(())
    }

    /// The swap. What it replaces must be exactly what was summarised: an item that came since is never lost.
    pub(super) fn compacted(&mut self, compacted: &Compacted) -> Result<(), String> {
        let Some(requested) = self.compactions.requested.take() else {
            return Err("nobody asked for it".into());
        };
        if (requested.from, requested.to, &requested.digest)
            != (compacted.from, compacted.to, &compacted.digest)
        {
            return Err("another part was asked for".into());
        }
        let part = self.part(compacted.from, compacted.to, &compacted.digest)?;
        let items =
            parse_items(&compacted.items).map_err(|error| format!("its items cannot be read: {error}"))?;
        if items.is_empty() {
            return Err("nothing takes the part's place".into());
        }
        self.paid(&compacted.usage, compacted.cost.as_deref(), compacted.retried_tokens)?;
        let before = self.estimated();
        self.compactions.summary = Some(part.start + items.len() - 1);
        self.items.splice(part, items);
        self.shrunk(before, self.estimated());
        self.compactions.done += 1;
        self.compactions.failures = 0;
        self.compactions.overflow = None;
        self.wait_for_growth();
        Ok(())
    }

    pub(super) fn compaction_failed(&mut self, failed: &CompactionFailed) -> Result<(), String> {
        if self.compactions.requested.take().is_none() {
            return Err("nobody asked for it".into());
        }
        self.compactions.failures += 1;
        self.paid(&failed.usage, failed.cost.as_deref(), failed.retried_tokens)
    }

    /// A new answer of the model: from here on there are tries again.
    pub(super) fn forget_tries(&mut self) {
        self.compactions.tries = 0;
        self.compactions.overflow = None;
    }

    /// The conversation is another one.
    pub(super) fn forget_summary(&mut self) {
        self.compactions.summary = None;
    }

    /// A new driver, or a new sandbox: nothing runs in it.
    pub(super) fn forget_running(&mut self) {
        self.compactions.running.clear();
    }

    /// A driver died: the summary that it waited for will not come, and another is asked for. Not for ever.
    pub(super) fn give_up_summary(&mut self) {
        if self.compactions.requested.take().is_some() {
            self.compactions.failures += 1;
            self.compactions.worth_from = 0;
        }
        self.forget_tries();
    }

    /// Notes whether a command goes on after its call, or has ended at last.
    pub(super) fn note_running(&mut self, place: usize, completed: &ToolCompleted) {
        let (call, running) = (&self.calls[place], &mut self.compactions.running);
        let input: Value = serde_json::from_str(&call.input).unwrap_or_default();
        if let Some(id) = completed.details["session_id"].as_i64() {
            let what = input["cmd"].as_str().unwrap_or(&call.tool);
            running.entry(id).or_insert_with(|| what.chars().take(200).collect());
        } else if let Some(id) = input["session_id"].as_i64() {
            running.remove(&id);
        }
    }

    fn wait_for_growth(&mut self) {
        let step = self.agent.compaction.as_ref().map_or(0, |settings| settings.at_tokens / 5);
        self.compactions.worth_from = self.context_tokens() + step.max(1);
    }

    fn part(&self, from: u64, to: u64, digest: &str) -> Result<Range<usize>, String> {
        let end = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let part = end(from)..end(to);
        let items = self.items.get(part.clone()).filter(|items| !items.is_empty());
        match items.map(digest_of) {
            Some(found) if found == digest => Ok(part),
            _ => Err("the conversation is not the one that was summarised".into()),
        }
    }

    /// A call of the model that is no turn.
    fn paid(&mut self, usage: &Value, cost: Option<&str>, retried_tokens: u64) -> Result<(), String> {
        self.not_asked();
        if !usage.is_null() {
            let usage: Usage = Deserialize::deserialize(usage)
                .map_err(|error| format!("its usage is unreadable: {error}"))?;
            self.spent.usage.add(&usage);
            *self.answers.entry(self.summariser().to_owned()).or_default() += 1;
        }
        self.retried(retried_tokens);
        self.spent.cost += cost.map_or(Ok(Cost::default()), Cost::parse)?;
        Ok(())
    }
}
