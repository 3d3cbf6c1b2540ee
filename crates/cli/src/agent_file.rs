//! The agent file: TOML, with paths relative to itself.

use std::path::{Path, PathBuf};

use mooring_harness::{Compaction, GuardrailSpec, Handoff, Limits, Policy, Snapshots, SubAgent};
use mooring_manifest::{Format, Manifest, ManifestError};
use mooring_model::Settings;
use serde::Deserialize;

use crate::agent_checks::{SchemaField, refuse_guardrails, refuse_rules};
use crate::args::IsolationArg;
use crate::command_error::CommandError;
use crate::home::absolute;

/// An agent as its maker wrote it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentFile {
    /// Its name.
    #[serde(default = "default_name")]
    pub(crate) name: String,
    /// `openai/…`, `anthropic/…`, `chat/…`, `script:…`; or several, each asked where those before it cannot answer.
    #[serde(default)]
    pub(crate) model: Models,
    /// Where the model is served.
    pub(crate) base_url: Option<String>,
    /// What the agent is told besides the runtime's own instructions.
    pub(crate) instructions: Option<String>,
    /// The workspace: a path, or the manifest itself.
    pub(crate) manifest: Option<ManifestField>,
    /// What the agent can do.
    #[serde(default = "default_capabilities")]
    pub(crate) capabilities: Vec<String>,
    /// MCP servers that the configuration file describes, by name.
    #[serde(default)]
    pub(crate) mcp: Vec<String>,
    /// The agents that it may hand the conversation over to; `agent` is a file.
    #[serde(default)]
    pub(crate) handoffs: Vec<Handoff>,
    /// The agents that it may give work to; `agent` is a file.
    #[serde(default)]
    pub(crate) agents: Vec<SubAgent>,
    /// What looks at its input, its output and its tool calls; `agent` is a file.
    #[serde(default)]
    pub(crate) guardrails: Vec<GuardrailSpec>,
    /// What its answer must look like: a path, or the schema itself.
    pub(crate) output_schema: Option<SchemaField>,
    /// How often it may mend an answer that is not like it.
    pub(crate) output_repairs: Option<u64>,
    /// Whether a provider that can enforce the schema is asked to.
    pub(crate) output_strict: Option<bool>,
    /// Where it works.
    #[serde(default)]
    pub(crate) sandbox: SandboxTable,
    /// Bounds of a run.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// Who pays: a tenant that the configuration file describes.
    pub(crate) tenant: Option<String>,
    /// Sampling and the like.
    #[serde(default)]
    pub(crate) settings: Settings,
    /// When and how its conversation is shortened.
    pub(crate) compaction: Option<Compaction>,
    /// What the agent may do without asking.
    #[serde(default)]
    pub(crate) policy: Policy,
    /// Whether the agent is told what the workspace says about itself.
    #[serde(default = "yes")]
    pub(crate) guidance: bool,
}

/// One model or several; none where the agent file names none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "OneOrMore")]
pub(crate) struct Models(pub(crate) Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the name of a model, or a list of names")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<OneOrMore> for Models {
    fn from(models: OneOrMore) -> Self {
        match models {
            OneOrMore::One(model) => Self(vec![model]),
            OneOrMore::More(models) => Self(models),
        }
    }
}

/// A manifest by path or in place.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum ManifestField {
    /// Relative to the agent file.
    Path(PathBuf),
    /// In place.
    Inline(toml::Table),
}

/// `[sandbox]` of an agent file.
#[derive(Debug, Clone, Default, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SandboxTable {
    /// `local` or `docker`.
    pub(crate) backend: Option<String>,
    /// The image of a docker sandbox whose manifest names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// Whether the image of a docker sandbox is read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) read_only: bool,
    /// Of the local sandbox: `namespaces` or `none`.
    pub(crate) isolation: Option<IsolationArg>,
    /// The most memory, such as `512MiB`.
    pub(crate) memory: Option<String>,
    /// The most processes and threads at a time.
    pub(crate) pids: Option<u64>,
    /// The most processors, such as `1.5`.
    pub(crate) cpus: Option<f64>,
    /// When snapshots of the workspace are taken: `turn` or `end`.
    pub(crate) snapshots: Option<Snapshots>,
}

fn yes() -> bool {
    true
}

fn default_name() -> String {
    "agent".into()
}

fn default_capabilities() -> Vec<String> {
    mooring_capability::CAPABILITIES.iter().map(|&name| name.to_owned()).collect()
}

impl Default for AgentFile {
    fn default() -> Self {
        Self {
            name: default_name(),
            model: Models::default(),
            base_url: None,
            instructions: None,
            manifest: None,
            capabilities: default_capabilities(),
            mcp: Vec::new(),
            handoffs: Vec::new(),
            agents: Vec::new(),
            guardrails: Vec::new(),
            output_schema: None,
            output_repairs: None,
            output_strict: None,
            sandbox: SandboxTable::default(),
            limits: Limits::default(),
            tenant: None,
            compaction: None,
            settings: Settings::default(),
            policy: Policy::default(),
            guidance: true,
        }
    }
}

impl AgentFile {
    /// Reads an agent file, and makes the script of a scripted model absolute.
    pub(crate) fn read(path: &Path) -> Result<Self, CommandError> {
        let text = fs_err::read_to_string(path).map_err(|error| CommandError::input(error.to_string()))?;
        let mut agent: Self =
            toml::from_str(&text).map_err(|error| CommandError::input(toml_error(path, &text, &error)))?;
        for model in &mut agent.model.0 {
            *model = absolute_script(model, &directory(path)?);
        }
        if let Some(model) = agent.compaction.as_mut().and_then(|compaction| compaction.model.as_mut()) {
            *model = absolute_script(model, &directory(path)?);
        }
        for name in &agent.capabilities {
            if mooring_capability::capability(name).is_none() {
                return Err(CommandError::input(format!(
                    "{}: capabilities: there is no capability '{name}'. The capabilities are: {}",
                    path.display(),
                    mooring_capability::ALL_CAPABILITIES.join(", ")
                )));
            }
        }
        refuse_guardrails(&agent.guardrails, path)?;
        refuse_rules(&agent.policy, path)?;
        Ok(agent)
    }

    /// The manifest and the directory that its local sources are relative to.
    pub(crate) fn manifest(&self, agent_path: &Path) -> Result<Option<(Manifest, PathBuf)>, CommandError> {
        let base = directory(agent_path)?;
        match &self.manifest {
            None => Ok(None),
            Some(ManifestField::Path(path)) => crate::lock::read_locked(&base.join(path)).map(Some),
            Some(ManifestField::Inline(table)) => {
                let value = serde_json::to_value(table).map_err(|error| {
                    CommandError::input(format!("{}: manifest: {error}", agent_path.display()))
                })?;
                let manifest = Manifest::from_value(&value)
                    .and_then(|manifest| {
                        manifest.validate().map_err(ManifestError::Invalid).map(|()| manifest)
                    })
                    .map_err(|error| {
                        CommandError::input(format!("{}: manifest: {error}", agent_path.display()))
                    })?;
                Ok(Some((manifest, base)))
            }
        }
    }
}

/// Reads and checks a manifest; gives it with the directory that its local sources are relative to.
pub(crate) fn read_manifest(path: &Path) -> Result<(Manifest, PathBuf), CommandError> {
    let text = fs_err::read_to_string(path).map_err(|error| CommandError::input(error.to_string()))?;
    let manifest = Format::from_path(path)
        .and_then(|format| Manifest::load(&text, format))
        .map_err(|error| CommandError::input(format!("{}: {error}", path.display())))?;
    Ok((manifest, directory(path)?))
}

/// The directory that holds a file, absolute.
pub(crate) fn directory(file: &Path) -> Result<PathBuf, CommandError> {
    let file = absolute(file)?;
    Ok(file.parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// `script:FILE` with FILE made absolute; other models as they are.
pub(crate) fn absolute_script(model: &str, base: &Path) -> String {
    match model.strip_prefix("script:") {
        Some(file) => format!("script:{}", base.join(file).display()),
        None => model.to_owned(),
    }
}

/// A TOML error with file, line and column.
pub(crate) fn toml_error(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}:{line}:{column}: {}", path.display(), error.message().trim())
}
