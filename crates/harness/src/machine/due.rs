//! What is due: the decisions of the machine. It only looks; what happens is folded in `machine.rs`.

use mooring_journal::event::{RunError, RunFinished};
use mooring_model::StopReason;

use crate::budget::Resource;

use super::{Call, CallStatus, Next, Snapshots, State, Status};
use crate::Stage;

impl State {
    /// What is due now.
    pub fn next(&self) -> Next {
        if self.status != Status::Running {
            return Next::Done;
        }
        let open = self.open_calls().next().is_some();
        if self.cancelling {
            return if open { Next::Abandon } else { self.finish(Status::Cancelled, None, None) };
        }
        if let Some(tripped) = &self.checks.tripped {
            return self.finish(Status::Failed, None, Some(tripped.clone()));
        }
        if let Some(over) = self.meter.over {
            return if open { Next::Abandon } else { self.exhausted(self.over(over)) };
        }
        if let Some(reason) = &self.sandbox.failure {
            return self.finish(Status::Failed, None, Some(error("sandbox", reason.clone())));
        }
        if let Some(failure) = &self.model_failure {
            return self.finish(Status::Failed, None, Some(failure.clone()));
        }
        if !self.checks_due().is_empty() {
            return Next::Guard;
        }
        if open && self.open_calls().all(Call::waits) {
            return self.finish(Status::Waiting, None, None);
        }
        if let Some(most) = self.limits.max_tool_calls {
            let new = self.open_calls().filter(|call| call.status == CallStatus::New).count() as u64;
            if new > 0 && self.spent.tool_calls + new > most {
                let over = self.over(Resource::ToolCalls);
                return self
                    .exhausted(format!("{new} more tool calls are asked for than the run may make: {over}"));
            }
        }
        if self.sandbox.needed && !self.sandbox.running && (open || self.last_answer.is_none()) {
            return Next::Sandbox;
        }
        let partly = self.calls.iter().any(|call| call.status != CallStatus::New);
        if !partly && self.snapshot_due(false) {
            return Next::Snapshot;
        }
        if self.context_due {
            return Next::Context;
        }
        if open {
            return Next::Tools;
        }
        if let Some(to) = &self.handoff {
            return Next::HandOff { to: to.clone() };
        }
        match &self.last_answer {
            Some(answer) if !answer.called && !self.asked_since => match &answer.stop_reason {
                // The provider paused a long turn; it goes on when asked again.
                StopReason::Other(word) if word == "pause_turn" => self.next_turn(),
                StopReason::MaxOutputTokens => {
                    let message = "the model reached its limit of output tokens before it was done. \
                                   Raise max_output_tokens in the agent's [settings]";
                    let error = error("max_output_tokens", message.into());
                    self.finish(Status::Failed, Some(answer.text.clone()), Some(error))
                }
                StopReason::Refusal => {
                    let error = error("refusal", "the model declined to answer".into());
                    self.finish(Status::Failed, Some(answer.text.clone()), Some(error))
                }
                StopReason::Stop | StopReason::Other(_) => self
                    .typed_next()
                    .unwrap_or_else(|| self.finish(Status::Completed, Some(answer.text.clone()), None)),
            },
            _ => self.next_turn(),
        }
    }

    /// Whether the last answer ends the run, if nothing is wrong with it.
    pub(super) fn ends(&self) -> bool {
        self.last_answer.as_ref().is_some_and(|answer| {
            let ends = match &answer.stop_reason {
                StopReason::Stop => true,
                StopReason::Other(word) => word != "pause_turn",
                StopReason::MaxOutputTokens | StopReason::Refusal => false,
            };
            ends && !answer.called && !self.asked_since
        })
    }

    pub(super) fn next_turn(&self) -> Next {
        if self.spent.turns >= self.limits.max_turns && self.limits.max_turns < self.own_limits.max_turns {
            return self.exhausted(self.over(Resource::Turns));
        }
        if self.spent.turns >= self.limits.max_turns {
            let message = format!(
                "the run took {} turns, its limit, without an answer. Raise max_turns in the agent's [limits]",
                self.spent.turns
            );
            return self.finish(Status::Failed, self.so_far(), Some(error("max_turns", message)));
        }
        if let Some(part) = self.compaction_due() {
            return Next::Compact(part);
        }
        if let Some(overflow) = &self.compactions.overflow {
            return self.finish(Status::Failed, self.so_far(), Some(overflow.clone()));
        }
        if let Some(resource) = self.no_room() {
            return self.exhausted(self.over(resource));
        }
        if self.sandbox.needed && !self.sandbox.running {
            return Next::Sandbox;
        }
        Next::Model
    }

    /// The run ends with what it has.
    fn exhausted(&self, message: String) -> Next {
        self.finish(Status::Failed, self.so_far(), Some(error("budget_exhausted", message)))
    }

    /// What the model said last, where it said something.
    fn so_far(&self) -> Option<String> {
        self.last_answer.as_ref().map(|answer| answer.text.clone()).filter(|text| !text.is_empty())
    }

    /// Whether a snapshot is wanted of what the workspace holds now.
    fn snapshot_due(&self, ending: bool) -> bool {
        self.sandbox.running
            && self.sandbox.unsaved
            && match self.sandbox.snapshots {
                Snapshots::Never => false,
                Snapshots::Turn => true,
                Snapshots::End => ending || self.turns == 0,
            }
    }

    pub(super) fn finish(&self, status: Status, output: Option<String>, error: Option<RunError>) -> Next {
        if self.snapshot_due(true) {
            return Next::Snapshot;
        }
        // What guardrails did not see is not given away in part either.
        let guarded = || self.agent.guardrails.iter().any(|guardrail| guardrail.on == Stage::Output);
        let output = output.filter(|_| status == Status::Completed || !guarded());
        Next::Finish(Box::new(self.end(status, output, error)))
    }

    /// How the run ends because of what its driver cannot do. A resumption tries again.
    pub(crate) fn failed(&self, code: &str, message: String) -> Box<RunFinished> {
        Box::new(self.end(Status::Failed, None, Some(error(code, message))))
    }

    fn end(&self, status: Status, output: Option<String>, error: Option<RunError>) -> RunFinished {
        RunFinished {
            status: status.as_str().into(),
            output,
            error,
            usage: serde_json::to_value(self.spent.usage).unwrap_or_default(),
            turns: self.turns,
        }
    }
}

fn error(code: &str, message: String) -> RunError {
    RunError { code: code.into(), message }
}
