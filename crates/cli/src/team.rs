//! Agents with all that they need: those of a new run, from their files, and those of a run that goes on, from its
//! record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mooring_capability::{Capability, system_instructions};
use mooring_harness::{AgentHost, AgentSpec, Limits, Member, Snapshots};
use mooring_journal::event::RunStarted;
use mooring_manifest::Manifest;
use mooring_snapshot::SnapshotStore;
use serde_json::{Value, json};

use crate::agent_checks::typed_output;
use crate::agent_file::{AgentFile, SandboxTable};
use crate::args::IsolationArg;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host::{self, Wiring};

/// An agent, with where it was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) agent: AgentSpec,
    pub(crate) limits: Limits,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_base: PathBuf,
    pub(crate) sandbox: SandboxTable,
    /// What names it in an error about its model.
    pub(crate) origin: String,
    /// Its system instructions, where a run's record has them.
    instructions: Option<String>,
}

/// The agent that a run begins with, and the others by name.
#[derive(Debug)]
pub(crate) struct Team {
    pub(crate) entry: Loaded,
    pub(crate) others: BTreeMap<String, Loaded>,
}

impl Loaded {
    /// An agent from its file. Its model is the one given where the file names none.
    pub(crate) fn new(
        file: AgentFile,
        path: &Path,
        manifest: Option<(Manifest, PathBuf)>,
        default_model: Option<&str>,
        default_origin: &str,
    ) -> Result<Self, CommandError> {
        let named = !file.model.0.is_empty();
        let origin = if named { format!("{}: model", path.display()) } else { default_origin.to_owned() };
        let mut models =
            file.model.0.clone().into_iter().chain(default_model.filter(|_| !named).map(str::to_owned));
        let Some(model) = models.next() else {
            return Err(CommandError::input(
                "no model: give --model openai/NAME, anthropic/NAME, chat/NAME or script:FILE, or set `model` in the \
                 agent file or in the configuration file",
            ));
        };
        let manifest = match manifest {
            Some(manifest) => Some(manifest),
            None => file.manifest(path)?,
        };
        let (manifest, manifest_base) = match manifest {
            Some(manifest) => manifest,
            None => (Manifest::default(), crate::home::absolute(Path::new("."))?),
        };
        let output = typed_output(&file, path)?;
        Ok(Self {
            agent: AgentSpec {
                name: file.name,
                model,
                fallbacks: models.collect(),
                base_url: file.base_url,
                instructions: file.instructions,
                capabilities: file.capabilities,
                mcp: file.mcp,
                handoffs: file.handoffs,
                agents: file.agents,
                guardrails: file.guardrails,
                output,
                settings: file.settings,
                compaction: file.compaction,
                policy: file.policy,
                guidance: file.guidance,
            },
            limits: file.limits,
            manifest,
            manifest_base,
            sandbox: file.sandbox,
            origin,
            instructions: None,
        })
    }

    /// What the journal records of it. `root` is the workspace's root as its commands see it.
    pub(crate) fn member(&self, capabilities: &[Capability], tree: &str, root: &str) -> Member {
        let instructions = self.instructions.clone().unwrap_or_else(|| {
            system_instructions(self.agent.instructions.as_deref(), capabilities, tree, root)
        });
        Member {
            agent: self.agent.clone(),
            limits: self.limits.clone(),
            instructions,
            manifest: self.manifest.clone(),
            manifest_base: self.manifest_base.clone(),
            sandbox: json!(self.sandbox),
        }
    }
}

impl Team {
    /// Where snapshots are kept, where the run is to have some, or a set-up whose result is one.
    pub(crate) fn snapshots(&self, home: &Home) -> Result<Option<SnapshotStore>, CommandError> {
        let wanted = self.entry.sandbox.snapshots.unwrap_or_default() != Snapshots::Never;
        let mut members = std::iter::once(&self.entry).chain(self.others.values());
        let sets_up = members.any(|member| !member.manifest.extension.setup.is_empty());
        (wanted || sets_up).then(|| home.snapshots()).transpose()
    }

    /// The agents that the first one names, and those that they name, each read from its file.
    pub(crate) fn read(
        mut entry: Loaded,
        path: &Path,
        default_model: Option<&str>,
    ) -> Result<Self, CommandError> {
        let entry_path = std::path::absolute(path)?;
        let model = default_model.unwrap_or(&entry.agent.model).to_owned();
        let mut files: BTreeMap<PathBuf, AgentFile> = BTreeMap::new();
        let mut names = BTreeMap::from([(normal(&entry_path), entry.agent.name.clone())]);
        let agent = &mut entry.agent;
        let mut due = name_mates(&mut agent.handoffs, &mut agent.agents, &mut agent.guardrails, &entry_path)?;
        while let Some(path) = due.pop() {
            if names.contains_key(&path) {
                continue;
            }
            let mut file = AgentFile::read(&path)?;
            due.extend(name_mates(&mut file.handoffs, &mut file.agents, &mut file.guardrails, &path)?);
            if let Some((other, _)) = names.iter().find(|(_, name)| **name == file.name) {
                return Err(CommandError::input(format!(
                    "{}: name: '{}' is the name of the agent in {} too. Give each agent of a run its own name",
                    path.display(),
                    file.name,
                    other.display()
                )));
            }
            names.insert(path.clone(), file.name.clone());
            files.insert(path, file);
        }
        resolve(&mut entry.agent, &names);
        let mut others = BTreeMap::new();
        for (path, file) in files {
            let mut loaded = Loaded::new(file, &path, None, Some(&model), &entry.origin)?;
            resolve(&mut loaded.agent, &names);
            others.insert(loaded.agent.name.clone(), loaded);
        }
        Ok(Self { entry, others })
    }

    /// The agents of a run that has begun.
    pub(crate) fn again(started: &RunStarted) -> Result<Self, CommandError> {
        let unreadable = |what: &str, error: &dyn std::fmt::Display| {
            CommandError::failed(format!("the run's {what} cannot be read: {error}"))
        };
        let load = |agent: &Value,
                    limits: &Value,
                    manifest: &Value,
                    base: &Option<String>,
                    sandbox: &Value,
                    text: &str| {
            let agent: AgentSpec =
                serde_json::from_value(agent.clone()).map_err(|error| unreadable("agent", &error))?;
            let sandbox = if sandbox.is_null() {
                SandboxTable::default()
            } else {
                serde_json::from_value(sandbox.clone()).map_err(|error| unreadable("sandbox", &error))?
            };
            Ok::<_, CommandError>(Loaded {
                limits: serde_json::from_value(limits.clone())
                    .map_err(|error| unreadable("limits", &error))?,
                manifest: Manifest::from_value(manifest).map_err(|error| unreadable("manifest", &error))?,
                manifest_base: base.clone().unwrap_or_default().into(),
                sandbox,
                origin: agent.model.clone(),
                instructions: Some(text.to_owned()),
                agent,
            })
        };
        let entry = load(
            &started.agent,
            &started.limits,
            &started.manifest,
            &started.manifest_base,
            &started.sandbox["options"],
            &started.instructions,
        )?;
        let mut others = BTreeMap::new();
        for (name, member) in &started.team {
            let loaded = load(
                &member.agent,
                &member.limits,
                &member.manifest,
                &member.manifest_base,
                &member.sandbox,
                &member.instructions,
            )?;
            others.insert(name.clone(), loaded);
        }
        Ok(Self { entry, others })
    }

    /// The same agents with another one first, in the same workspace: a conversation goes on with the agent that had
    /// it last.
    pub(crate) fn led_by(mut self, name: &str) -> Self {
        if let Some(mut entry) = self.others.remove(name) {
            entry.manifest = self.entry.manifest.clone();
            entry.manifest_base = self.entry.manifest_base.clone();
            entry.sandbox = self.entry.sandbox.clone();
            entry.limits = self.entry.limits.clone();
            let before = std::mem::replace(&mut self.entry, entry);
            self.others.insert(before.agent.name.clone(), before);
        }
        self
    }

    /// All of them, the first one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Loaded> {
        std::iter::once(&self.entry).chain(self.others.values())
    }

    /// The MCP servers that they use.
    pub(crate) fn mcp(&self) -> BTreeSet<String> {
        self.all().flat_map(|loaded| loaded.agent.mcp.iter().cloned()).collect()
    }

    /// Those that may come to work in the run's own sandbox.
    fn in_the_run(&self) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut due = vec![self.entry.agent.name.as_str()];
        while let Some(name) = due.pop() {
            if seen.insert(name) {
                let agent = self.others.get(name).map_or(&self.entry.agent, |loaded| &loaded.agent);
                due.extend(agent.handoffs.iter().map(|handoff| handoff.agent.as_str()));
            }
        }
        seen
    }

    /// What each of them works with. The run has a sandbox if any that may work in it needs one.
    pub(crate) fn hosts(&self, wiring: &Wiring<'_>) -> Result<BTreeMap<String, AgentHost>, CommandError> {
        let here = self.in_the_run();
        let needs = |loaded: &&Loaded| !loaded.agent.capabilities.is_empty();
        let entry_needs =
            self.all().filter(|loaded| here.contains(loaded.agent.name.as_str())).any(|l| needs(&l));
        let host = |loaded: &Loaded| {
            let needed = needs(&loaded) || (entry_needs && loaded.agent.name == self.entry.agent.name);
            let sandbox = needed.then_some((&loaded.sandbox, loaded.manifest_base.as_path()));
            let host = wiring.agent(&loaded.agent, sandbox, &loaded.origin)?;
            Ok((loaded.agent.name.clone(), host))
        };
        self.all().map(host).collect()
    }

    /// What the journal records of them. `root` is the root of the run's workspace as commands in it see it.
    pub(crate) fn members(&self, root: &str) -> Result<(Member, BTreeMap<String, Member>), CommandError> {
        let here = self.in_the_run();
        let member = |loaded: &Loaded| {
            let in_the_run = here.contains(loaded.agent.name.as_str());
            let manifest = if in_the_run { &self.entry.manifest } else { &loaded.manifest };
            let own_root = match loaded.sandbox.isolation {
                Some(IsolationArg::None) => "the directory that commands start in".to_owned(),
                _ => loaded.manifest.root.clone(),
            };
            let root = if in_the_run { root } else { &own_root };
            let capabilities = host::capabilities(&loaded.agent.capabilities)?;
            Ok::<_, CommandError>(loaded.member(&capabilities, &manifest.describe(3), root))
        };
        let mut others = BTreeMap::new();
        for (name, loaded) in &self.others {
            others.insert(name.clone(), member(loaded)?);
        }
        Ok((member(&self.entry)?, others))
    }
}

/// Makes the files of an agent's mates absolute, and gives them.
fn name_mates(
    handoffs: &mut [mooring_harness::Handoff],
    agents: &mut [mooring_harness::SubAgent],
    guardrails: &mut [mooring_harness::GuardrailSpec],
    path: &Path,
) -> Result<Vec<PathBuf>, CommandError> {
    let base = crate::agent_file::directory(path)?;
    let handoffs = handoffs.iter_mut().map(|handoff| &mut handoff.agent);
    let judges = guardrails.iter_mut().filter_map(|guardrail| guardrail.agent.as_mut());
    let mates = handoffs.chain(agents.iter_mut().map(|agent| &mut agent.agent)).chain(judges);
    let absolute = mates.map(|file| {
        let path = normal(&base.join(&*file));
        *file = path.display().to_string();
        path
    });
    Ok(absolute.collect())
}

/// Puts names in the place of files.
fn resolve(agent: &mut AgentSpec, names: &BTreeMap<PathBuf, String>) {
    let handoffs = agent.handoffs.iter_mut().map(|handoff| &mut handoff.agent);
    let judges = agent.guardrails.iter_mut().filter_map(|guardrail| guardrail.agent.as_mut());
    for mate in handoffs.chain(agent.agents.iter_mut().map(|agent| &mut agent.agent)).chain(judges) {
        if let Some(name) = names.get(Path::new(mate)) {
            mate.clone_from(name);
        }
    }
}

/// One path for one file, whatever way leads to it.
fn normal(path: &Path) -> PathBuf {
    // A file that is not there is told when it is read.
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}
