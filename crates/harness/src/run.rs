//! What a run is made of, and what its driver works with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use mooring_capability::Tool;
use mooring_journal::event::{History, Parent, RunError, Tenant};
use mooring_journal::{Journal, RunId};
use mooring_manifest::Manifest;
use mooring_model::{Cost, Item, ModelClient, Prices, Settings, Usage};
use mooring_sandbox::SandboxClient;
use mooring_snapshot::SnapshotStore;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::policy::digest;
use crate::{
    Compaction, Guardrail, GuardrailSpec, Handoff, Hooks, InputFilter, Observer, Policy, Seconds, Spent,
    Status, SubAgent, TypedOutput,
};

/// An agent, as the journal records it. Holds no key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentSpec {
    /// Its name.
    pub name: String,
    /// The model: `openai/…`, `anthropic/…`, `chat/…`, `script:…`.
    pub model: String,
    /// The models that are asked, in this order, where the first cannot answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
    /// Where the model is served, when not at its provider's usual address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// What its maker wrote for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// `shell`, `filesystem`, ….
    pub capabilities: Vec<String>,
    /// Names of MCP servers, which the user's configuration describes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mcp: Vec<String>,
    /// The agents that it may hand the conversation over to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handoffs: Vec<Handoff>,
    /// The agents that it may give work to, each as a tool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<SubAgent>,
    /// What looks at its input, its output and its tool calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guardrails: Vec<GuardrailSpec>,
    /// What its last answer must look like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<TypedOutput>,
    /// Sampling and the like.
    pub settings: Settings,
    /// When and how its conversation is shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction: Option<Compaction>,
    /// What it may do without asking.
    pub policy: Policy,
    /// Whether it is told what the workspace says about itself (`AGENTS.md`, skills), as untrusted content.
    pub guidance: bool,
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            model: String::new(),
            fallbacks: Vec::new(),
            base_url: None,
            instructions: None,
            capabilities: Vec::new(),
            mcp: Vec::new(),
            handoffs: Vec::new(),
            agents: Vec::new(),
            guardrails: Vec::new(),
            output: None,
            settings: Settings::default(),
            compaction: None,
            policy: Policy::default(),
            guidance: true,
        }
    }
}

/// Bounds of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most turns: answers of the model.
    pub max_turns: u64,
    /// The most tokens of the whole run, read and produced. A call of the model is not made when it would at least
    /// reach this, and may produce at most what is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// The most tool calls of the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u64>,
    /// The most that the whole run may cost, in the unit of the prices. Needs a price for each model that may be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<Cost>,
    /// How long the whole run may go on. Time without a driver does not count, as while it waits for an approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<Seconds>,
    /// How long sandboxes may run for the whole run, those of sub-agents added up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sandbox_seconds: Option<Seconds>,
    /// The most tools that run at the same time.
    pub max_parallel_tools: usize,
    /// How many seconds one tool call may take. A command that runs longer goes on in the sandbox; this bounds a
    /// tool that does not answer at all.
    pub tool_timeout_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_turns: 50,
            max_tokens: None,
            max_tool_calls: None,
            max_cost: None,
            max_seconds: None,
            max_sandbox_seconds: None,
            max_parallel_tools: 8,
            tool_timeout_s: 600,
        }
    }
}

impl AgentSpec {
    /// The models that may be asked for it.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        let summariser = self.compaction.as_ref().and_then(|compaction| compaction.model.as_deref());
        std::iter::once(self.model.as_str())
            .chain(self.fallbacks.iter().map(String::as_str))
            .chain(summariser)
    }
}

/// On what terms a run goes: what models cost, and who pays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    /// What models cost. Of these, the run records those of its own agents, and stays with them.
    pub prices: Prices,
    /// Who pays, where it is not the run alone that is limited.
    pub tenant: Option<Tenant>,
}

/// An agent with all that the journal records of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The agent.
    pub agent: AgentSpec,
    /// Bounds of a run that it begins.
    pub limits: Limits,
    /// Its system instructions in full.
    pub instructions: String,
    /// The workspace of a run that it begins.
    pub manifest: Manifest,
    /// Directory on the host that the manifest's local sources are relative to.
    pub manifest_base: PathBuf,
    /// The sandbox as it was asked for, for the record: backend, isolation, limits.
    pub sandbox: Value,
}

/// A run to start.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id, never used before.
    pub id: RunId,
    /// The id of its sandbox session, never used before.
    pub session_id: String,
    /// The agent that it begins with.
    pub entry: Member,
    /// The other agents that take part, by name.
    pub team: BTreeMap<String, Member>,
    /// The conversation at the start; what the user asks now comes last.
    pub input: Vec<Item>,
    /// Where what the input is made of came from, when others than the user wrote it.
    pub read: Vec<String>,
    /// Where the first items of `input` come from.
    pub history: Option<History>,
    /// The state of the sandbox session to work on in, when the run goes on with an earlier conversation.
    pub sandbox_state: Option<Value>,
    /// A directory on the host to keep the workspace in.
    pub workspace: Option<PathBuf>,
    /// The run that this one belongs to.
    pub parent: Option<Parent>,
    /// How many runs are above this one.
    pub depth: u64,
    /// On what terms it goes.
    pub terms: Terms,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// What one agent works with in this process.
#[derive(Debug, Clone)]
pub struct AgentHost {
    /// The model.
    pub model: Arc<dyn ModelClient>,
    /// The model that shortens its conversation, where it is another one.
    pub summariser: Option<Arc<dyn ModelClient>>,
    /// Its tools.
    pub tools: Vec<Arc<dyn Tool>>,
    /// Its guardrails that are code; those that its file declares need nothing here.
    pub guardrails: Vec<Arc<dyn Guardrail>>,
    /// Its handoffs' filters that are code.
    pub filters: Vec<Arc<dyn InputFilter>>,
    /// What makes the sandbox of a run that it begins; `None` where it needs none.
    pub sandbox: Option<Arc<dyn SandboxClient>>,
}

/// What a driver works with.
#[derive(Clone)]
pub struct Host {
    /// Where events are kept.
    pub journal: Arc<dyn Journal>,
    /// What each agent that may take part works with, by the agent's name.
    pub agents: Arc<BTreeMap<String, AgentHost>>,
    /// Where snapshots of workspaces are kept, for the runs that ask for some.
    pub snapshots: Option<SnapshotStore>,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// What is told of each step.
    pub hooks: Hooks,
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Cancels the run.
    pub cancel: CancellationToken,
    /// This process, for the record.
    pub pid: u32,
    /// This program's version, for the record.
    pub runtime: String,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("journal", &self.journal)
            .field("agents", &self.agents)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The run.
    pub run: RunId,
    /// How.
    pub status: Status,
    /// The agent's last words.
    pub output: Option<String>,
    /// Why it failed.
    pub error: Option<RunError>,
    /// Tokens used, those of sub-agents included.
    pub usage: Usage,
    /// Turns taken.
    pub turns: u64,
    /// All that was used, by sub-agents too.
    pub spent: Spent,
}

/// The longest id that a sandbox session may have on every backend.
const LONGEST_SESSION_ID: usize = 64;

/// The id of the sandbox session of a call's run: the run's own, as far as backends take one so long. Runs that are
/// nested deep and late have longer ones.
pub(crate) fn session_of(run: &RunId) -> String {
    if run.0.len() <= LONGEST_SESSION_ID { run.0.clone() } else { digest(&[run.0.as_bytes()]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_a_deep_run_has_an_id_that_every_backend_takes() {
        let deep = |place: u64| {
            RunId(format!("01a21229-519e-7136-bc73-fdc1e8e36a63{}-{place}", "-101-12".repeat(4)))
        };
        assert_eq!(session_of(&RunId("r-1-0".into())), "r-1-0");
        assert_eq!(session_of(&deep(1)).len(), LONGEST_SESSION_ID);
        assert_ne!(session_of(&deep(1)), session_of(&deep(2)));
    }
}
