//! Agents, and how one is put together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use mooring_capability::{Capability, Effect, Tool, capability, system_instructions};
use mooring_harness::{
    Action, AgentHost, AgentSpec, Compaction, Guardrail, GuardrailSpec, Handoff, HandoffFilter, InputFilter,
    Limits, Member, Policy, Rule, Snapshots, SubAgent, SubSandbox, TypedOutput,
};
use mooring_manifest::Manifest;
use mooring_model::{ModelClient, OutputSchema, Settings};
use mooring_sandbox::SandboxClient;
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::{Error, Model};

/// A model with instructions, tools, rules and a place to work. Clones are the same agent.
#[derive(Debug, Clone)]
pub struct Agent(pub(crate) Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    spec: AgentSpec,
    description: String,
    limits: Limits,
    manifest: Manifest,
    manifest_base: PathBuf,
    workspace: Option<PathBuf>,
    snapshots: Snapshots,
    model: Arc<dyn ModelClient>,
    summariser: Option<Arc<dyn ModelClient>>,
    tools: Vec<Arc<dyn Tool>>,
    guardrails: Vec<Arc<dyn Guardrail>>,
    filters: Vec<Arc<dyn InputFilter>>,
    sandbox: Option<Arc<dyn SandboxClient>>,
    mates: Vec<Agent>,
}

/// Puts an agent together: [`Agent::builder`].
#[derive(Debug)]
#[must_use]
pub struct AgentBuilder {
    spec: AgentSpec,
    description: String,
    limits: Limits,
    manifest: Manifest,
    manifest_base: PathBuf,
    workspace: Option<PathBuf>,
    snapshots: Snapshots,
    model: Option<Model>,
    summariser: Option<Model>,
    tools: Vec<Arc<dyn Tool>>,
    guardrails: Vec<Arc<dyn Guardrail>>,
    filters: Vec<Arc<dyn InputFilter>>,
    sandbox: Option<Arc<dyn SandboxClient>>,
    mates: Vec<Agent>,
}

impl Agent {
    /// An agent of this name, which only needs a model yet. It has no capabilities, and so no sandbox, unless it is
    /// given some.
    pub fn builder(name: impl Into<String>) -> AgentBuilder {
        AgentBuilder {
            spec: AgentSpec { name: name.into(), ..AgentSpec::default() },
            description: String::new(),
            limits: Limits::default(),
            manifest: Manifest::default(),
            manifest_base: PathBuf::from("/"),
            workspace: None,
            snapshots: Snapshots::Never,
            model: None,
            summariser: None,
            tools: Vec::new(),
            guardrails: Vec::new(),
            filters: Vec::new(),
            sandbox: None,
            mates: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.spec.name
    }

    /// The directory that its runs work in, where it has one.
    pub(crate) fn workspace(&self) -> Option<&PathBuf> {
        self.0.workspace.as_ref()
    }

    /// When snapshots are taken in runs that it begins.
    pub(crate) fn snapshots(&self) -> Snapshots {
        self.0.snapshots
    }

    /// What makes the sandboxes of runs that it begins, and of what.
    pub(crate) fn place(&self) -> Option<(&Arc<dyn SandboxClient>, &Manifest)> {
        Some((self.0.sandbox.as_ref()?, &self.0.manifest))
    }

    /// It and all agents that it may come to work with, by name.
    pub(crate) fn all(&self) -> BTreeMap<&str, &Agent> {
        let mut all = BTreeMap::new();
        let mut due = vec![self];
        while let Some(agent) = due.pop() {
            if let Entry::Vacant(place) = all.entry(agent.name()) {
                place.insert(agent);
                due.extend(&agent.0.mates);
            }
        }
        all
    }

    /// Those that may come to work in its own run.
    fn in_the_run(&self) -> BTreeSet<&str> {
        let all = self.all();
        let mut seen = BTreeSet::new();
        let mut due = vec![self.name()];
        while let Some(name) = due.pop() {
            if seen.insert(name)
                && let Some(agent) = all.get(name)
            {
                due.extend(agent.0.spec.handoffs.iter().map(|handoff| handoff.agent.as_str()));
            }
        }
        seen
    }

    /// What each of them works with. Made anew for each driver: the shell's tools remember the commands of one run.
    pub(crate) fn hosts(&self) -> BTreeMap<String, AgentHost> {
        let host = |(name, agent): (&str, &Agent)| {
            let parts = &agent.0;
            let own = capabilities(&parts.spec).into_iter().flat_map(|capability| capability.tools);
            let tools = own.chain(parts.tools.iter().cloned()).collect();
            let host = AgentHost {
                model: Arc::clone(&parts.model),
                summariser: parts.summariser.clone(),
                tools,
                guardrails: parts.guardrails.clone(),
                filters: parts.filters.clone(),
                sandbox: parts.sandbox.clone(),
            };
            (name.to_owned(), host)
        };
        self.all().into_iter().map(host).collect()
    }

    /// What the journal records of it, and of the others.
    pub(crate) fn members(&self) -> (Member, BTreeMap<String, Member>) {
        let here = self.in_the_run();
        let member = |agent: &Agent| {
            let parts = &agent.0;
            // Whoever works in the run works in its workspace.
            let place = if here.contains(agent.name()) { &self.0.manifest } else { &parts.manifest };
            let told = parts.spec.instructions.as_deref();
            let capabilities = capabilities(&parts.spec);
            let instructions = if capabilities.is_empty() {
                told.unwrap_or_default().to_owned()
            } else {
                system_instructions(told, &capabilities, &place.describe(3), &place.root)
            };
            Member {
                agent: parts.spec.clone(),
                limits: parts.limits.clone(),
                instructions,
                manifest: parts.manifest.clone(),
                manifest_base: parts.manifest_base.clone(),
                sandbox: parts.sandbox_options(),
            }
        };
        let others = self.all().into_iter().filter(|(name, _)| *name != self.name());
        (member(self), others.map(|(name, agent)| (name.to_owned(), member(agent))).collect())
    }
}

impl Parts {
    /// What the journal records of how its sandbox is used.
    fn sandbox_options(&self) -> Value {
        match self.snapshots {
            Snapshots::Never => Value::Null,
            wanted => json!({"snapshots": wanted}),
        }
    }
}

/// The capabilities of an agent; names are checked when it is built.
fn capabilities(spec: &AgentSpec) -> Vec<Capability> {
    spec.capabilities.iter().filter_map(|name| capability(name)).collect()
}

impl AgentBuilder {
    /// What it is told to do and how.
    pub fn instructions(mut self, text: impl Into<String>) -> Self {
        self.spec.instructions = Some(text.into());
        self
    }

    /// What it is for, for the agents that hand over to it or give it work.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// The model that it asks: a name, a [`Model`], a script, or a client of the program's own.
    pub fn model(mut self, model: impl Into<Model>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sampling and the like.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.spec.settings = settings;
        self
    }

    /// A tool. One whose effect is pure may be called without asking, after all other rules.
    pub fn tool(mut self, tool: impl Tool + 'static) -> Self {
        self.tools.push(Arc::new(tool));
        self
    }

    /// Tools that exist already, such as those of MCP servers.
    pub fn tools(mut self, tools: impl IntoIterator<Item = Arc<dyn Tool>>) -> Self {
        self.tools.extend(tools);
        self
    }

    /// Tools for a sandbox, by name: `filesystem`, `shell`, `skills` ([`crate::ALL_CAPABILITIES`]).
    pub fn capability(mut self, name: impl Into<String>) -> Self {
        self.spec.capabilities.push(name.into());
        self
    }

    /// What makes the sandboxes that it works in.
    pub fn sandbox(mut self, client: impl SandboxClient + 'static) -> Self {
        self.sandbox = Some(Arc::new(client));
        self
    }

    /// What it finds in its workspace.
    pub fn manifest(mut self, manifest: Manifest) -> Self {
        self.manifest = manifest;
        self
    }

    /// The directory of this machine that the manifest's local sources are relative to; `/` where none is given.
    pub fn manifest_base(mut self, directory: impl Into<PathBuf>) -> Self {
        self.manifest_base = directory.into();
        self
    }

    /// A directory of this machine that the runs which it begins work in, and leave there; without one, each run has a
    /// private workspace.
    pub fn workspace(mut self, directory: impl Into<PathBuf>) -> Self {
        self.workspace = Some(directory.into());
        self
    }

    /// When snapshots of its workspace are taken, in the store of [`crate::Runtime::with_snapshots`]. A fork goes on in
    /// the nearest one.
    pub fn snapshots(mut self, when: Snapshots) -> Self {
        self.snapshots = when;
        self
    }

    /// An agent that it may hand the conversation over to, with all of it.
    pub fn handoff(self, agent: &Agent) -> Self {
        self.handoff_with(agent, HandoffFilter::All)
    }

    /// An agent that it may hand the conversation over to, with what the filter leaves of it.
    pub fn handoff_with(mut self, agent: &Agent, filter: HandoffFilter) -> Self {
        self.spec.handoffs.push(Handoff {
            agent: agent.name().to_owned(),
            tool: None,
            description: agent.0.description.clone(),
            filter,
        });
        self.mates.push(agent.clone());
        self
    }

    /// An agent that it may hand the conversation over to, with what this code leaves of it. Whoever resumes a run needs
    /// it too.
    pub fn handoff_through(mut self, agent: &Agent, filter: impl InputFilter + 'static) -> Self {
        let named = HandoffFilter::Code(filter.name().to_owned());
        self.filters.push(Arc::new(filter));
        self.handoff_with(agent, named)
    }

    /// An agent that it may give work to, as a tool. It works in a run and a sandbox of its own.
    pub fn sub_agent(self, agent: &Agent) -> Self {
        self.sub_agent_in(agent, SubSandbox::Own)
    }

    /// An agent that it may give work to, and where that works.
    pub fn sub_agent_in(mut self, agent: &Agent, sandbox: SubSandbox) -> Self {
        self.spec.agents.push(SubAgent {
            agent: agent.name().to_owned(),
            tool: None,
            description: agent.0.description.clone(),
            sandbox,
        });
        self.mates.push(agent.clone());
        self
    }

    /// What it may do without asking, as a whole: replaces the rules so far.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.spec.policy = policy;
        self
    }

    /// After the rules so far: calls of this tool are made without asking. `*` and `?` match any text and character.
    pub fn allow(self, tool: impl Into<String>) -> Self {
        self.rule(tool, Action::Allow)
    }

    /// After the rules so far: a person is asked about calls of this tool.
    pub fn ask(self, tool: impl Into<String>) -> Self {
        self.rule(tool, Action::Ask)
    }

    /// After the rules so far: this tool is not called.
    pub fn deny(self, tool: impl Into<String>) -> Self {
        self.rule(tool, Action::Deny)
    }

    fn rule(mut self, tool: impl Into<String>, action: Action) -> Self {
        self.spec.policy.rules.push(rule(tool.into(), action, None));
        self
    }

    /// A guardrail in code. Whoever resumes a run needs it too.
    pub fn guardrail(mut self, guardrail: impl Guardrail + 'static) -> Self {
        self.guardrails.push(Arc::new(guardrail));
        self
    }

    /// A guardrail that is a pattern.
    pub fn guard(mut self, guardrail: GuardrailSpec) -> Self {
        self.spec.guardrails.push(guardrail);
        self
    }

    /// A guardrail that asks an agent, which answers `{"trip": …, "reason": …}` in a run of its own.
    pub fn judge(mut self, judge: &Agent, guardrail: GuardrailSpec) -> Self {
        self.spec.guardrails.push(GuardrailSpec { agent: Some(judge.name().to_owned()), ..guardrail });
        self.mates.push(judge.clone());
        self
    }

    /// When and how its conversation is shortened; by its own model, unless there is a [`AgentBuilder::summariser`].
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.spec.compaction = Some(compaction);
        self
    }

    /// The model that shortens its conversation.
    pub fn summariser(mut self, model: impl Into<Model>) -> Self {
        self.summariser = Some(model.into());
        self
    }

    /// What its last answer must look like: JSON that this type reads, after its schema. An answer that is not goes
    /// back to the model; [`crate::Run::output_as`] gives the value.
    pub fn output<T: JsonSchema>(mut self) -> Self {
        let form = OutputSchema { schema: crate::__private::schema::<T>(), strict: true };
        self.spec.output = Some(TypedOutput::new(form));
        self
    }

    /// Bounds of a run that it begins.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether it is told what `AGENTS.md` of its workspace says; it is unless this says no.
    pub fn guidance(mut self, told: bool) -> Self {
        self.spec.guidance = told;
        self
    }

    /// The agent, checked as far as can be without starting anything.
    ///
    /// # Errors
    /// [`Error::Agent`] where parts are missing or do not fit, [`Error::Model`] where the model cannot be reached in
    /// this way.
    pub fn build(self) -> Result<Agent, Error> {
        let Self {
            mut spec,
            description,
            limits,
            manifest,
            manifest_base,
            workspace,
            snapshots,
            model,
            summariser,
            tools,
            guardrails,
            filters,
            sandbox,
            mates,
        } = self;
        let name = spec.name.clone();
        let refuse = |reason: String| Err(Error::Agent { agent: name.clone(), reason });
        if name.is_empty() {
            return refuse("it needs a name".into());
        }
        let Some(model) = model else { return refuse("it needs a model: `.model(…)`".into()) };
        let (client, model, base_url) = model.connect()?;
        let summariser = match summariser {
            None => None,
            Some(_) if spec.compaction.is_none() => {
                return refuse("it has a summariser and nothing to shorten: `.compaction(…)`".into());
            }
            Some(summariser) => Some(summariser.connect()?),
        };
        if let (Some(compaction), Some((_, name, _))) = (&mut spec.compaction, &summariser) {
            compaction.model = Some(name.clone());
        } else if spec.compaction.as_ref().is_some_and(|compaction| compaction.model.is_some()) {
            return refuse("name the model that shortens its conversation with `.summariser(…)`".into());
        }
        if let Some(unknown) = spec.capabilities.iter().find(|name| capability(name).is_none()) {
            let known = mooring_capability::ALL_CAPABILITIES.join(", ");
            return refuse(format!("there is no capability '{unknown}'. The capabilities are: {known}"));
        }
        if !spec.capabilities.is_empty() && sandbox.is_none() {
            return refuse("its capabilities need a sandbox: `.sandbox(…)`".into());
        }
        if sandbox.is_none() && (workspace.is_some() || snapshots != Snapshots::Never) {
            return refuse("its workspace and snapshots need a sandbox: `.sandbox(…)`".into());
        }
        if let Some(problem) = spec.guardrails.iter().find_map(GuardrailSpec::problem) {
            return refuse(problem);
        }
        if let Some(error) = spec.output.as_ref().and_then(|output| output.usable().err()) {
            return refuse(format!("its output: {error}"));
        }
        (spec.model, spec.base_url) = (model, base_url);
        for tool in &tools {
            if tool.effect() == Effect::Pure && tool.leaves_sandbox() {
                let reason = Some("it changes nothing".into());
                spec.policy.rules.push(rule(tool.spec().name, Action::Allow, reason));
            }
        }
        let agent = Agent(Arc::new(Parts {
            spec,
            description,
            limits,
            manifest,
            manifest_base,
            workspace,
            snapshots,
            model: client,
            summariser: summariser.map(|(client, _, _)| client),
            tools,
            guardrails,
            filters,
            sandbox,
            mates,
        }));
        let all = agent.all();
        for mate in all.values().flat_map(|agent| &agent.0.mates) {
            if all.get(mate.name()).is_none_or(|other| !Arc::ptr_eq(&other.0, &mate.0)) {
                return refuse(format!("two agents that work together are named '{}'", mate.name()));
            }
        }
        let works = |name: &&str| all.get(name).is_some_and(|mate| !mate.0.spec.capabilities.is_empty());
        if agent.0.sandbox.is_none()
            && let Some(mate) = agent.in_the_run().into_iter().find(works)
        {
            return refuse(format!(
                "it may hand over to '{mate}', which works in the sandbox of the run: give this one a `.sandbox(…)`"
            ));
        }
        Ok(agent)
    }
}

fn rule(tool: String, action: Action, reason: Option<String>) -> Rule {
    Rule { tool, arguments: BTreeMap::new(), sandbox: None, read: None, action, reason }
}
