//! Calling tools: intents first, then all at once, each outcome recorded as it comes.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mooring_capability::{
    Effect, Question, Reconciled, Tool, ToolContext, ToolInput, ToolResult, ToolStatus,
};
use mooring_journal::event::{
    ApprovalAnswered, ApprovalRequested, SandboxLost, ToolCompleted, ToolRequested, ToolSuspended,
};
use mooring_journal::{Durability, Event};
use mooring_model::{FunctionOutput, Item};
use mooring_sandbox::NoSandbox;
use serde_json::{Map, Value};

use super::child::ChildRun;
use super::{Driver, elapsed_ms, json};
use crate::policy::{self, Action, Asked, digest};
use crate::team::handed_over;
use crate::{Approval, Budget, Call, CallStatus, Finished, HarnessError, Live, Status, SubAgent};

/// What the model is told of a call that a crash left in doubt.
const OUTCOME_UNKNOWN: &str = "outcome_unknown: the runtime was interrupted while this call was running. \
    It is not known whether it took effect, in whole or in part, and it was not repeated. \
    Look at the state of the workspace before you do anything that depends on it.";

/// How long the runs that calls started have to end themselves when the run is cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(30);

/// What a call means.
enum Target {
    Tool(Arc<dyn Tool>),
    Handoff(String),
    Agent(SubAgent),
}

/// A call whose intent is recorded.
struct Ready {
    call: Call,
    work: Work,
}

/// What there is to do for it.
enum Work {
    Tool { tool: Arc<dyn Tool>, input: ToolInput, prepared: Value, in_doubt: bool },
    Child(Box<ChildRun>),
}

/// What came of a call.
struct Outcome {
    call: Call,
    came: Came,
    duration_ms: u64,
}

enum Came {
    Result { provenance: &'static str, result: ToolResult },
    Unknown,
    Child(Result<Finished, HarnessError>),
    Cancelled,
}

impl Driver<'_> {
    pub(super) async fn call_tools(&mut self) -> Result<(), HarnessError> {
        let ready = self.record_intents().await?;
        if ready.is_empty() {
            return Ok(());
        }
        let limit = Arc::new(tokio::sync::Semaphore::new(self.state.limits.max_parallel_tools.max(1)));
        let mut running: FuturesUnordered<_> =
            ready.into_iter().map(|ready| self.perform(ready, Arc::clone(&limit))).collect();
        let mut lost = None;
        let cancel = self.cancel.clone();
        let overdue = async move {
            cancel.cancelled().await;
            tokio::time::sleep(CANCEL_GRACE).await;
        };
        tokio::pin!(overdue);
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = running.next() => outcome,
                () = &mut overdue => break,
            };
            let Some(Outcome { call, came, duration_ms }) = outcome else { break };
            let turn = self.state.turns;
            let event = match came {
                Came::Result { result: ToolResult { question: Some(question), .. }, .. } => {
                    self.suspend(&call, *question)?;
                    self.flush(Durability::Process).await?;
                    continue;
                }
                Came::Result { provenance, result } => {
                    if result.session_lost {
                        lost = Some(result.output.text());
                    }
                    completed(turn, &call, provenance, &result, duration_ms)
                }
                Came::Unknown => unknown(turn, &call),
                Came::Child(ended) => child_ended(turn, &call, ended, duration_ms)?,
                Came::Cancelled => continue,
            };
            self.push(event)?;
            if !running.is_empty() {
                // The last outcome waits for the next request of the model; the others are recorded now, since
                // their siblings may take long.
                self.flush(Durability::Process).await?;
            }
        }
        drop(running);
        if let Some(reason) = lost {
            self.session = None;
            let session_id = self.state.sandbox.session_id.clone();
            self.push(Event::SandboxLost(SandboxLost { session_id, reason }))?;
        }
        Ok(())
    }

    /// The run is being cancelled: what its calls started is ended, and each is answered, so that the conversation
    /// stays whole.
    pub(super) async fn abandon_calls(&mut self) -> Result<(), HarnessError> {
        if let Some(session) = &self.session {
            // A sandbox that does not stop dies with this process; the run is cancelled all the same.
            session.stop().await.ok();
        }
        self.cancel_judges().await?;
        let open: Vec<Call> = self.state.open_calls().cloned().collect();
        for call in open {
            let spent = match &call.child {
                Some(child) => Some(self.cancel_child(child).await?),
                None => None,
            };
            let why = if self.state.cancelling { "the run was cancelled" } else { "the run's time was up" };
            let began = call.status != CallStatus::New;
            let text = if matches!(call.status, CallStatus::Unchecked(_)) {
                format!(
                    "cancelled: {why} before guardrails had looked at what this call gave; it took effect."
                )
            } else if began {
                format!("cancelled: {why} while this call was running; it may have taken effect in part.")
            } else {
                format!("cancelled: {why} before this call began.")
            };
            let mut event = answer(self.state.turns, &call, "cancelled", "runtime", &text);
            if let Event::ToolCompleted(completed) = &mut event
                && let Some(spent) = spent
            {
                completed.spent = json(&spent);
            }
            self.push(event)?;
        }
        Ok(())
    }

    /// Records the intents of new calls, answers those that cannot be called, and gives those that can.
    async fn record_intents(&mut self) -> Result<Vec<Ready>, HarnessError> {
        let turn = self.state.turns;
        let calls: Vec<Call> = self.state.open_calls().cloned().collect();
        let mut ready = Vec::with_capacity(calls.len());
        let mut durability = Durability::Process;
        // Each run that begins now gets its share of what is left.
        let mate = |call: &Call| {
            let agents = &self.state.agent.agents;
            let agent = agents.iter().find(|agent| agent.tool_name() == call.tool)?;
            (call.status == CallStatus::New).then_some(agent.agent.as_str())
        };
        let mates: Vec<Option<&str>> = calls.iter().map(mate).collect();
        let starting: Vec<&str> = mates.iter().copied().flatten().collect();
        let mut shares = self.shares(&starting).into_iter();
        let shares: Vec<Budget> =
            mates.iter().map(|mate| mate.and_then(|_| shares.next()).unwrap_or_default()).collect();
        // Of those that guardrails have yet to look at, the outputs are there.
        let open = |call: &Call| !call.waits() && !matches!(call.status, CallStatus::Unchecked(_));
        for (call, share) in calls.into_iter().zip(shares).filter(|(call, _)| open(call)) {
            let (target, input) = match self.resolve(&call) {
                Ok(resolved) => resolved,
                Err(reason) => {
                    self.push(answer(turn, &call, "failed", "runtime", &reason))?;
                    continue;
                }
            };
            if let CallStatus::Suspended { prepared } = &call.status
                && let (Target::Tool(tool), Some(answer)) = (&target, &call.answer)
            {
                let prepared = serde_json::json!({"state": prepared, "answer": answer});
                if tool.effect() != Effect::Pure {
                    durability = Durability::Power;
                }
                let requested = intent(turn, &call, tool.effect(), self.context(&call).key);
                self.push(Event::ToolRequested(ToolRequested { prepared: prepared.clone(), ..requested }))?;
                let work = Work::Tool { tool: Arc::clone(tool), input, prepared, in_doubt: false };
                ready.push(Ready { call, work });
                continue;
            }
            if let CallStatus::InDoubt { prepared } = &call.status {
                let prepared = prepared.clone();
                let work = match target {
                    Target::Tool(tool) => Work::Tool { tool, input, prepared, in_doubt: true },
                    Target::Agent(agent) => {
                        let id = call.child.clone().unwrap_or_else(|| self.state.child_id(&self.run, &call));
                        match self.child(&call, &agent, &input, id, &call.reserved) {
                            Ok(child) => Work::Child(Box::new(child)),
                            Err(reason) => {
                                self.push(answer(turn, &call, "failed", "runtime", &reason))?;
                                continue;
                            }
                        }
                    }
                    // Handing over has no intent: it is one event.
                    Target::Handoff(_) => continue,
                };
                ready.push(Ready { call, work });
                continue;
            }
            // Where nothing is isolated, no tool stays inside.
            let leaves_sandbox =
                matches!(&target, Target::Tool(tool) if tool.leaves_sandbox() || self.unisolated());
            if !self.may_call(&call, leaves_sandbox, &input)? {
                continue;
            }
            let (requested, work) = match target {
                Target::Handoff(to) => {
                    self.push(self.handoff_answer(&call, &to))?;
                    continue;
                }
                Target::Agent(agent) => {
                    let id = self.state.child_id(&self.run, &call);
                    match self.child(&call, &agent, &input, id.clone(), &share) {
                        Ok(child) => {
                            let requested = intent(turn, &call, Effect::Idempotent, id.0.clone());
                            let reserved = json(&share);
                            let requested = ToolRequested { child: Some(id), reserved, ..requested };
                            (requested, Work::Child(Box::new(child)))
                        }
                        Err(reason) => {
                            self.push(answer(turn, &call, "failed", "runtime", &reason))?;
                            continue;
                        }
                    }
                }
                Target::Tool(tool) => {
                    let context = self.context(&call);
                    let prepared = match tool.prepare(&context, &input).await {
                        Ok(prepared) => prepared,
                        Err(result) => {
                            self.push(completed(turn, &call, provenance(tool.as_ref()), &result, 0))?;
                            continue;
                        }
                    };
                    if tool.effect() != Effect::Pure {
                        durability = Durability::Power;
                    }
                    let requested = intent(turn, &call, tool.effect(), context.key);
                    let requested = ToolRequested { prepared: prepared.clone(), ..requested };
                    (requested, Work::Tool { tool, input, prepared, in_doubt: false })
                }
            };
            self.push(Event::ToolRequested(requested))?;
            ready.push(Ready { call, work });
        }
        if !ready.is_empty() {
            self.flush(durability).await?;
        }
        Ok(ready)
    }

    /// The call waits for a person's answer, as one that the policy asks about does.
    fn suspend(&mut self, call: &Call, question: Question) -> Result<(), HarnessError> {
        let Question { message, schema, state } = question;
        self.push(Event::ToolSuspended(ToolSuspended {
            turn: self.state.turns,
            call_id: call.call_id.clone(),
            tool: call.tool.clone(),
            reason: message.clone(),
            child: None,
            state: state.clone(),
        }))?;
        // A server may ask the same twice: its place in the run makes it another question.
        let about = serde_json::json!([call.input, message, schema, state, self.state.last_seq]).to_string();
        let asked =
            ApprovalRequested { reason: message, input: true, schema, ..ApprovalRequested::default() };
        self.request_approval(call, &about, asked)
    }

    /// Puts a question to a person. It is named after all that makes it what it is.
    fn request_approval(
        &mut self,
        call: &Call,
        about: &str,
        asked: ApprovalRequested,
    ) -> Result<(), HarnessError> {
        let turn = self.state.turns;
        let policy = &self.state.agent.policy;
        let digest = digest(&[call.tool.as_bytes(), about.as_bytes()]);
        let policy_version = policy.version();
        // The place among the turn's calls too: two calls may have one id.
        let place = self.state.calls.iter().filter(|other| other.approval != Approval::NotNeeded).count();
        let key = format!("{}\0{turn}\0{}\0{place}", self.run, call.call_id);
        let id = policy::digest(&[key.as_bytes(), digest.as_bytes(), policy_version.as_bytes()]);
        let seconds = i64::try_from(policy.expires_s).unwrap_or(i64::MAX);
        let expires_ms = self.now().saturating_add(seconds.saturating_mul(1000));
        self.push(Event::ApprovalRequested(ApprovalRequested {
            approval_id: id.chars().take(12).collect(),
            turn,
            call_id: call.call_id.clone(),
            tool: call.tool.clone(),
            digest,
            policy_version,
            expires_ms,
            ..asked
        }))
    }

    /// Takes a handoff, or says why not.
    fn handoff_answer(&self, call: &Call, to: &str) -> Event {
        if let Some(other) = self.state.handoff() {
            let text = format!("The conversation is handed over to {other} already; this was ignored.");
            return answer(self.state.turns, call, "failed", "runtime", &text);
        }
        Event::ToolCompleted(Box::new(ToolCompleted {
            turn: self.state.turns,
            call_id: call.call_id.clone(),
            tool: call.tool.clone(),
            status: "completed".into(),
            output: json(&output_item(call, handed_over(to))),
            provenance: "runtime".into(),
            handoff: Some(to.into()),
            ..ToolCompleted::default()
        }))
    }

    /// What nobody answered in time counts as denied.
    pub(super) fn expire_approvals(&mut self) -> Result<(), HarnessError> {
        let now = self.now();
        let over = |(_, asked): &(&Call, &ApprovalRequested)| now > asked.expires_ms;
        let over: Vec<String> =
            self.state.approvals().filter(over).map(|(_, asked)| asked.approval_id.clone()).collect();
        for approval_id in over {
            self.push(Event::ApprovalAnswered(ApprovalAnswered {
                approval_id,
                decision: "expired".into(),
                by: "the clock".into(),
                ..ApprovalAnswered::default()
            }))?;
        }
        Ok(())
    }

    /// Whether the run has a sandbox that isolates nothing.
    fn unisolated(&self) -> bool {
        self.state.started.sandbox["options"]["isolation"] == "none"
    }

    /// Whether a call may take place now. Records what the policy says against it.
    fn may_call(
        &mut self,
        call: &Call,
        leaves_sandbox: bool,
        input: &ToolInput,
    ) -> Result<bool, HarnessError> {
        let turn = self.state.turns;
        match &call.approval {
            Approval::Allowed => return Ok(true),
            Approval::Denied(reason) => {
                self.push(answer(turn, call, "denied", "runtime", reason))?;
                return Ok(false);
            }
            Approval::Asked(_) => return Ok(false),
            Approval::NotNeeded => {}
        }
        let text;
        let arguments = match input {
            ToolInput::Json(arguments) => arguments,
            ToolInput::Text(input) => {
                text = serde_json::json!({ "input": input });
                &text
            }
        };
        let policy = &self.state.agent.policy;
        let backend = self.state.started.sandbox["backend"].as_str().filter(|_| !self.unisolated());
        let decision = policy.decide(&Asked {
            tool: &call.tool,
            arguments,
            sandbox: backend.unwrap_or("none"),
            read: &self.state.read,
            leaves_sandbox,
        });
        match decision.action {
            Action::Allow => Ok(true),
            Action::Ask if self.state.allowed.contains(&(decision.rule, call.tool.clone())) => Ok(true),
            Action::Deny => {
                let text = format!(
                    "denied by the policy: {}. Do not try to get the same in another way.",
                    decision.reason
                );
                self.push(answer(turn, call, "denied", "runtime", &text))?;
                Ok(false)
            }
            Action::Ask => {
                let (rule, reason) = (decision.rule, decision.reason);
                let asked = ApprovalRequested { rule, reason, ..ApprovalRequested::default() };
                self.request_approval(call, &call.input, asked)?;
                Ok(false)
            }
        }
    }

    /// What a call means and its input, or what to tell the model.
    fn resolve(&self, call: &Call) -> Result<(Target, ToolInput), String> {
        let agent = &self.state.agent;
        let target = if let Some(tool) = self.tools.get(&call.tool) {
            Target::Tool(Arc::clone(tool))
        } else if let Some(handoff) = agent.handoffs.iter().find(|handoff| handoff.tool_name() == call.tool) {
            Target::Handoff(handoff.agent.clone())
        } else if let Some(agent) = agent.agents.iter().find(|agent| agent.tool_name() == call.tool) {
            Target::Agent(agent.clone())
        } else {
            if self.specs.iter().any(|spec| spec.name == call.tool) {
                return Err(format!(
                    "{} cannot be reached now. Go on without it, or say that you need it.",
                    call.tool
                ));
            }
            let names: Vec<&str> = self.specs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(format!(
                "There is no tool named '{}'. The tools are: {}.",
                call.tool,
                names.join(", ")
            ));
        };
        if call.custom {
            return Ok((target, ToolInput::Text(call.input.clone())));
        }
        let text = if call.input.trim().is_empty() { "{}" } else { &call.input };
        match serde_json::from_str(text) {
            Ok(arguments @ Value::Object(_)) => Ok((target, ToolInput::Json(arguments))),
            Ok(_) => {
                Err(format!("The arguments of {} must be a JSON object. Call it again with one.", call.tool))
            }
            Err(error) => Err(format!(
                "The arguments of {} are not valid JSON ({error}). Call it again with valid arguments.",
                call.tool
            )),
        }
    }

    fn context(&self, call: &Call) -> ToolContext {
        let observer = Arc::clone(&self.host.observer);
        let call_id = call.call_id.clone();
        ToolContext {
            session: self.session.clone().unwrap_or_else(|| Arc::new(NoSandbox)),
            key: call
                .key
                .clone()
                .unwrap_or_else(|| format!("{}:{}:{}", self.run, self.state.turns, call.call_id)),
            progress: Arc::new(move |text: &str| {
                observer.live(Live::ToolOutput { call_id: call_id.clone(), text: text.to_owned() });
            }),
        }
    }

    /// Performs one call. The future owns what it works with, so that outcomes can be recorded meanwhile.
    fn perform(
        &self,
        ready: Ready,
        limit: Arc<tokio::sync::Semaphore>,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let context = self.context(&ready.call);
        let now = Arc::clone(&self.host.now_ms);
        let seconds = self.state.limits.tool_timeout_s;
        let cancel = self.cancel.clone();
        async move {
            // The semaphore is never closed.
            let _permit = limit.acquire().await;
            let began = now();
            let Ready { call, work } = ready;
            let came = match work {
                // It has limits of its own, and is cancelled with this run.
                Work::Child(child) => Came::Child(child.drive().await),
                Work::Tool { tool, input, prepared, in_doubt } => {
                    let answering = call_tool(tool.as_ref(), &context, &input, &prepared, in_doubt);
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => Came::Cancelled,
                        answer = tokio::time::timeout(Duration::from_secs(seconds), answering) => {
                            let provenance = provenance(tool.as_ref());
                            match answer {
                                Ok(Some(result)) => Came::Result { provenance, result },
                                Ok(None) => Came::Unknown,
                                Err(_) => Came::Result { provenance, result: too_slow(&call.tool, seconds) },
                            }
                        }
                    }
                }
            };
            Outcome { call, came, duration_ms: elapsed_ms(began, now()) }
        }
    }
}

/// That a call is about to be made.
fn intent(turn: u64, call: &Call, effect: Effect, key: String) -> ToolRequested {
    ToolRequested {
        turn,
        call_id: call.call_id.clone(),
        tool: call.tool.clone(),
        arguments: call.input.clone(),
        effect: json(&effect).as_str().unwrap_or_default().to_owned(),
        key,
        ..ToolRequested::default()
    }
}

/// Calls a tool, or finds out what became of a call that is in doubt. `None`: nobody can tell.
async fn call_tool(
    tool: &dyn Tool,
    context: &ToolContext,
    input: &ToolInput,
    prepared: &Value,
    in_doubt: bool,
) -> Option<ToolResult> {
    match (in_doubt, tool.effect()) {
        (false, _) | (true, Effect::Pure | Effect::Idempotent) => {
            Some(tool.call(context, input, prepared).await)
        }
        (true, Effect::AtMostOnce | Effect::Compensatable) => {
            match tool.reconcile(context, input, prepared).await {
                Reconciled::Done(result) => Some(result),
                Reconciled::NotStarted => Some(tool.call(context, input, prepared).await),
                Reconciled::Unknown => None,
            }
        }
    }
}

fn too_slow(tool: &str, seconds: u64) -> ToolResult {
    ToolResult::failed(format!(
        "{tool} did not answer within {seconds} s. It may have taken effect in part: look before you repeat it."
    ))
}

/// What the run that a call started means for the call. An error that is this run's too stops it.
fn child_ended(
    turn: u64,
    call: &Call,
    ended: Result<Finished, HarnessError>,
    duration_ms: u64,
) -> Result<Event, HarnessError> {
    let ended = match ended {
        Ok(ended) => ended,
        Err(error @ HarnessError::Journal(_)) => return Err(error),
        Err(error) => {
            let text = format!("{} could not do it: {error}", call.tool);
            return Ok(answer(turn, call, "failed", "runtime", &text));
        }
    };
    let error = ended.error.map(|error| format!("{}: {}", error.code, error.message)).unwrap_or_default();
    let output = ended.output.unwrap_or_default();
    let (status, text) = match ended.status {
        Status::Completed => ("completed", output),
        Status::Waiting => {
            return Ok(Event::ToolSuspended(ToolSuspended {
                turn,
                call_id: call.call_id.clone(),
                tool: call.tool.clone(),
                reason: format!("run {} waits for an approval", ended.run),
                child: Some(ended.run),
                state: Value::Null,
            }));
        }
        Status::Cancelled => ("cancelled", format!("{} was cancelled before it was done.", call.tool)),
        Status::Running | Status::Failed if output.is_empty() => {
            ("failed", format!("{} failed: {error}", call.tool))
        }
        Status::Running | Status::Failed => {
            ("failed", format!("{} failed: {error}\n\nWhat it had so far:\n\n{output}", call.tool))
        }
    };
    Ok(Event::ToolCompleted(Box::new(ToolCompleted {
        turn,
        call_id: call.call_id.clone(),
        tool: call.tool.clone(),
        status: status.into(),
        output: json(&output_item(call, FunctionOutput::Text(text))),
        details: serde_json::json!({"run": ended.run, "turns": ended.turns}),
        provenance: "agent".into(),
        duration_ms,
        handoff: None,
        spent: json(&ended.spent),
    })))
}

/// Where a tool's output comes from.
fn provenance(tool: &dyn Tool) -> &'static str {
    if tool.leaves_sandbox() { "tool" } else { "sandbox" }
}

fn completed(turn: u64, call: &Call, provenance: &str, result: &ToolResult, duration_ms: u64) -> Event {
    let status = match result.status {
        ToolStatus::Completed => "completed",
        ToolStatus::Failed => "failed",
    };
    Event::ToolCompleted(Box::new(ToolCompleted {
        turn,
        call_id: call.call_id.clone(),
        tool: call.tool.clone(),
        status: status.into(),
        output: json(&output_item(call, result.output.clone())),
        details: result.details.clone(),
        provenance: provenance.into(),
        duration_ms,
        ..ToolCompleted::default()
    }))
}

fn unknown(turn: u64, call: &Call) -> Event {
    answer(turn, call, "outcome_unknown", "runtime", OUTCOME_UNKNOWN)
}

fn answer(turn: u64, call: &Call, status: &str, provenance: &str, text: &str) -> Event {
    Event::ToolCompleted(Box::new(ToolCompleted {
        turn,
        call_id: call.call_id.clone(),
        tool: call.tool.clone(),
        status: status.into(),
        output: json(&output_item(call, FunctionOutput::Text(text.into()))),
        provenance: provenance.into(),
        ..ToolCompleted::default()
    }))
}

pub(super) fn output_item(call: &Call, output: FunctionOutput) -> Item {
    let call_id = call.call_id.clone();
    if call.custom {
        Item::CustomToolCallOutput { call_id, output, extra: Map::new() }
    } else {
        Item::FunctionCallOutput { call_id, output, extra: Map::new() }
    }
}
