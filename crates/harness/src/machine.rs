//! The agent loop as a state machine without I/O, clock or randomness.
//!
//! `apply` folds an event into the state; `next` says what is due. Both are plain functions of their input, so a
//! run can be replayed, forked and killed at any event in a test. The cost of both does not grow with the run:
//! nothing looks at more than the current turn.

mod checks;
mod compact;
mod due;
mod spend;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use mooring_journal::event::{
    ApprovalAnswered, ApprovalRequested, History, RunError, RunFinished, RunStarted,
};
use mooring_journal::{Event, Record, RunId};
use mooring_model::{Cost, Item, Prices, StopReason, ToolSpec, Usage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::budget::{Budget, Resource, Spent};
use crate::run::{AgentSpec, Limits};

pub use checks::Check;
use checks::Checks;
use compact::Compactions;
use spend::{Meter, of_manifest};

/// Where a run stands, for people and listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It goes on, if a driver holds it.
    Running,
    /// It ended with an answer.
    Completed,
    /// It ended with an error. It can be resumed once the cause is gone.
    Failed,
    /// It was cancelled. It can be resumed.
    Cancelled,
    /// It waits for a person to approve a call. It goes on when it is resumed after the answer.
    Waiting,
}

impl Status {
    /// The word in events and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Waiting => "waiting",
        }
    }
}

/// How far a tool call of the current turn has come.
#[derive(Debug, Clone, PartialEq)]
pub enum CallStatus {
    /// The model asked for it; nothing has been done.
    New,
    /// Its intent is recorded by this driver.
    Requested {
        /// What the tool had found out beforehand.
        prepared: Value,
    },
    /// Its intent was recorded by a driver that is gone: nobody knows whether it began.
    InDoubt {
        /// What the tool had found out beforehand.
        prepared: Value,
    },
    /// It waits for a person's answer: to a question of its own, or in the run that it started.
    Suspended {
        /// What the tool had found out beforehand.
        prepared: Value,
    },
    /// Its tool gave this, which guardrails have yet to look at.
    Unchecked(Box<Item>),
    /// It is over; this is the item that the model gets.
    Done(Box<Item>),
}

/// Whether a person must approve a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Approval {
    /// The policy has not been asked, or allows it.
    NotNeeded,
    /// A person was asked and has not answered.
    Asked(Box<ApprovalRequested>),
    /// A person allowed it.
    Allowed,
    /// A person denied it, or did not answer in time; this is what the model gets to read.
    Denied(String),
}

/// A tool call of the current turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The model's id of it.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// What the model wrote as its input.
    pub input: String,
    /// Whether the input is free text (a custom tool) instead of JSON.
    pub custom: bool,
    /// How far it has come.
    pub status: CallStatus,
    /// Whether a person must approve it.
    pub approval: Approval,
    /// The run that it started, where its tool is an agent.
    pub child: Option<RunId>,
    /// What is set aside for that run.
    pub reserved: Budget,
    /// The key that its intent was recorded with: the same however often, and wherever, it is tried again.
    pub key: Option<String>,
    /// The guardrails that have looked at it.
    pub passed: BTreeSet<String>,
    /// A person's answer to what the call asked for: `action` and `content`.
    pub answer: Option<Value>,
}

impl Call {
    /// Whether it can go on only after a person's answer.
    pub fn waits(&self) -> bool {
        let suspended = matches!(self.status, CallStatus::Suspended { .. }) && self.answer.is_none();
        suspended || matches!(self.approval, Approval::Asked(_))
    }
}

/// What is known of the run's sandbox.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SandboxState {
    /// Whether the run needs one.
    pub needed: bool,
    /// Whether this driver has it running.
    pub running: bool,
    /// Whether its making has been recorded and not its outcome.
    pub requested: bool,
    /// The session's id.
    pub session_id: String,
    /// What finds the session again, once the workspace has been staged.
    pub session: Option<Value>,
    /// A directory on the host that the workspace is kept in, where the user named one.
    pub workspace: Option<String>,
    /// Why it could not be started.
    pub failure: Option<String>,
    /// When snapshots of the workspace are asked for.
    pub snapshots: Snapshots,
    /// Whether the workspace may hold what no snapshot has.
    pub unsaved: bool,
}

/// When snapshots of a workspace are taken, beside the one as it was staged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Snapshots {
    /// Not at all, not even as it was staged.
    #[default]
    Never,
    /// After each turn that called tools.
    Turn,
    /// When the run is over, or waits for a person.
    End,
}

/// What is due.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Start the sandbox.
    Sandbox,
    /// Ask the workspace what it says about itself.
    Context,
    /// Ask for a summary of these items, which is to take their place.
    Compact(Range<usize>),
    /// Ask the model.
    Model,
    /// Make the checks of [`State::checks_due`].
    Guard,
    /// Hold the last answer against its schema.
    CheckOutput,
    /// Call the tools of [`State::calls`] that are not done.
    Tools,
    /// Take a snapshot of the workspace.
    Snapshot,
    /// Let another agent go on.
    HandOff {
        /// The agent's name.
        to: String,
    },
    /// Give up the calls that are not done: the run is being cancelled.
    Abandon,
    /// Record this and stop.
    Finish(Box<RunFinished>),
    /// Nothing: the run is over.
    Done,
}

/// A run's events do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// A newer version wrote it.
    #[error(
        "event {seq} is of a type that this version does not know: '{kind}'. Use the version that wrote it, or a newer one"
    )]
    Unknown {
        /// Its place.
        seq: u64,
        /// Its type.
        kind: String,
    },
    /// An event where it cannot be.
    #[error("event {seq} ({kind}) does not fit what came before: {reason}")]
    Misplaced {
        /// Its place.
        seq: u64,
        /// Its type.
        kind: String,
        /// Why.
        reason: String,
    },
}

/// A run, folded from its events.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// How the run began.
    pub started: Box<RunStarted>,
    /// The agent at work.
    pub agent: AgentSpec,
    /// The bounds of the run: its own, within what its tenant has for it.
    pub limits: Limits,
    /// The first line of what the user asks, cut to what a listing can show.
    pub headline: String,
    /// The conversation: input, answers, tool outputs, in order.
    pub items: Vec<Item>,
    /// The tool calls of the current turn.
    pub calls: Vec<Call>,
    /// Turns taken: answers of the model.
    pub turns: u64,
    /// How many answers each model has given in this conversation.
    pub answers: BTreeMap<String, u64>,
    /// What the run has used, the runs of its sub-agents included.
    pub spent: Spent,
    /// The sandbox.
    pub sandbox: SandboxState,
    /// Where the run stands.
    pub status: Status,
    /// Whether somebody asked to cancel it.
    pub cancelling: bool,
    /// Where what the model has read came from: `sandbox`, `tool`, `agent`.
    pub read: BTreeSet<String>,
    /// What a person allowed once and for all in this run: the rule that asked, and the tool.
    pub allowed: BTreeSet<(Option<u64>, String)>,
    /// Whether the workspace has yet to be asked what it says about itself.
    pub context_due: bool,
    /// How many events were folded.
    pub last_seq: u64,
    /// How it ended, while it is over.
    pub finished: Option<RunFinished>,
    own_limits: Limits,
    granted: Budget,
    prices: Prices,
    meter: Meter,
    compactions: Compactions,
    last_answer: Option<Answer>,
    /// Whether the user has said something since.
    asked_since: bool,
    /// What the user said where the run was forked.
    fork_input: Vec<Item>,
    /// What the runtime says while calls are open: it joins the conversation after their outputs.
    told: Vec<Item>,
    model_failure: Option<RunError>,
    checks: Checks,
    /// The agent that goes on once the turn is over.
    handoff: Option<String>,
}

/// What the machine remembers of the model's last answer.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    text: String,
    usage: Usage,
    stop_reason: StopReason,
    /// Whether it called tools: then it is not the last.
    called: bool,
}

impl State {
    /// Folds a whole run. `Ok(None)` for a run without events: it was made and its driver died at once.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Option<Self>, FoldError> {
        Self::replay(records.into_iter().map(|record| (&record.event, record.at_ms)))
    }

    /// Folds the events of a whole run, each with its time in milliseconds since the Unix epoch.
    pub fn replay<'a>(events: impl IntoIterator<Item = (&'a Event, i64)>) -> Result<Option<Self>, FoldError> {
        let mut state: Option<Self> = None;
        for (event, at_ms) in events {
            match (&mut state, event) {
                (None, Event::RunStarted(started)) => {
                    let mut begun = Self::begin(started, 1)?;
                    begun.pass(event, at_ms);
                    state = Some(begun);
                }
                (None, event) => return Err(misplaced(1, event, "a run begins with run_started")),
                (Some(state), event) => state.apply_at(event, at_ms)?,
            }
        }
        Ok(state)
    }

    /// The state after a run's first event.
    pub fn begin(started: &RunStarted, seq: u64) -> Result<Self, FoldError> {
        let bad = |reason: String| FoldError::Misplaced { seq, kind: "run_started".into(), reason };
        let agent: AgentSpec = Deserialize::deserialize(&started.agent)
            .map_err(|error| bad(format!("its agent cannot be read: {error}")))?;
        let limits: Limits = match &started.limits {
            Value::Null => Limits::default(),
            limits => Deserialize::deserialize(limits)
                .map_err(|error| bad(format!("its limits cannot be read: {error}")))?,
        };
        let limits = limits.within(&of_manifest(&started.manifest).map_err(bad)?);
        let items =
            parse_items(&started.input).map_err(|error| bad(format!("its input cannot be read: {error}")))?;
        let prices: Prices = match &started.prices {
            Value::Null => Prices::default(),
            prices => Deserialize::deserialize(prices)
                .map_err(|error| bad(format!("its prices cannot be read: {error}")))?,
        };
        let answers = match &started.history {
            Some(history) if history.answers.is_empty() => {
                BTreeMap::from([(agent.model.clone(), history.responses)])
            }
            Some(history) => history.answers.clone(),
            None => BTreeMap::new(),
        };
        // What is asked now comes last.
        let asked = items.last().map(Item::text).unwrap_or_default();
        let mut state = Self {
            headline: asked.lines().next().unwrap_or_default().chars().take(120).collect(),
            items,
            sandbox: SandboxState {
                needed: !started.sandbox.is_null(),
                session_id: started.sandbox["session_id"].as_str().unwrap_or_default().to_owned(),
                workspace: started.sandbox["workspace"].as_str().map(str::to_owned),
                // A conversation that goes on works on in the workspace that it has.
                session: started.sandbox.get("state").filter(|state| !state.is_null()).cloned(),
                // Another version may know other words.
                snapshots: Deserialize::deserialize(&started.sandbox["options"]["snapshots"])
                    .unwrap_or_default(),
                ..SandboxState::default()
            },
            context_due: !started.sandbox.is_null() && started.history.is_none() && agent.guidance,
            started: Box::new(started.clone()),
            agent,
            own_limits: limits.clone(),
            limits,
            granted: Budget::default(),
            prices,
            meter: Meter::default(),
            compactions: Compactions::default(),
            calls: Vec::new(),
            turns: 0,
            answers,
            spent: Spent::default(),
            status: Status::Running,
            cancelling: false,
            read: {
                let history = started.history.iter().flat_map(|history| &history.read);
                history.chain(&started.read).cloned().collect()
            },
            allowed: BTreeSet::new(),
            last_seq: seq,
            finished: None,
            last_answer: None,
            asked_since: false,
            fork_input: Vec::new(),
            told: Vec::new(),
            model_failure: None,
            checks: Checks::default(),
            handoff: None,
        };
        state.measure();
        let summary = started.history.as_ref().and_then(|history| history.summary);
        state.compactions.summary = summary.and_then(|at| usize::try_from(at).ok());
        Ok(state)
    }

    /// Folds one event that happened at this time, in milliseconds since the Unix epoch.
    pub fn apply_at(&mut self, event: &Event, at_ms: i64) -> Result<(), FoldError> {
        self.pass(event, at_ms);
        self.apply(event)
    }

    /// Folds one event, as if no time had passed.
    pub fn apply(&mut self, event: &Event) -> Result<(), FoldError> {
        self.last_seq += 1;
        let seq = self.last_seq;
        match event {
            Event::RunStarted(_) => return Err(misplaced(seq, event, "the run has begun already")),
            Event::DriverAttached(_) => self.attach(),
            Event::BudgetGranted(granted) => {
                self.granted(granted)
                    .map_err(|error| misplaced(seq, event, &format!("it cannot be read: {error}")))?;
                self.bound();
            }
            Event::SandboxRequested(_) => {
                self.sandbox.requested = true;
                self.sandbox.failure = None;
            }
            Event::SandboxReady(ready) => {
                self.sandbox.running = true;
                self.sandbox.requested = false;
                self.sandbox.unsaved |= self.sandbox.session.is_none();
                self.sandbox.session = Some(ready.state.clone());
            }
            Event::SandboxLost(lost) => {
                if !self.sandbox.running {
                    self.sandbox.failure = Some(lost.reason.clone());
                }
                self.forget_running();
                self.sandbox.running = false;
            }
            Event::SnapshotTaken(_) | Event::SnapshotFailed(_) => self.sandbox.unsaved = false,
            Event::ContextAdded(context) => {
                let items = parse_items(&context.items)
                    .map_err(|error| misplaced(seq, event, &format!("its items cannot be read: {error}")))?;
                self.added(&items);
                if !items.is_empty() {
                    self.read.insert(context.provenance.clone());
                }
                // Before what the user asks now: the user's words come last.
                let asked =
                    if self.turns == 0 { self.items.len().saturating_sub(1) } else { self.items.len() };
                self.items.splice(asked..asked, items);
                self.context_due = false;
            }
            Event::ModelRequested(_) => {
                self.model_asked();
                self.model_failure = None;
                // A run of a version that knew no such context has none.
                self.context_due = false;
            }
            Event::ModelCompleted(answer) => {
                if !self.calls.is_empty() {
                    return Err(misplaced(seq, event, "tool calls of the turn before are open"));
                }
                let items = parse_items(&answer.items)
                    .map_err(|error| misplaced(seq, event, &format!("its items cannot be read: {error}")))?;
                let usage: Usage = or_default(&answer.usage);
                let stop_reason = Deserialize::deserialize(&answer.stop_reason).unwrap_or(StopReason::Stop);
                self.answered_with(&usage, &items);
                self.retried(answer.retried_tokens);
                let cost = answer.cost.as_deref().map_or(Ok(Cost::default()), Cost::parse);
                self.spent.cost += cost
                    .map_err(|reason| misplaced(seq, event, &format!("its cost is unreadable: {reason}")))?;
                self.answered(items, usage, stop_reason);
            }
            Event::ModelFailed(failed) => {
                self.not_asked();
                self.retried(failed.retried_tokens);
                self.spent.cost += self.most_for_input(failed.retried_tokens);
                if failed.kind == "context_too_long" {
                    // It may be shortened yet.
                    let (code, message) = ("context_overflow".into(), failed.message.clone());
                    self.compactions.overflow = Some(RunError { code, message });
                    return Ok(());
                }
                self.model_failure = Some(RunError {
                    code: format!("model_{}", failed.kind),
                    message: failed.message.clone(),
                });
            }
            Event::GuardrailChecked(checked) => {
                self.guardrail_checked(checked).map_err(|reason| misplaced(seq, event, &reason))?;
            }
            Event::OutputChecked(checked) => {
                self.output_checked(checked).map_err(|reason| misplaced(seq, event, &reason))?;
            }
            Event::CompactionRequested(requested) => {
                self.compaction_requested(requested).map_err(|reason| misplaced(seq, event, &reason))?;
            }
            Event::Compacted(compacted) => {
                self.compacted(compacted).map_err(|reason| misplaced(seq, event, &reason))?;
            }
            Event::CompactionFailed(failed) => {
                self.compaction_failed(failed).map_err(|reason| misplaced(seq, event, &reason))?;
            }
            Event::ToolRequested(requested) => {
                // Of two calls with one id, the first that has not been requested is meant.
                let due = |call: &&mut Call| {
                    call.call_id == requested.call_id
                        && (call.status == CallStatus::New || call.answer.is_some())
                };
                let Some(call) = self.calls.iter_mut().find(due) else {
                    return Err(misplaced(seq, event, "no new call of that id"));
                };
                let again = call.answer.take().is_some();
                call.status = CallStatus::Requested { prepared: requested.prepared.clone() };
                call.child.clone_from(&requested.child);
                call.key = Some(requested.key.clone()).filter(|key| !key.is_empty());
                call.reserved = or_default(&requested.reserved);
                if !again {
                    self.spent.tool_calls += 1;
                }
            }
            Event::ToolSuspended(suspended) => {
                let begun = |status: &CallStatus| {
                    matches!(status, CallStatus::Requested { .. } | CallStatus::InDoubt { .. })
                };
                let Some(call) = self.call(&suspended.call_id, begun) else {
                    return Err(misplaced(seq, event, "no call of that id has begun"));
                };
                // The call of a fork has a run of its own from now on.
                if suspended.child.is_some() {
                    call.child.clone_from(&suspended.child);
                }
                if let CallStatus::Requested { prepared } | CallStatus::InDoubt { prepared } =
                    &mut call.status
                {
                    let prepared =
                        if suspended.child.is_some() { prepared.take() } else { suspended.state.clone() };
                    call.status = CallStatus::Suspended { prepared };
                }
            }
            Event::HandedOff(handed) => {
                if self.handoff.take().as_ref() != Some(&handed.to) || !self.calls.is_empty() {
                    return Err(misplaced(seq, event, "no handoff to that agent is due"));
                }
                self.agent = self.mate(&handed.to).map_err(|reason| misplaced(seq, event, &reason))?;
                self.checks.handed_off();
                if let Some(items) = &handed.items {
                    self.items = parse_items(items).map_err(|error| {
                        misplaced(seq, event, &format!("its items cannot be read: {error}"))
                    })?;
                }
                self.forget_summary();
                self.measure();
            }
            Event::ToolCompleted(completed) => {
                let output =
                    parse_item(&completed.output).map_err(|reason| misplaced(seq, event, &reason))?;
                let Some(place) = self.place(&completed.call_id) else {
                    return Err(misplaced(seq, event, "no open call of that id"));
                };
                self.calls[place].status = self.given(&self.calls[place], output, &completed.provenance);
                self.calls[place].reserved = Budget::default();
                self.note_running(place, completed);
                if let Some(agent) = &completed.handoff {
                    self.handoff = Some(agent.clone());
                }
                let spent: Spent = or_default(&completed.spent);
                self.spent.add(&spent);
                if !self.read.contains(&completed.provenance) {
                    self.read.insert(completed.provenance.clone());
                }
                self.sandbox.unsaved = true;
                self.close_turn();
            }
            Event::ApprovalRequested(asked) => {
                let asks = |call: &&mut Call| {
                    call.call_id == asked.call_id
                        && match (&call.status, &call.approval) {
                            (CallStatus::New, Approval::NotNeeded) => !asked.input,
                            (CallStatus::Suspended { .. }, Approval::NotNeeded | Approval::Allowed) => {
                                asked.input
                            }
                            _ => false,
                        }
                };
                let call = self.calls.iter_mut().find(asks);
                let Some(call) = call else { return Err(misplaced(seq, event, "no new call of that id")) };
                call.approval = Approval::Asked(Box::new(asked.clone()));
            }
            Event::ApprovalAnswered(answer) => {
                self.answered_approval(answer).map_err(|reason| misplaced(seq, event, reason))?;
            }
            Event::RunImported(imported) => {
                let told = parse_items(&imported.items)
                    .map_err(|error| misplaced(seq, event, &format!("its items cannot be read: {error}")))?;
                self.sandbox.session_id.clone_from(&imported.session_id);
                self.relocate(imported.session.clone());
                self.tell(told);
            }
            Event::RunForked(forked) => {
                let unreadable = |error| misplaced(seq, event, &format!("its items cannot be read: {error}"));
                let told = parse_items(&forked.items).map_err(unreadable)?;
                let input = parse_items(&forked.input).map_err(unreadable)?;
                self.relocate(forked.session.clone());
                self.disown();
                if !input.is_empty() {
                    self.asked_since = true;
                    self.checks.asked_again();
                    self.fork_input.clone_from(&input);
                }
                self.tell(told.into_iter().chain(input).collect());
            }
            Event::CancelRequested(_) => {
                self.give_up_answer();
                self.cancelling = true;
            }
            Event::DeadlinePassed(passed) => {
                let over = [Resource::Seconds, Resource::SandboxSeconds]
                    .into_iter()
                    .find(|resource| resource.limit() == passed.limit);
                if over.is_none() {
                    return Err(misplaced(seq, event, "this version knows no such limit of time"));
                }
                self.give_up_answer();
                self.meter.over = over;
            }
            Event::RunFinished(finished) => {
                self.status = match finished.status.as_str() {
                    "completed" => Status::Completed,
                    "cancelled" => Status::Cancelled,
                    "waiting" => Status::Waiting,
                    _ => Status::Failed,
                };
                self.finished = Some(finished.clone());
            }
            Event::Reward(_) | Event::Egress(_) | Event::MountFailed(_) => {}
            Event::Unknown(fields) => {
                let kind = fields.get("type").and_then(Value::as_str).unwrap_or("?").to_owned();
                return Err(FoldError::Unknown { seq, kind });
            }
            other => return Err(misplaced(seq, other, "this version does not know it")),
        }
        Ok(())
    }

    /// The bounds of the run as it began, whatever its tenant has for it.
    pub fn own_limits(&self) -> &Limits {
        &self.own_limits
    }

    /// What models cost, as it was known when the run began.
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// Whether the run is being brought to its end.
    pub fn ending(&self) -> bool {
        self.cancelling || self.meter.over.is_some()
    }

    /// How many answers the model of the agent at work has given in this conversation.
    pub fn ordinal(&self) -> u64 {
        self.answers.get(&self.agent.model).copied().unwrap_or(0)
    }

    /// What the user asks now: without the conversation before it.
    pub fn asked(&self) -> Vec<Item> {
        if !self.fork_input.is_empty() {
            return self.fork_input.clone();
        }
        let before = self.started.history.as_ref().map_or(0, |history| history.items as usize);
        let asked = self.started.input.iter().skip(before);
        asked.filter_map(|item| Deserialize::deserialize(item).ok()).collect()
    }

    /// What the next run of the conversation says of this one, whose items it begins with.
    pub fn history(&self, run: &RunId) -> History {
        History {
            run: run.clone(),
            items: self.items.len() as u64,
            responses: self.answers.values().sum(),
            answers: self.answers.clone(),
            summary: self.summary_at().map(|at| at as u64),
            read: self.read.iter().cloned().collect(),
        }
    }

    /// The questions that wait for a person.
    pub fn approvals(&self) -> impl Iterator<Item = (&Call, &ApprovalRequested)> {
        self.open_calls().filter_map(|call| match &call.approval {
            Approval::Asked(asked) => Some((call, asked.as_ref())),
            _ => None,
        })
    }

    /// The calls of the current turn that are not over.
    pub fn open_calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| !matches!(call.status, CallStatus::Done(_)))
    }

    /// The id of the run that a call of the current turn starts, where this is the state of `run`.
    pub(crate) fn child_id(&self, run: &RunId, call: &Call) -> RunId {
        // Its place among the turn's calls: two calls may have one id.
        let place = self.calls.iter().take_while(|other| *other != call).count();
        RunId(format!("{run}-{}-{place}", self.turns))
    }

    /// A new driver has nothing of what its predecessor had running.
    fn attach(&mut self) {
        self.give_up_answer();
        self.meter.over = None;
        self.forget_running();
        self.give_up_summary();
        self.sandbox.running = false;
        self.sandbox.failure = None;
        self.model_failure = None;
        self.checks.attach();
        self.cancelling = false;
        // Failed and cancelled runs may be taken up again; the harness refuses completed ones before this.
        self.status = Status::Running;
        self.finished = None;
        for call in &mut self.calls {
            match &mut call.status {
                CallStatus::Requested { prepared } => {
                    call.status = CallStatus::InDoubt { prepared: prepared.take() };
                }
                // The run below is looked at again: it may have its answer.
                CallStatus::Suspended { prepared } if call.child.is_some() => {
                    call.status = CallStatus::InDoubt { prepared: prepared.take() };
                }
                _ => {}
            }
        }
    }

    /// The run goes on elsewhere: in this session, or in one that is made anew.
    fn relocate(&mut self, session: Option<Value>) {
        self.sandbox.running = false;
        self.sandbox.requested = false;
        self.sandbox.session = session;
        // A directory of the user's belongs to the machine and the run that it was named for.
        self.sandbox.workspace = None;
    }

    /// What belongs to the run that this one is forked from stays with it: answers of people, runs of sub-agents, and
    /// how it ended.
    fn disown(&mut self) {
        self.allowed.clear();
        for call in &mut self.calls {
            call.child = None;
            call.answer = None;
            match &mut call.status {
                // A question is asked again, in this run's name.
                CallStatus::New if !matches!(call.approval, Approval::Denied(_)) => {
                    call.approval = Approval::NotNeeded;
                }
                CallStatus::Requested { prepared } | CallStatus::Suspended { prepared } => {
                    call.approval = Approval::NotNeeded;
                    call.status = CallStatus::InDoubt { prepared: prepared.take() };
                }
                _ => {}
            }
        }
        // A sub-agent's run that is over stays over: its caller takes what came of it.
        if self.started.parent.as_ref().is_none_or(|parent| parent.call_id.is_none()) {
            self.attach();
        }
    }

    /// Joins the conversation, but not between calls and their outputs.
    fn tell(&mut self, items: Vec<Item>) {
        let open = self.open_calls().next().is_some();
        let conversation = if open { &mut self.told } else { &mut self.items };
        conversation.extend(items);
    }

    /// The agent that goes on once the turn is over.
    pub fn handoff(&self) -> Option<&str> {
        self.handoff.as_deref()
    }

    /// The run's record of an agent that takes part in it.
    fn mate(&self, name: &str) -> Result<AgentSpec, String> {
        let agent = match self.started.team.get(name) {
            Some(member) => &member.agent,
            None if self.started.agent["name"] == name => &self.started.agent,
            None => return Err(format!("the run has no agent '{name}'")),
        };
        Deserialize::deserialize(agent).map_err(|error| format!("agent '{name}' cannot be read: {error}"))
    }

    /// The system instructions of the agent at work, in full.
    pub fn instructions(&self) -> &str {
        self.started
            .team
            .get(&self.agent.name)
            .map_or(&self.started.instructions, |member| &member.instructions)
    }

    /// The tools on offer to the agent at work, as the run began with them: a conversation must not change under the
    /// model.
    pub fn tools(&self) -> Vec<ToolSpec> {
        let tools =
            self.started.team.get(&self.agent.name).map_or(&self.started.tools, |member| &member.tools);
        tools.iter().filter_map(|tool| Deserialize::deserialize(tool).ok()).collect()
    }

    fn answered_approval(&mut self, answer: &ApprovalAnswered) -> Result<(), &'static str> {
        let call = self.calls.iter_mut().find(
            |call| matches!(&call.approval, Approval::Asked(asked) if asked.approval_id == answer.approval_id),
        );
        let Some(call) = call else { return Err("no such question is open") };
        let Approval::Asked(asked) = &call.approval else { return Err("no such question is open") };
        if asked.input {
            let action = match answer.decision.as_str() {
                "allow" => "accept",
                "expired" => "cancel",
                _ => "decline",
            };
            call.answer = Some(json!({"action": action, "content": answer.input}));
            call.approval = Approval::Allowed;
            return Ok(());
        }
        let reason = answer.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        // Whatever is not plainly an approval is none.
        match answer.decision.as_str() {
            "allow" => {
                if answer.always {
                    self.allowed.insert((asked.rule, call.tool.clone()));
                }
                call.approval = Approval::Allowed;
            }
            "expired" => {
                let text =
                    "nobody approved this call in time. Go on without it, or say what you needed it for.";
                call.approval = Approval::Denied(text.into());
            }
            _ => {
                let text =
                    format!("denied by {}{reason}. Do not try to get the same in another way.", answer.by);
                call.approval = Approval::Denied(text);
            }
        }
        Ok(())
    }

    fn call(&mut self, call_id: &str, status: impl Fn(&CallStatus) -> bool) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.call_id == call_id && status(&call.status))
    }

    /// The open call of an id: one whose output is not there, or else one whose output guardrails have yet to look at.
    fn place(&self, call_id: &str) -> Option<usize> {
        let find = |wanted: fn(&CallStatus) -> bool| {
            self.calls.iter().position(|call| call.call_id == call_id && wanted(&call.status))
        };
        find(|status| !matches!(status, CallStatus::Unchecked(_) | CallStatus::Done(_)))
            .or_else(|| find(|status| matches!(status, CallStatus::Unchecked(_))))
    }

    /// Once every call is over, their outputs join the conversation in the order of the calls, whatever order they
    /// came in: a replay gives the same conversation.
    fn close_turn(&mut self) {
        if self.open_calls().next().is_some() {
            return;
        }
        for call in self.calls.drain(..) {
            if let CallStatus::Done(output) = call.status {
                self.meter.add(&output);
                self.items.push(*output);
            }
        }
        self.items.append(&mut self.told);
    }

    fn answered(&mut self, items: Vec<Item>, usage: Usage, stop_reason: StopReason) {
        self.turns += 1;
        self.forget_tries();
        match self.answers.get_mut(&self.agent.model) {
            Some(answers) => *answers += 1,
            None => drop(self.answers.insert(self.agent.model.clone(), 1)),
        }
        self.spent.turns += 1;
        self.spent.usage.add(&usage);
        self.calls = items.iter().filter_map(as_call).collect();
        let texts = items.iter().map(Item::text).filter(|text| !text.is_empty());
        self.asked_since = false;
        let mut texts = texts.collect::<Vec<_>>();
        if self.agent.output.is_some() {
            // What comes before is talk.
            texts.drain(..texts.len().saturating_sub(1));
        }
        let text = texts.join("\n\n");
        self.checks.answered();
        self.last_answer = Some(Answer { text, usage, stop_reason, called: !self.calls.is_empty() });
        self.items.extend(items);
    }
}

/// What it says; the default where it says nothing, or what another version wrote.
fn or_default<T: DeserializeOwned + Default>(value: &Value) -> T {
    Option::deserialize(value).ok().flatten().unwrap_or_default()
}

fn parse_items(values: &[Value]) -> Result<Vec<Item>, serde_json::Error> {
    values.iter().map(Item::deserialize).collect()
}

fn parse_item(value: &Value) -> Result<Item, String> {
    Deserialize::deserialize(value).map_err(|error| format!("its item cannot be read: {error}"))
}

fn as_call(item: &Item) -> Option<Call> {
    let (call_id, tool, input, custom) = match item {
        Item::FunctionCall { call_id, name, arguments, .. } => (call_id, name, arguments, false),
        Item::CustomToolCall { call_id, name, input, .. } => (call_id, name, input, true),
        _ => return None,
    };
    Some(Call {
        call_id: call_id.clone(),
        tool: tool.clone(),
        input: input.clone(),
        custom,
        status: CallStatus::New,
        approval: Approval::NotNeeded,
        child: None,
        reserved: Budget::default(),
        key: None,
        passed: BTreeSet::new(),
        answer: None,
    })
}

fn misplaced(seq: u64, event: &Event, reason: &str) -> FoldError {
    let value = serde_json::to_value(event).unwrap_or_default();
    let kind = value.get("type").and_then(Value::as_str).unwrap_or("?").to_owned();
    FoldError::Misplaced { seq, kind, reason: reason.into() }
}
