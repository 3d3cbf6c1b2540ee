//! What a run uses: how large its next prompt is, what is left for the answer, and how time passes. Part of the fold
//! and of what is due, in a file of its own.
//!
//! One estimate serves all: whether a call fits the budget, how far its answer may go, and whether the conversation
//! must be shortened first. It begins with what the provider counted last and adds what came since at a token for
//! three bytes, which is more than nearly every text has. With two measures, one would say go while the other says
//! stop.

use mooring_journal::Event;
use mooring_journal::event::BudgetGranted;
use mooring_manifest::extension;
use mooring_model::{Content, Cost, FunctionOutput, Item, Usage};
use serde::Deserialize;
use serde_json::Value;

use super::State;
use crate::budget::Resource;
use crate::{Budget, Seconds};

/// The least room for an answer with which the model is asked; OpenAI refuses to be asked for less.
const LEAST_ANSWER: u64 = 16;

/// What an image counts for, in tokens: more than the providers take for one at most.
const IMAGE: u64 = 2_000;

/// What the run's last prompt was, and how time passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Meter {
    /// Tokens of the last prompt and its answer, as the provider counted them.
    known: u64,
    /// Tokens of what came since, estimated.
    added: u64,
    /// Whether a model has been asked and has not answered.
    asked: bool,
    /// When the last event was recorded.
    at_ms: Option<i64>,
    /// The time that is up.
    pub(super) over: Option<Resource>,
}

impl Meter {
    /// An item joined the conversation.
    pub(super) fn add(&mut self, item: &Item) {
        self.added += estimate(item);
    }
}

impl State {
    /// How large the next prompt is, in tokens.
    pub fn context_tokens(&self) -> u64 {
        self.meter.known + self.meter.added
    }

    /// How many tokens the model may produce next; `None` without a limit. What it will read is set aside first, and
    /// of a chain of models the dearest one counts. Agents that judge beside the model have a share too.
    pub fn answer_left(&self) -> Option<u64> {
        let read = self.context_tokens();
        let beside = self.checks_beside_model().into_iter();
        let judges = beside.filter(|check| self.agent.guardrails[check.guardrail].agent.is_some()).count();
        let parts = judges as u64 + 1;
        let by_tokens = self
            .limits
            .max_tokens
            .map(|most| (most.saturating_sub(self.spent.usage.total()) / parts).saturating_sub(read));
        let by_cost = self.limits.max_cost.and_then(|most| {
            let left = Cost::from_units(most.less(self.spent.cost).units() / u128::from(parts));
            let models = self.agent.models().map(|model| match self.prices.find(model) {
                Some(price) => price.output_for(left.less(price.most_for_input(read))),
                // Refused before the run began; and what has no price is not paid for.
                None => Some(0),
            });
            models.flatten().min()
        });
        by_tokens.into_iter().chain(by_cost).min()
    }

    /// Which limit leaves no room for another answer, if any does.
    pub(super) fn no_room(&self) -> Option<Resource> {
        if self.answer_left().is_none_or(|left| left >= LEAST_ANSWER) {
            return None;
        }
        let tokens = self.limits.max_tokens.is_some_and(|most| {
            most.saturating_sub(self.spent.usage.total() + self.context_tokens()) < LEAST_ANSWER
        });
        let money = self.limits.max_cost.is_some() && !tokens;
        Some(if money { Resource::Cost } else { Resource::Tokens })
    }

    /// How much time is left before the run must end, and which limit says so. Time since the last event is not in
    /// it: the machine has no clock.
    pub fn time_left(&self) -> Option<(u64, Resource)> {
        let most = self.limits.budget();
        let left = |resource| {
            let left = most.of(resource)?.saturating_sub(self.spent.of(resource));
            Some((u64::try_from(left).unwrap_or(u64::MAX), resource))
        };
        let sandbox = left(Resource::SandboxSeconds).filter(|_| self.sandbox.running);
        left(Resource::Seconds).into_iter().chain(sandbox).min_by_key(|(left, _)| *left)
    }

    /// What an answer costs, tries that failed included; `None` where no price is known.
    pub fn cost(&self, model: &str, usage: &Usage, retried_tokens: u64) -> Option<Cost> {
        let known = self.agent.models().filter_map(|model| self.prices.cost(model, usage));
        // Where money is limited every model has a price; an answer by another name is taken for the dearest.
        let dearest = || known.max().filter(|_| self.limits.max_cost.is_some());
        let answer = self.prices.cost(model, usage).or_else(dearest)?;
        Some(answer + self.most_for_input(retried_tokens))
    }

    /// The most that reading so many tokens costs with any model of the agent.
    pub(super) fn most_for_input(&self, tokens: u64) -> Cost {
        let prices = self.agent.models().filter_map(|model| self.prices.find(model));
        prices.map(|price| price.most_for_input(tokens)).max().unwrap_or_default()
    }

    /// Lets the time pass until an event. Time without a driver is none: before one attaches, and while the run
    /// waits for a person.
    pub(crate) fn pass(&mut self, event: &Event, at_ms: i64) {
        let since = self.meter.at_ms.replace(at_ms).unwrap_or(at_ms);
        let passed = u64::try_from(at_ms.saturating_sub(since)).unwrap_or(0);
        let driven =
            self.finished.is_none() && !matches!(event, Event::DriverAttached(attached) if attached.resumed);
        if driven {
            self.spent.driven_ms += passed;
            if self.sandbox.running {
                self.spent.sandbox_ms += passed;
            }
        }
    }

    pub(super) fn model_asked(&mut self) {
        self.meter.asked = true;
    }

    /// A model's answer will not come: it may have read its prompt all the same, and is counted as if.
    pub(super) fn give_up_answer(&mut self) {
        if std::mem::take(&mut self.meter.asked) {
            let tokens = self.context_tokens();
            self.retried(tokens);
            self.spent.cost += self.most_for_input(tokens);
        }
    }

    /// Tries that came to nothing, but may be billed.
    pub(super) fn retried(&mut self, tokens: u64) {
        self.spent.usage.input_tokens += tokens;
    }

    /// What a model's answer makes of the next prompt.
    pub(super) fn answered_with(&mut self, usage: &Usage, items: &[Item]) {
        self.meter.asked = false;
        if usage.input_tokens > 0 {
            self.meter.known = usage.total();
            self.meter.added = 0;
        } else {
            // A provider that does not count.
            self.added(items);
        }
    }

    /// No model is being asked any more.
    pub(super) fn not_asked(&mut self) {
        self.meter.asked = false;
    }

    /// Items joined the conversation.
    pub(super) fn added<'a>(&mut self, items: impl IntoIterator<Item = &'a Item>) {
        items.into_iter().for_each(|item| self.meter.add(item));
    }

    /// All of the next prompt, estimated.
    pub(super) fn estimated(&self) -> u64 {
        let tools = serde_json::to_string(&self.tools()).map_or(0, |text| text.len());
        let around = tokens(self.instructions().len() + tools);
        around + self.items.iter().map(estimate).sum::<u64>()
    }

    /// The conversation was shortened, as the estimates say: what the provider counted shrinks in proportion.
    pub(super) fn shrunk(&mut self, before: u64, after: u64) {
        let size = u128::from(self.context_tokens()) * u128::from(after) / u128::from(before.max(1));
        self.meter.known = u64::try_from(size).unwrap_or(u64::MAX);
        self.meter.added = 0;
    }

    /// The conversation, or the agent that is told it, is another: all is estimated anew.
    pub(super) fn measure(&mut self) {
        self.meter.known = 0;
        self.meter.added = self.estimated();
    }

    /// The run may use at most what its tenant's account has set aside.
    pub(super) fn granted(&mut self, granted: &BudgetGranted) -> Result<(), serde_json::Error> {
        let budget: Budget = Deserialize::deserialize(&granted.granted)?;
        self.granted = budget;
        Ok(())
    }

    /// The bounds of the run as it began, within what its tenant has for it.
    pub(super) fn bound(&mut self) {
        self.limits = self.own_limits.within(&self.granted);
    }

    /// The manifest's limit on time, which was read when the run began.
    fn time_of_manifest(&self) -> Option<u128> {
        of_manifest(&self.started.manifest).ok()?.of(Resource::Seconds)
    }

    /// What a limit said no to, how much of it was used, and what to do.
    pub(super) fn over(&self, resource: Resource) -> String {
        let most = self.limits.budget().of(resource).unwrap_or(0);
        let used = self.spent.of(resource);
        let (used, most_text) = (resource.show(used), resource.show(most));
        let next = match resource {
            Resource::Tokens | Resource::Cost => {
                format!(
                    ", and the next answer would take it over: it reads about {} tokens",
                    self.context_tokens()
                )
            }
            _ => String::new(),
        };
        let own = self.own_limits.budget().of(resource);
        let raise = match &self.started.tenant {
            Some(tenant) if own.is_none_or(|own| own > most) => {
                format!("It is what the tenant '{}' had left: `moor budget` shows its accounts", tenant.name)
            }
            _ if resource == Resource::Seconds && self.time_of_manifest() == Some(most) => {
                "Raise resources.wall_clock in the manifest for the next run".to_owned()
            }
            _ => format!("Raise {} in the agent's [limits] for the next run", resource.limit()),
        };
        format!("the run used {used} of at most {most_text}{next}. {raise}")
    }
}

/// What a run may use by its manifest: time.
pub(super) fn of_manifest(manifest: &Value) -> Result<Budget, String> {
    let asked = &manifest["x-mooring"]["resources"]["wall_clock"];
    let asked: Option<extension::Seconds> = Deserialize::deserialize(asked)
        .map_err(|error| format!("its manifest's resources.wall_clock cannot be read: {error}"))?;
    let millis = |time: extension::Seconds| Seconds::from_millis(time.seconds().saturating_mul(1000));
    Ok(Budget { max_seconds: asked.map(millis), ..Budget::default() })
}

/// What an item counts for in a prompt, in tokens.
pub(crate) fn estimate(item: &Item) -> u64 {
    let body = |body: &serde_json::Map<String, serde_json::Value>| {
        tokens(serde_json::to_string(body).map_or(0, |text| text.len()))
    };
    // What stands around it.
    8 + match item {
        Item::Message { content, .. } => content.iter().map(part).sum(),
        Item::FunctionCall { name, arguments: input, .. } | Item::CustomToolCall { name, input, .. } => {
            tokens(name.len() + input.len())
        }
        Item::FunctionCallOutput { output, .. } | Item::CustomToolCallOutput { output, .. } => match output {
            FunctionOutput::Text(text) => tokens(text.len()),
            FunctionOutput::Parts(parts) => parts.iter().map(part).sum(),
        },
        Item::Reasoning { body: fields } | Item::Other(fields) => body(fields),
    }
}

fn part(content: &Content) -> u64 {
    match content {
        Content::InputText { text }
        | Content::OutputText { text, .. }
        | Content::Refusal { refusal: text } => tokens(text.len()),
        Content::InputImage { .. } => IMAGE,
    }
}

fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(3) as u64
}
