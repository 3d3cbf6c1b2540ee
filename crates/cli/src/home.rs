//! Where state and configuration live, and what the configuration says.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use mooring_journal::SqliteJournal;
use mooring_mcp::McpConfig;
use mooring_model::{Prices, RateLimits};
use mooring_snapshot::SnapshotStore;
use serde::Deserialize;

use crate::command_error::CommandError;
use crate::tenant::TenantConfig;

/// The directories of this user.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// Runs, workspaces and the journal: `$MOOR_HOME`, else the XDG data directory.
    pub(crate) state: PathBuf,
    /// The configuration file; it need not exist.
    pub(crate) config_file: PathBuf,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The model where neither the command line nor the agent file names one.
    pub(crate) model: Option<String>,
    /// MCP servers: `[mcp.NAME]`. An agent names those that it uses; only the user says what they are, since they run
    /// on this machine and get what is named here.
    pub(crate) mcp: BTreeMap<String, McpConfig>,
    /// What models cost: `[prices."PATTERN"]`. None are shipped: they change, and a wrong one is worse than none.
    pub(crate) prices: Prices,
    /// What sandboxes may do on this network, whatever a manifest says.
    pub(crate) network: NetworkConfig,
    /// Directories of this machine that manifests may ask for: `[grants]`.
    pub(crate) grants: GrantsConfig,
    /// Keys and addresses: `[providers.openai]`, `[providers.anthropic]`, `[providers.chat]`.
    pub(crate) providers: BTreeMap<String, ProviderConfig>,
    /// Who pays where neither the command line nor the agent file says it.
    pub(crate) tenant: Option<String>,
    /// What all runs of a tenant may use together: `[tenants.NAME]`.
    pub(crate) tenants: BTreeMap<String, TenantConfig>,
    /// Secrets that manifests name: `[secrets]`, each a value. The variable `MOOR_SECRET_NAME` goes before it.
    #[serde(deserialize_with = "secrets")]
    pub(crate) secrets: BTreeMap<String, mooring_model::Secret>,
}

/// Directories of this machine that sandboxes may see, with all below them, where a manifest asks for it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GrantsConfig {
    /// Those that may be read.
    pub(crate) read: Vec<PathBuf>,
    /// Those that may be written as well.
    pub(crate) write: Vec<PathBuf>,
}

/// What sandboxes may do on this network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkConfig {
    /// Hosts that may have loopback and private addresses, where a manifest allows them: `git.internal`, `*.corp.test`.
    pub(crate) private: Vec<String>,
}

/// How to reach a provider.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProviderConfig {
    /// The key. The environment goes before it.
    #[serde(deserialize_with = "secret")]
    pub(crate) api_key: Option<mooring_model::Secret>,
    /// Where the provider's API is served.
    pub(crate) base_url: Option<String>,
    /// How much may be asked of it.
    pub(crate) limits: Option<RateLimits>,
    /// How many seconds to wait for the next byte of an answer.
    pub(crate) idle_timeout_s: Option<NonZeroU32>,
    /// How often to try in all, before a call fails or the next model of the list is asked.
    pub(crate) tries: Option<NonZeroU32>,
}

fn secrets<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, mooring_model::Secret>, D::Error> {
    let values = BTreeMap::<String, String>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, mooring_model::Secret::new(value))).collect())
}

fn secret<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<mooring_model::Secret>, D::Error> {
    Ok(Some(mooring_model::Secret::new(String::deserialize(deserializer)?)))
}

/// An error about the configuration file must not show what stands in it: it may be a key in the wrong place.
fn without_value(message: &str) -> String {
    match (message.split_once("invalid type: "), message.split_once(", expected ")) {
        (Some((place, _)), Some((_, expected))) => format!("{place}invalid type, expected {expected}"),
        _ => message.to_owned(),
    }
}

/// A variable of the environment; empty counts as not set.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Home {
    /// Finds the directories. Nothing is made.
    pub(crate) fn find() -> Result<Self, CommandError> {
        if let Some(home) = variable("MOOR_HOME") {
            let state = absolute(Path::new(&home))?;
            return Ok(Self { config_file: state.join("config.toml"), state });
        }
        let under = |xdg: &str, fallback: &str| match (variable(xdg), variable("HOME")) {
            (Some(dir), _) if Path::new(&dir).is_absolute() => Ok(PathBuf::from(dir).join("moor")),
            (_, Some(home)) => Ok(PathBuf::from(home).join(fallback).join("moor")),
            (_, None) => Err(CommandError::input(
                "no place for state: neither MOOR_HOME nor HOME is set. Set MOOR_HOME to a directory",
            )),
        };
        Ok(Self {
            state: under("XDG_DATA_HOME", ".local/share")?,
            config_file: under("XDG_CONFIG_HOME", ".config")?.join("config.toml"),
        })
    }

    /// Where it is kept what finds sandboxes again that are used by hand.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.state.join("sessions")
    }

    /// Reads the configuration file. A missing one is empty.
    pub(crate) fn config(&self) -> Result<Config, CommandError> {
        let text = match fs_err::read_to_string(&self.config_file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => return Err(CommandError::input(error.to_string())),
        };
        toml::from_str(&text).map_err(|error| {
            let told = crate::agent_file::toml_error(&self.config_file, &text, &error);
            CommandError::input(without_value(&told))
        })
    }

    /// The journal's file.
    pub(crate) fn journal_file(&self) -> PathBuf {
        self.state.join("journal.db")
    }

    /// Opens the journal, making it where it is missing.
    pub(crate) fn journal(&self) -> Result<SqliteJournal, CommandError> {
        // For its owner alone: it holds what agents read and wrote.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.state);
        made.map_err(|error| {
            CommandError::failed(format!(
                "cannot make {}: {error}. Set MOOR_HOME to a directory that you can write to",
                self.state.display()
            ))
        })?;
        Ok(SqliteJournal::open(&self.journal_file())?)
    }
}

impl Home {
    /// Opens the store of snapshots, making it where it is missing.
    pub(crate) fn snapshots(&self) -> Result<SnapshotStore, CommandError> {
        Ok(SnapshotStore::open(&self.state.join("snapshots"))?)
    }
}

/// A path that stays right when the working directory changes.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|error| CommandError::input(format!("{}: {error}", path.display())))
}
