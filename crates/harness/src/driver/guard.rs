//! Making the checks that are due: guardrails, and whether an answer is as its schema wants it.
//!
//! Checks that are due together are made together, and recorded together once all have spoken, in the order in which
//! the agent has its guardrails; one that trips ends the others. A guardrail that is an agent is a run of its own, named
//! after the check: whoever makes the check again after a crash finds the run and goes on with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mooring_capability::{BoxFuture, ToolInput};
use mooring_journal::event::{GuardrailChecked, OutputChecked};
use mooring_journal::{Durability, Event, RunId};
use mooring_model::{FunctionOutput, Item};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::call::output_item;
use super::child::ChildRun;
use super::{Driver, elapsed_ms, json};
use crate::guardrail::{Subject, Verdict, judgement};
use crate::{
    Approval, Budget, Call, CallStatus, Check, Finished, Guardrail, GuardrailSpec, HarnessError, Stage,
    Status, SubAgent, SubSandbox, TypedOutput,
};

/// How long a guardrail has.
const DEADLINE: Duration = Duration::from_mins(2);

/// How long the runs of agents that judge have to end themselves when nobody waits for them any more.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// Checks on their way.
pub(super) struct Checks {
    running: FuturesUnordered<BoxFuture<'static, Checked>>,
    /// What those said that are over, by their place.
    done: Vec<(usize, GuardrailChecked)>,
    /// Ends those that are not.
    stop: CancellationToken,
    tripped: bool,
    /// Why the driver must stop: the run of an agent that judges cannot be recorded.
    broken: Option<HarnessError>,
}

/// What came of a check, by its place.
type Checked = (usize, Result<GuardrailChecked, HarnessError>);

impl Driver<'_> {
    /// Makes the checks without which the run cannot go on.
    pub(super) async fn guard(&mut self) -> Result<(), HarnessError> {
        let due = self.state.checks_due();
        // What a check does, a run of a judging agent above all, comes after what led to it.
        self.flush(Durability::Process).await?;
        let share = self.share(self.judges(&due));
        let checks = self.begin_checks(&due, &share);
        self.end_checks(checks).await
    }

    /// Cancels what agents that judge may have begun: the run is being cancelled.
    pub(super) async fn cancel_judges(&self) -> Result<(), HarnessError> {
        let due = self.state.checks_due().into_iter().chain(self.state.checks_beside_model());
        for check in due.filter(|check| self.judges(&[*check]) > 0) {
            self.cancel_child(&self.judge_id(check)).await?;
        }
        Ok(())
    }

    /// The run of an agent that makes a check.
    fn judge_id(&self, check: Check) -> RunId {
        let call = check.call.map(|place| format!("c{place}-")).unwrap_or_default();
        let (turn, trips) = (self.state.turns, self.state.trips());
        RunId(format!("{}-{turn}-{call}g{}-{trips}", self.run, check.guardrail))
    }

    /// How many of these checks are runs of agents.
    pub(super) fn judges(&self, due: &[Check]) -> u64 {
        let guardrails = &self.state.agent.guardrails;
        due.iter().filter(|check| guardrails[check.guardrail].agent.is_some()).count() as u64
    }

    /// Begins checks. Each agent that judges may use this much.
    pub(super) fn begin_checks(&self, due: &[Check], share: &Budget) -> Checks {
        let stop = self.cancel.child_token();
        let check = |(place, check): (usize, &Check)| {
            let checking = self.check(*check, share, stop.clone());
            Box::pin(async move { (place, checking.await) }) as BoxFuture<'static, _>
        };
        let running = due.iter().enumerate().map(check).collect();
        Checks { running, done: Vec::new(), stop, tripped: false, broken: None }
    }

    /// Waits for checks and records what they said.
    pub(super) async fn end_checks(&mut self, mut checks: Checks) -> Result<(), HarnessError> {
        if !checks.running.is_empty() {
            self.flush(Durability::Process).await?;
        }
        while !checks.over() && checks.next().await {}
        checks.stop.cancel();
        let ending = async { while checks.next().await {} };
        // One that does not stop dies with this future, and its run is taken up or cancelled by whoever comes next.
        tokio::time::timeout(STOP_GRACE, ending).await.ok();
        if let Some(error) = checks.broken {
            return Err(error);
        }
        checks.done.sort_by_key(|(place, _)| *place);
        for (_, checked) in checks.done {
            // What was ended and has used nothing says nothing.
            if checked.verdict != "cancelled" || !checked.spent.is_null() {
                self.push(Event::GuardrailChecked(Box::new(checked)))?;
            }
        }
        Ok(())
    }

    /// Holds the last answer against its schema.
    pub(super) fn check_output(&mut self) -> Result<(), HarnessError> {
        let answer = self.state.last_text().unwrap_or_default();
        let errors = self.state.agent.output.as_ref().map(|typed| typed.errors(answer)).unwrap_or_default();
        self.push(Event::OutputChecked(OutputChecked {
            turn: self.state.turns,
            valid: errors.is_empty(),
            repair: if errors.is_empty() { Value::Null } else { json(&TypedOutput::repair(&errors)) },
            errors,
        }))
    }

    /// One check. The future owns what it works with.
    fn check(
        &self,
        check: Check,
        share: &Budget,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<GuardrailChecked, HarnessError>> + Send + use<> {
        let spec = self.state.agent.guardrails[check.guardrail].clone();
        let call = check.call.map(|place| self.state.calls[place].clone());
        let subject = self.subject(spec.on, call.as_ref());
        let mut checked = GuardrailChecked {
            turn: self.state.turns,
            stage: spec.on.as_str().into(),
            name: spec.name.clone(),
            call_id: call.as_ref().map(|call| call.call_id.clone()),
            ..GuardrailChecked::default()
        };
        let work = match &spec.agent {
            Some(agent) => self.judge(check, &spec, agent, &subject, share).map(Work::Agent),
            None => match self.guards.get(check.guardrail) {
                Some(Ok(guard)) => Ok(Work::Code(Arc::clone(guard))),
                Some(Err(reason)) => Err(reason.clone()),
                None => Err("it is not among the agent's guardrails".into()),
            },
        };
        let now = Arc::clone(&self.host.now_ms);
        async move {
            let began = now();
            let said = match work {
                Err(reason) => Err(reason),
                Ok(Work::Code(guard)) => tokio::select! {
                    biased;
                    () = stop.cancelled() => Ok(None),
                    said = tokio::time::timeout(DEADLINE, guard.check(&subject)) => match said {
                        Ok(said) => said.map(Some).map_err(|error| format!("it failed: {error}")),
                        Err(_) => Err(late()),
                    },
                },
                Ok(Work::Agent(child)) => judged(*child, &spec, &stop, &mut checked).await?,
            };
            match said {
                Ok(Some(verdict)) => say(&mut checked, verdict, &spec, call.as_ref()),
                Ok(None) => checked.verdict = "cancelled".into(),
                Err(reason) => {
                    let info = format!("{reason}. A guardrail that cannot say trips");
                    say(&mut checked, Verdict::Trip(info.into()), &spec, None);
                }
            }
            checked.duration_ms = elapsed_ms(began, now());
            Ok(checked)
        }
    }

    /// What a guardrail gets to see.
    fn subject(&self, stage: Stage, call: Option<&Call>) -> Subject {
        let (tool, input) = call.map(|call| (call.tool.clone(), call.input.clone())).unwrap_or_default();
        match stage {
            Stage::Input => Subject::Input(self.state.asked()),
            Stage::Output => Subject::Output(self.state.last_text().unwrap_or_default().to_owned()),
            Stage::ToolInput => Subject::ToolInput { tool, input },
            Stage::ToolOutput => {
                let output = match call.map(|call| &call.status) {
                    Some(CallStatus::Unchecked(item)) => match item.as_ref() {
                        Item::FunctionCallOutput { output, .. }
                        | Item::CustomToolCallOutput { output, .. } => output.clone(),
                        item => FunctionOutput::Text(item.text()),
                    },
                    _ => FunctionOutput::Text(String::new()),
                };
                Subject::ToolOutput { tool, input, output }
            }
        }
    }

    /// The run of an agent that judges.
    fn judge(
        &self,
        check: Check,
        spec: &GuardrailSpec,
        agent: &str,
        subject: &Subject,
        share: &Budget,
    ) -> Result<Box<ChildRun>, String> {
        let id = self.judge_id(check);
        let as_call = Call {
            call_id: format!("guardrail:{}", spec.name),
            tool: agent.to_owned(),
            input: String::new(),
            custom: true,
            status: CallStatus::New,
            approval: Approval::NotNeeded,
            child: Some(id.clone()),
            reserved: *share,
            key: None,
            passed: BTreeSet::new(),
            answer: None,
        };
        let as_agent = SubAgent {
            agent: agent.to_owned(),
            tool: None,
            description: String::new(),
            sandbox: SubSandbox::Own,
        };
        let question = ToolInput::Text(subject.question());
        let mut child = self.child(&as_call, &as_agent, &question, id, share)?;
        child.new.entry.agent.output.get_or_insert_with(judgement);
        Ok(Box::new(child))
    }
}

/// What makes a check.
enum Work {
    Code(Arc<dyn Guardrail>),
    Agent(Box<ChildRun>),
}

impl Checks {
    /// Waits for another one; false where there is none.
    async fn next(&mut self) -> bool {
        match self.running.next().await {
            None => return false,
            Some((place, Ok(checked))) => {
                self.tripped |= checked.verdict == "trip";
                self.done.push((place, checked));
            }
            Some((_, Err(error))) => self.broken = Some(error),
        }
        true
    }

    /// Whether what the others say does not matter any more.
    fn over(&self) -> bool {
        self.tripped || self.broken.is_some()
    }

    /// Waits for this beside the checks; `None` where one tripped before it was over.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                true = self.next() => if self.over() { return None },
                done = &mut work => return Some(done),
            }
        }
    }

    /// Nobody waits for them any more.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

fn late() -> String {
    format!("it did not say within {DEADLINE:?}")
}

/// What an agent says; `None` where it was stopped. Notes the run and what it used.
async fn judged(
    mut child: ChildRun,
    spec: &GuardrailSpec,
    stop: &CancellationToken,
    checked: &mut GuardrailChecked,
) -> Result<Result<Option<Verdict>, String>, HarnessError> {
    checked.child = Some(child.new.id.clone());
    let ending = stop.child_token();
    child.host.cancel = ending.clone();
    let mut driving = child.drive();
    let (finished, overdue) = tokio::select! {
        finished = &mut driving => (finished, false),
        () = tokio::time::sleep(DEADLINE) => {
            ending.cancel();
            match tokio::time::timeout(STOP_GRACE, driving).await {
                Ok(finished) => (finished, true),
                Err(_) => return Ok(Err(late())),
            }
        }
    };
    let finished: Finished = match finished {
        Ok(finished) => finished,
        Err(error @ HarnessError::Journal(_)) => return Err(error),
        Err(error) => return Ok(Err(format!("its agent could not judge: {error}"))),
    };
    checked.spent = json(&finished.spent);
    let why = |error: Option<mooring_journal::event::RunError>| {
        error.map(|error| format!("{}: {}", error.code, error.message)).unwrap_or_default()
    };
    Ok(match finished.status {
        Status::Completed => spec.judged(&finished.output.unwrap_or_default()).map(Some),
        Status::Cancelled if overdue => Err(late()),
        Status::Cancelled => Ok(None),
        Status::Waiting => Err("its agent waits for an approval, which a guardrail cannot".into()),
        Status::Running | Status::Failed => Err(format!("its agent failed: {}", why(finished.error))),
    })
}

/// Puts a verdict into the event. One that the stage has no use for trips.
fn say(checked: &mut GuardrailChecked, verdict: Verdict, spec: &GuardrailSpec, call: Option<&Call>) {
    let (word, info) = match (verdict, spec.on, call) {
        (Verdict::Allow, ..) => ("allow", Value::Null),
        (Verdict::Trip(info), ..) => ("trip", info),
        (Verdict::Reject(message), Stage::ToolInput, Some(_)) => ("reject", message.into()),
        (Verdict::Reject(message), Stage::ToolOutput, Some(call)) => {
            let text = format!("The output was withheld by the guardrail {}: {message}.", spec.name);
            checked.output = json(&output_item(call, FunctionOutput::Text(text)));
            ("reject", message.into())
        }
        (Verdict::Replace(output), Stage::ToolOutput, Some(call)) => {
            checked.output = json(&output_item(call, output));
            ("replace", Value::Null)
        }
        (Verdict::Reject(message), ..) => {
            ("trip", format!("{message}. It rejects, and there is no tool call to reject").into())
        }
        (Verdict::Replace(_), ..) => (
            "trip",
            "it replaces what is no output of a tool. A verdict that cannot be followed trips".into(),
        ),
    };
    checked.verdict = word.into();
    checked.info = info;
}
