//! Checks: which guardrails have yet to speak, what they said, and whether the answer is as its schema wants it.

use std::collections::BTreeSet;

use mooring_journal::event::{GuardrailChecked, OutputChecked, RunError};
use mooring_model::Item;
use serde_json::Value;

use super::{Approval, Call, CallStatus, Next, State, or_default, parse_item};
use crate::policy::glob;
use crate::{GuardrailSpec, Spent, Stage};

/// A check that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Which guardrail of the agent at work.
    pub guardrail: usize,
    /// Which of [`State::calls`] it is about; `None` for the run's input and output.
    pub call: Option<usize>,
}

/// What was checked so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Checks {
    /// The guardrails that let the run's input pass.
    input: BTreeSet<String>,
    /// Those that let the last answer pass.
    output: BTreeSet<String>,
    /// Why the run ends.
    pub(super) tripped: Option<RunError>,
    /// How often a guardrail tripped in this run: a check that is made again is another one.
    trips: u64,
    /// Whether the last answer is as its schema wants it, once that was checked.
    valid: Option<bool>,
    /// How many answers in a row were not.
    invalid: u64,
}

impl Checks {
    /// A new driver checks again what ended the run.
    pub(super) fn attach(&mut self) {
        self.tripped = None;
        self.invalid = 0;
    }

    /// The user asks something else.
    pub(super) fn asked_again(&mut self) {
        self.input.clear();
    }

    /// There is another answer.
    pub(super) fn answered(&mut self) {
        self.output.clear();
        self.valid = None;
    }

    /// Another agent goes on.
    pub(super) fn handed_off(&mut self) {
        self.invalid = 0;
    }
}

impl State {
    /// The checks without which the run cannot go on.
    pub fn checks_due(&self) -> Vec<Check> {
        if self.agent.guardrails.is_empty() {
            return Vec::new();
        }
        let input = self.input_checks(true);
        if !input.is_empty() {
            return input;
        }
        if self.last_answer.is_some() {
            let input = self.input_checks(false);
            if !input.is_empty() {
                return input;
            }
        }
        let calls = self.calls.iter().enumerate().filter_map(|(at, call)| {
            let guardrail = *self.call_checks(call).first()?;
            Some(Check { guardrail, call: Some(at) })
        });
        let calls: Vec<Check> = calls.collect();
        if !calls.is_empty() || !self.ends() || !self.is_valid() {
            return calls;
        }
        self.of_stage(Stage::Output, &self.checks.output)
    }

    /// The checks that can be made while the model is asked.
    pub fn checks_beside_model(&self) -> Vec<Check> {
        self.input_checks(false)
    }

    /// What makes the run of an agent that judges another one each time that a guardrail tripped.
    pub(crate) fn trips(&self) -> u64 {
        self.checks.trips
    }

    /// The text of the last answer.
    pub fn last_text(&self) -> Option<&str> {
        self.last_answer.as_ref().map(|answer| answer.text.as_str())
    }

    /// What is due about an answer that would be the last one, where it must be as a schema wants it.
    pub(super) fn typed_next(&self) -> Option<Next> {
        let typed = self.agent.output.as_ref()?;
        match self.checks.valid {
            None => Some(Next::CheckOutput),
            Some(true) => None,
            Some(false) if self.checks.invalid <= typed.repairs => Some(self.next_turn()),
            Some(false) => {
                let message = format!(
                    "the answer is not as output_schema wants it, {} times in a row. `moor events` has the errors; try a \
                     stronger model, a simpler schema, or more output_repairs",
                    self.checks.invalid
                );
                let error = RunError { code: "invalid_output".into(), message };
                Some(self.finish(super::Status::Failed, self.last_text().map(str::to_owned), Some(error)))
            }
        }
    }

    fn is_valid(&self) -> bool {
        self.agent.output.is_none() || self.checks.valid == Some(true)
    }

    fn input_checks(&self, blocking: bool) -> Vec<Check> {
        // Those of the agent that the run began with, and of no other.
        if self.started.agent["name"] != self.agent.name.as_str() {
            return Vec::new();
        }
        let mut due = self.of_stage(Stage::Input, &self.checks.input);
        due.retain(|check| self.agent.guardrails[check.guardrail].blocking == blocking);
        due
    }

    fn of_stage(&self, stage: Stage, passed: &BTreeSet<String>) -> Vec<Check> {
        let due = self.agent.guardrails.iter().enumerate();
        due.filter(|(_, guardrail)| guardrail.on == stage && !passed.contains(&guardrail.name))
            .map(|(guardrail, _)| Check { guardrail, call: None })
            .collect()
    }

    /// The guardrails that have yet to look at a call, as far as it has come.
    fn call_checks(&self, call: &Call) -> Vec<usize> {
        let stage = match (&call.status, &call.approval) {
            (CallStatus::New, Approval::NotNeeded) => Stage::ToolInput,
            (CallStatus::Unchecked(_), _) => Stage::ToolOutput,
            _ => return Vec::new(),
        };
        let due = |guardrail: &GuardrailSpec| {
            guardrail.on == stage
                && glob(guardrail.tool.as_deref().unwrap_or("*"), &call.tool)
                && !call.passed.contains(&guardrail.name)
        };
        let guardrails = self.agent.guardrails.iter().enumerate();
        guardrails.filter(|(_, guardrail)| due(guardrail)).map(|(at, _)| at).collect()
    }

    /// How a call stands once its tool has given this.
    pub(super) fn given(&self, call: &Call, output: Item, provenance: &str) -> CallStatus {
        let unchecked = Call { status: CallStatus::Unchecked(Box::new(output)), ..call.clone() };
        // What the runtime itself says of a call holds nothing that a tool gave.
        let checked = provenance == "runtime" || self.call_checks(&unchecked).is_empty();
        match unchecked.status {
            CallStatus::Unchecked(output) if checked => CallStatus::Done(output),
            status => status,
        }
    }

    /// Folds what a guardrail said. Whatever is not plainly a pass is none.
    pub(super) fn guardrail_checked(&mut self, checked: &GuardrailChecked) -> Result<(), String> {
        let spent: Spent = or_default(&checked.spent);
        self.spent.add(&spent);
        let passes = match checked.verdict.as_str() {
            "cancelled" => return Ok(()),
            "allow" => true,
            "reject" | "replace" => checked.call_id.is_some(),
            _ => false,
        };
        if !passes {
            self.checks.trips += 1;
            let info = match &checked.info {
                Value::Null => String::new(),
                Value::String(info) => format!(": {info}"),
                info => format!(": {info}"),
            };
            let on = checked.call_id.as_ref().map(|id| format!(" of call {id}")).unwrap_or_default();
            let message = format!(
                "guardrail '{}' stopped the run at the {}{on}{info}. A resumed run is checked again",
                checked.name,
                checked.stage.replace('_', " ")
            );
            self.checks.tripped = Some(RunError { code: "guardrail_tripped".into(), message });
            return Ok(());
        }
        let Some(call_id) = &checked.call_id else {
            let passed =
                if checked.stage == "input" { &mut self.checks.input } else { &mut self.checks.output };
            passed.insert(checked.name.clone());
            return Ok(());
        };
        let at = |status: &CallStatus| match checked.stage.as_str() {
            "tool_input" => *status == CallStatus::New,
            _ => matches!(status, CallStatus::Unchecked(_)),
        };
        let place = self.calls.iter().position(|call| {
            call.call_id == *call_id && at(&call.status) && !call.passed.contains(&checked.name)
        });
        let Some(place) = place else { return Err("no call of that id waits for it".into()) };
        let output = (!checked.output.is_null()).then(|| parse_item(&checked.output)).transpose()?;
        let call = &mut self.calls[place];
        let held = matches!(call.status, CallStatus::Unchecked(_));
        if held && output.is_none() && checked.verdict != "allow" {
            return Err("it does not say what the model gets instead".into());
        }
        call.passed.insert(checked.name.clone());
        match (&mut call.status, output) {
            (CallStatus::Unchecked(held), Some(output)) => **held = output,
            (CallStatus::New, _) if checked.verdict != "allow" => {
                let why = checked.info.as_str().map(|why| format!(": {why}")).unwrap_or_default();
                let text = format!(
                    "rejected by the guardrail {}{why}. Do not try to get the same in another way.",
                    checked.name
                );
                call.approval = Approval::Denied(text);
            }
            _ => {}
        }
        if self.call_checks(&self.calls[place]).is_empty()
            && let CallStatus::Unchecked(output) = &mut self.calls[place].status
        {
            let output = std::mem::replace(output, Box::new(Item::user("")));
            self.calls[place].status = CallStatus::Done(output);
            self.close_turn();
        }
        Ok(())
    }

    /// Folds what the check of an answer gave.
    pub(super) fn output_checked(&mut self, checked: &OutputChecked) -> Result<(), String> {
        self.checks.valid = Some(checked.valid);
        self.checks.invalid = if checked.valid { 0 } else { self.checks.invalid + 1 };
        if !checked.repair.is_null() {
            self.items.push(parse_item(&checked.repair)?);
        }
        Ok(())
    }
}
