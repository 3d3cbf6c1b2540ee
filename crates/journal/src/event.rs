//! The event schema. Additive: a field that is new has a default, a field that was never goes, and every journal
//! ever written loads (`tests/histories/`).
//!
//! Room is kept from the start for what later parts need: token ids and log-probabilities, sampling parameters and
//! policy version with every model call; provenance with every tool output; rewards; parent and child runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version written into every record. It grows when an old reader could misread a new record.
pub const SCHEMA_VERSION: u32 = 1;

/// A run's id: a UUID of version 7, so that ids sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One event in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The run.
    pub run: RunId,
    /// Its place in the run, from 1, without gaps.
    pub seq: u64,
    /// The epoch of the driver that wrote it.
    pub epoch: u64,
    /// When, in milliseconds since the Unix epoch, by the writer's clock.
    pub at_ms: i64,
    /// The schema version it was written with.
    pub v: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run begins. Always the first event.
    RunStarted(Box<RunStarted>),
    /// A driver took the run: at its start, and at each resume.
    DriverAttached(DriverAttached),
    /// A tenant's account has set something aside for this run: it may use at most that.
    BudgetGranted(BudgetGranted),
    /// Intent: a sandbox session is about to be made or started again.
    SandboxRequested(SandboxRequested),
    /// The sandbox runs and its workspace is staged.
    SandboxReady(SandboxReady),
    /// The sandbox could not be made, or was lost. The run goes on in another, or fails.
    SandboxLost(SandboxLost),
    /// A snapshot of the workspace was taken.
    SnapshotTaken(SnapshotTaken),
    /// A snapshot of the workspace could not be taken. The run goes on.
    SnapshotFailed(SnapshotFailed),
    /// What the workspace says about itself joins the conversation.
    ContextAdded(ContextAdded),
    /// Intent: the model is about to be asked.
    ModelRequested(ModelRequested),
    /// The model answered.
    ModelCompleted(Box<ModelCompleted>),
    /// The model could not be asked, after all retries.
    ModelFailed(ModelFailed),
    /// Intent: a model is about to be asked for a summary of a part of the conversation.
    CompactionRequested(CompactionRequested),
    /// The conversation was shortened. What it was before stays in the journal.
    Compacted(Box<Compacted>),
    /// The conversation could not be shortened, and stays as it is.
    CompactionFailed(CompactionFailed),
    /// The policy asks a person whether a tool may be called, or a call asks for something that it must know.
    ApprovalRequested(ApprovalRequested),
    /// A person answered, or the time to answer has passed.
    ApprovalAnswered(ApprovalAnswered),
    /// Intent: a tool is about to be called.
    ToolRequested(ToolRequested),
    /// A tool gave its output, or its outcome is known to be unknown.
    ToolCompleted(Box<ToolCompleted>),
    /// A call cannot go on before a person has answered something.
    ToolSuspended(ToolSuspended),
    /// Another agent goes on with the conversation.
    HandedOff(Box<HandedOff>),
    /// The sandbox sent something out, or was refused it.
    Egress(Box<Egress>),
    /// Storage that is mounted in the sandbox could not do something.
    MountFailed(MountFailed),
    /// The run was brought here from another journal, where all events before this one were written.
    RunImported(RunImported),
    /// The run is a fork: all events before this one but the first are those of another run.
    RunForked(RunForked),
    /// A guardrail looked at the run's input, its output, or a tool call.
    GuardrailChecked(Box<GuardrailChecked>),
    /// The agent's answer was held against the schema that it must have.
    OutputChecked(OutputChecked),
    /// Somebody asked to cancel the run.
    CancelRequested(CancelRequested),
    /// The run has used up its time.
    DeadlinePassed(DeadlinePassed),
    /// The run is over, or waits for a person. A run that failed, was cancelled or waits can be taken up again:
    /// `driver_attached` follows then.
    RunFinished(RunFinished),
    /// A judgement of the run or of a step.
    Reward(Reward),
    /// An event that a newer version wrote, with all of its fields. A run that has one can be shown, not resumed.
    #[serde(untagged)]
    Unknown(Map<String, Value>),
}

/// The run begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunStarted {
    /// The version of the program that started it.
    pub runtime: String,
    /// The agent as it was read: name, model, instructions, capabilities. No secret.
    pub agent: Value,
    /// The conversation at the start: items in the wire form of Open Responses. What the user asks now comes last.
    pub input: Vec<Value>,
    /// Where the first items of `input` come from, when the run goes on with an earlier conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// The manifest of the workspace, whole.
    pub manifest: Value,
    /// SHA-256 of the manifest, hex.
    pub manifest_digest: String,
    /// Directory on the host that the manifest's local sources are relative to.
    pub manifest_base: Option<String>,
    /// The sandbox asked for: backend, isolation, limits, workspace.
    pub sandbox: Value,
    /// Bounds of the run: `max_turns` and the like.
    pub limits: Value,
    /// What the models that may be asked cost, by name, as the table of prices said when the run began.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub prices: Value,
    /// Who pays, where the run has a tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// The system instructions in full, as the model gets them.
    pub instructions: String,
    /// The tools on offer, as the model gets them.
    pub tools: Vec<Value>,
    /// The other agents that this one may hand over to or start, and theirs, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub team: BTreeMap<String, Member>,
    /// Where what the input is made of came from: `sandbox`, `tool`, `agent`, `runtime`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
    /// The run that this one belongs to, and the tool call that started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// How many runs are above this one: 0 for one that a person started.
    #[serde(skip_serializing_if = "is_zero")]
    pub depth: u64,
    /// Free labels: task, split, seed, experiment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Another agent that takes part in a run. What the fields hold is what [`RunStarted`] holds of the first agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// The agent as it was read.
    pub agent: Value,
    /// Its system instructions in full.
    pub instructions: String,
    /// The tools on offer to it.
    pub tools: Vec<Value>,
    /// Bounds of a run that it does as a sub-agent.
    pub limits: Value,
    /// The manifest of the workspace that it has as a sub-agent.
    pub manifest: Value,
    /// Directory on the host that the manifest's local sources are relative to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_base: Option<String>,
    /// The sandbox that it has as a sub-agent: backend, isolation, limits.
    pub sandbox: Value,
}

/// Context that was copied from an earlier run, and must not count twice where runs are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The run that the conversation was in before.
    pub run: RunId,
    /// How many items were copied.
    pub items: u64,
    /// How many answers of the model the conversation had before.
    #[serde(default)]
    pub responses: u64,
    /// How many of them each model gave, where several agents took part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, u64>,
    /// Which of the items is a summary of what came before it, where the conversation was shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<u64>,
    /// Where what the model has read in it came from: `sandbox`, `tool`, `agent`, `runtime`.
    #[serde(default)]
    pub read: Vec<String>,
}

/// Who pays for a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// The account in the journal's store: one of the tenant's, that of the day or month in which the run began.
    pub account: String,
    /// What all runs of the account may use together: `max_tokens` and the like.
    pub limits: Value,
}

/// A tenant's account has set something aside for this run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetGranted {
    /// The account.
    pub account: String,
    /// What this run may use in all, what it has used before included: `max_tokens` and the like.
    pub granted: Value,
}

/// The run has used up its time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadlinePassed {
    /// The limit: `max_seconds` or `max_sandbox_seconds`.
    pub limit: String,
}

/// Where a child run comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The parent run.
    pub run: RunId,
    /// The tool call in it, where one started the child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The event of the parent that the child was forked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// A driver took the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriverAttached {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub runtime: String,
    /// Whether it resumes a run that another driver left.
    pub resumed: bool,
}

/// A sandbox session is about to be made or started again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxRequested {
    /// The session's id.
    pub session_id: String,
    /// The backend's id.
    pub backend: String,
    /// Whether the workspace has been staged by an earlier driver.
    pub staged: bool,
}

/// The sandbox runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxReady {
    /// The session's id.
    pub session_id: String,
    /// What finds the session again.
    pub state: Value,
    /// The isolation achieved: level and mechanisms.
    pub isolation: Value,
    /// What was staged: files, bytes, digest, commits. Absent when it had been staged before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged: Option<Value>,
    /// Where the ports that its manifest exposes are reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Exposed>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// A port in the sandbox that is reached from outside, for as long as its driver lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exposed {
    /// The port in the sandbox.
    pub port: u16,
    /// Where it is reached on the driver's machine: `127.0.0.1:8080`.
    pub address: String,
}

/// The sandbox could not be made, or was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxLost {
    /// The session's id.
    pub session_id: String,
    /// What happened.
    pub reason: String,
}

/// A snapshot of the workspace was taken: what it held when this event was recorded, after everything before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotTaken {
    /// The snapshot's id in the store.
    pub snapshot: String,
    /// What it holds, as one digest: two workspaces with the same files have the same.
    pub digest: String,
    /// The sandbox session that it is of.
    pub session_id: String,
    /// How many answers of the model came before; 0: as staged.
    pub turn: u64,
    /// Regular files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that it added to the store.
    pub added_bytes: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// A snapshot of the workspace could not be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotFailed {
    /// The sandbox session.
    pub session_id: String,
    /// How many answers of the model came before.
    pub turn: u64,
    /// Why.
    pub reason: String,
}

/// What the workspace says about itself: guidance, skills. Untrusted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContextAdded {
    /// Items in the wire form of Open Responses; none where there is nothing to say.
    pub items: Vec<Value>,
    /// Where it comes from: files by their paths.
    pub sources: Vec<String>,
    /// What could not be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// `sandbox`.
    pub provenance: String,
}

/// The model is about to be asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRequested {
    /// The turn, from 1.
    pub turn: u64,
    /// How many responses of this model came before.
    pub ordinal: u64,
    /// The model asked.
    pub model: String,
    /// Sampling parameters.
    pub settings: Value,
    /// How many items of the run's conversation the request carries: its prompt is the instructions, the tools and
    /// the first this many items, all of which are in the journal.
    pub items: u64,
    /// How often the conversation had been shortened: `items` counts what is left since.
    #[serde(skip_serializing_if = "is_zero")]
    pub compactions: u64,
}

/// The model answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelCompleted {
    /// The turn, from 1.
    pub turn: u64,
    /// Which response of the agent's model, from 0.
    pub ordinal: u64,
    /// The provider's id of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The model that answered, in the provider's words.
    pub model: String,
    /// What it said and called, verbatim.
    pub items: Vec<Value>,
    /// Tokens used: input, cached, output, reasoning.
    pub usage: Value,
    /// Why it stopped.
    pub stop_reason: Value,
    /// Token ids, log-probabilities and policy version, where the provider gives them.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub capture: Value,
    /// What it cost, in the unit of the prices that the run began with; absent where no price is known. Tries that
    /// failed are in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// How many tries it took.
    pub attempts: u32,
    /// Tokens that tries read which failed after their answer had begun, and which the provider may bill. Estimated.
    #[serde(skip_serializing_if = "is_zero")]
    pub retried_tokens: u64,
    /// Milliseconds until the first output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_output_ms: Option<u64>,
    /// Milliseconds in all.
    pub duration_ms: u64,
}

/// The model could not be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelFailed {
    /// The turn, from 1.
    pub turn: u64,
    /// The kind of failure.
    pub kind: String,
    /// What failed and what to do.
    pub message: String,
    /// Whether resuming the run may succeed.
    pub retryable: bool,
    /// Tokens that tries read which failed after their answer had begun, and which the provider may bill. Estimated.
    #[serde(skip_serializing_if = "is_zero")]
    pub retried_tokens: u64,
}

/// A model is about to be asked for a summary of a part of the conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactionRequested {
    /// The turn that comes next, from 1.
    pub turn: u64,
    /// Which try before that turn, from 1.
    pub attempt: u64,
    /// The first item of the part, from 0.
    pub from: u64,
    /// The first item after it.
    pub to: u64,
    /// SHA-256 of the part's items, hex: only these may be replaced.
    pub digest: String,
    /// How many responses of this model came before.
    pub ordinal: u64,
    /// The model asked.
    pub model: String,
    /// Sampling parameters.
    pub settings: Value,
}

/// A part of the conversation was replaced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compacted {
    /// The turn that comes next, from 1.
    pub turn: u64,
    /// The first item of the part, from 0.
    pub from: u64,
    /// The first item after it.
    pub to: u64,
    /// SHA-256 of the part's items, hex.
    pub digest: String,
    /// What takes its place: the user's messages of it, and a summary last.
    pub items: Vec<Value>,
    /// Which response of this model the summary is, from 0.
    pub ordinal: u64,
    /// The model that answered, in the provider's words.
    pub model: String,
    /// Tokens used.
    pub usage: Value,
    /// What it cost, as in `model_completed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// Tokens that failed tries read, as in `model_completed`.
    #[serde(skip_serializing_if = "is_zero")]
    pub retried_tokens: u64,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// A part of the conversation could not be replaced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactionFailed {
    /// The turn that comes next, from 1.
    pub turn: u64,
    /// Why.
    pub reason: String,
    /// Tokens used, where the model answered.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub usage: Value,
    /// What it cost, as in `model_completed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// Tokens that failed tries read, as in `model_completed`.
    #[serde(skip_serializing_if = "is_zero")]
    pub retried_tokens: u64,
}

/// The policy asks a person whether a tool may be called, or a call asks for something that it must know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApprovalRequested {
    /// Names this question: derived from run, turn, call, digest and policy version, so that an answer can fit no
    /// other.
    pub approval_id: String,
    /// The turn, from 1.
    pub turn: u64,
    /// The model's id of the call.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// SHA-256 of the tool's name and its input, hex: what exactly was asked for.
    pub digest: String,
    /// SHA-256 of the policy that asks, hex.
    pub policy_version: String,
    /// Which rule asks, from 0; absent where it is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u64>,
    /// Why it asks, for people.
    pub reason: String,
    /// After this moment, in milliseconds since the Unix epoch, the call counts as denied.
    pub expires_ms: i64,
    /// Whether the call itself asks, in the words of `reason`, and not the policy.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub input: bool,
    /// The JSON Schema of the input that a call asks for; `Null` where a yes or no is enough.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub schema: Value,
}

/// A person answered, or the time to answer has passed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApprovalAnswered {
    /// Which question.
    pub approval_id: String,
    /// `allow`, `deny` or `expired`.
    pub decision: String,
    /// Whether the same rule need not ask again in this run for the same tool.
    pub always: bool,
    /// Who answered.
    pub by: String,
    /// Why, in words; the model gets to read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The input that the call asked for.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub input: Value,
}

/// A tool is about to be called.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolRequested {
    /// The turn, from 1.
    pub turn: u64,
    /// The model's id of the call.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// Its arguments, as the model wrote them.
    pub arguments: String,
    /// `pure`, `idempotent`, `at_most_once` or `compensatable`.
    pub effect: String,
    /// A key that stays the same however often the call is tried.
    pub key: String,
    /// What the tool found out beforehand, to tell after a crash whether it had happened.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub prepared: Value,
    /// The run that the call starts, where the tool is an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// What is set aside of the run's budget for that run: its `max_tokens` and the like.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub reserved: Value,
}

/// A call cannot go on before a person has answered something: an approval in the run that it started, or a question
/// of its own. It is called again, with the answer, when the run is resumed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolSuspended {
    /// The turn, from 1.
    pub turn: u64,
    /// The model's id of the call.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// What it waits for, for people.
    pub reason: String,
    /// The run that waits, where the tool is an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// What the tool needs to go on with the call.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub state: Value,
}

/// Another agent goes on with the conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandedOff {
    /// The turn, from 1.
    pub turn: u64,
    /// The agent that handed over.
    pub from: String,
    /// The agent that goes on.
    pub to: String,
    /// The conversation as the new agent gets it, where a filter changed it; what it was before stays in the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<Value>>,
    /// The filter's name.
    pub filter: String,
}

/// The run was brought here from another journal. What it had running there is gone; what it had asked stays asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunImported {
    /// The version of the program that brought it out.
    pub runtime: String,
    /// When that was, in milliseconds since the Unix epoch.
    pub exported_ms: i64,
    /// The id of the sandbox session that it works in from here on.
    pub session_id: String,
    /// What finds that session again, with the workspace that came along; absent where none came along, and the
    /// workspace is made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Value>,
    /// What the model is told of it: items in the wire form of Open Responses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Value>,
}

/// The run is a fork. Its first event is the other run's with an id, a parent and a sandbox session of its own; those
/// up to this one are the other's as they were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunForked {
    /// The other run.
    pub from: RunId,
    /// Its last event that this one has too.
    pub at: u64,
    /// What finds the sandbox session of this run; absent where its workspace is made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Value>,
    /// What the model is told of it: items in the wire form of Open Responses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Value>,
    /// What the user says at this point: items in the wire form of Open Responses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<Value>,
}

impl Default for RunForked {
    fn default() -> Self {
        let from = RunId(String::new());
        Self { from, at: 0, session: None, items: Vec::new(), input: Vec::new() }
    }
}

/// A tool gave its output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCompleted {
    /// The turn, from 1.
    pub turn: u64,
    /// The model's id of the call.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// `completed`, `failed`, `outcome_unknown`, `denied` or `cancelled`.
    pub status: String,
    /// What the model gets: an item in the wire form of Open Responses.
    pub output: Value,
    /// How a command ended, and whatever else a viewer or trainer wants to know.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
    /// Where the content came from: `sandbox`, `tool`, `agent`, `runtime`. All but the last are untrusted.
    pub provenance: String,
    /// Milliseconds.
    pub duration_ms: u64,
    /// The agent that goes on once the turn's other calls are over, where the call hands over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoff: Option<String>,
    /// What the run that the call started has used, its own sub-agents included.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub spent: Value,
}

/// What a sandbox sent out, or was refused: a connection, or a request where requests are read, when it is over. Those
/// that differ in nothing but numbers are one event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Egress {
    /// The sandbox session.
    pub session_id: String,
    /// `http`, `https`, `connect`, `socks5` or `unknown`.
    pub protocol: String,
    /// The host as the sandbox named it. Empty where there were too many to list.
    pub host: String,
    /// The port; 0 where it is not known.
    pub port: u16,
    /// The method, where it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path without its query, where it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `allow`, `deny`, or `fail` for what was allowed and did not get to its end.
    pub decision: String,
    /// A stable word for why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why it was refused or failed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The secrets that were put in, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// How many these are.
    pub count: u64,
    /// Bytes that left the sandbox, of all of them.
    pub bytes_up: u64,
    /// Bytes that came back, of all of them.
    pub bytes_down: u64,
    /// How long they took together, in milliseconds.
    pub duration_ms: u64,
}

/// Storage that is mounted in the sandbox could not do something. The command that looked has only a number for it. Each
/// thing is told once while the sandbox runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountFailed {
    /// The sandbox session.
    pub session_id: String,
    /// Where the mount is, relative to the workspace.
    pub mount: String,
    /// What was tried: `read`, `list`, `write` and the like.
    pub operation: String,
    /// The path below the mount; empty for the mount itself.
    pub path: String,
    /// Why it failed: what the server said, without any secret.
    pub reason: String,
}

/// A guardrail looked at something and said what it thinks of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardrailChecked {
    /// The turn, from 1; 0 before the first answer of the model.
    pub turn: u64,
    /// `input`, `output`, `tool_input` or `tool_output`.
    pub stage: String,
    /// The guardrail.
    pub name: String,
    /// `allow`; `reject` (the call is not made, or its output is withheld) and `replace` (of a tool's output); `trip`:
    /// the run ends; `cancelled`: it was ended before it could say.
    pub verdict: String,
    /// Why, in words or as the guardrail gives it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub info: Value,
    /// The model's id of the call, for a tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// What the model gets in the place of a tool's output: an item in the wire form of Open Responses. The output as
    /// it was is in `tool_completed`.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// The run of the agent that judged, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// What that run has used.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub spent: Value,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// The agent's answer was held against its schema.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputChecked {
    /// The turn, from 1.
    pub turn: u64,
    /// Whether the answer is as the schema wants it.
    pub valid: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What joins the conversation then, so that the model can mend it: an item in the wire form of Open Responses.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub repair: Value,
}

/// Somebody asked to cancel the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelRequested {
    /// Who: `user`, `moor cancel`, ….
    pub by: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The run is over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFinished {
    /// `completed`, `failed`, `cancelled` or `waiting` (for an approval).
    pub status: String,
    /// The agent's last words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Why it failed: `code` and `message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Tokens of the whole run.
    pub usage: Value,
    /// Turns taken.
    pub turns: u64,
}

/// Why a run failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunError {
    /// A stable word: `max_turns`, `model`, `sandbox`, `agent`.
    pub code: String,
    /// What failed, on what, why, and the next step.
    pub message: String,
}

/// A judgement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reward {
    /// Who judged: a grader's name and version.
    pub source: String,
    /// The value.
    pub value: f64,
    /// The turn judged; absent for the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critique: Option<String>,
}
