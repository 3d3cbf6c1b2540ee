//! Wires the library to this machine: which client, which sandbox, which key. The only file that names backends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mooring_capability::Capability;
use mooring_harness::{AgentHost, AgentSpec, Hooks, Host, Observer};
use mooring_journal::Journal;
use mooring_manifest::extension::Size;
use mooring_mcp::McpServers;
use mooring_model::{Limiter, ModelClient, ModelOptions, ModelSpec, Route, ScriptModel, Secret};
use mooring_sandbox::SandboxClient;
use mooring_sandbox_local::{IsolationLevel, Limits, LocalOptions, LocalSandboxClient};
use mooring_snapshot::SnapshotStore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::agent_file::SandboxTable;
use crate::args::IsolationArg;
use crate::command_error::CommandError;
use crate::home::{Config, Home, ProviderConfig, variable};

/// The version that events record.
pub(crate) fn version() -> String {
    format!("moor {}", env!("CARGO_PKG_VERSION"))
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What a driver in this process works with.
pub(crate) fn host(
    journal: Arc<dyn Journal>,
    agents: BTreeMap<String, AgentHost>,
    snapshots: Option<SnapshotStore>,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
) -> Host {
    Host {
        journal,
        agents: Arc::new(agents),
        snapshots,
        observer,
        hooks: Hooks::default(),
        now_ms: Arc::new(now_ms),
        cancel,
        pid: std::process::id(),
        runtime: version(),
    }
}

/// What the agents of a run share: providers' limits, MCP servers.
pub(crate) struct Wiring<'a> {
    home: &'a Home,
    config: &'a Config,
    /// Models of one provider share its limits.
    limiters: BTreeMap<String, Arc<Limiter>>,
    /// `None`: for a run that is only brought to its end, and asks no model and no server.
    servers: Option<McpServers>,
}

impl<'a> Wiring<'a> {
    /// With these MCP servers, connected.
    pub(crate) async fn connect(
        home: &'a Home,
        config: &'a Config,
        mcp: &BTreeSet<String>,
    ) -> Result<Self, CommandError> {
        Ok(Self { servers: Some(self::mcp(mcp, config).await?), ..Self::idle(home, config) })
    }

    /// For a run that is only brought to its end.
    pub(crate) fn idle(home: &'a Home, config: &'a Config) -> Self {
        let limiter = |(name, provider): (&String, &ProviderConfig)| {
            Some((name.clone(), Arc::new(Limiter::new(provider.limits.clone()?))))
        };
        Self { home, config, limiters: config.providers.iter().filter_map(limiter).collect(), servers: None }
    }

    /// What an agent works with. `origin` names it in an error about its model.
    pub(crate) fn agent(
        &self,
        agent: &AgentSpec,
        sandbox: Option<&SandboxTable>,
        origin: &str,
    ) -> Result<AgentHost, CommandError> {
        let model = match self.servers {
            Some(_) => self.model(agent).map_err(|error| error.at(origin))?,
            None => Arc::new(ScriptModel::from_responses("none", Vec::new())),
        };
        let own = capabilities(&agent.capabilities)?.into_iter().flat_map(|capability| capability.tools);
        let servers = self.servers.iter().flat_map(|servers| servers.tools(&agent.mcp));
        Ok(AgentHost {
            model,
            tools: own.chain(servers).collect(),
            guardrails: Vec::new(),
            sandbox: sandbox.map(|table| local_sandbox(self.home, table)).transpose()?,
        })
    }

    /// The client for an agent's model, and for those that stand in for it, with keys from the environment or the
    /// configuration file.
    fn model(&self, agent: &AgentSpec) -> Result<Arc<dyn ModelClient>, CommandError> {
        let (config, limiters) = (self.config, &self.limiters);
        let first = one_model(&agent.model, agent.base_url.as_deref(), config, limiters)?;
        if agent.fallbacks.is_empty() {
            return Ok(first);
        }
        let others = agent.fallbacks.iter().map(|model| one_model(model, None, config, limiters));
        let chain = std::iter::once(Ok(first)).chain(others).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Route::new(chain)?))
    }

    /// Ends the MCP servers.
    pub(crate) async fn close(self) {
        if let Some(servers) = self.servers {
            servers.close().await;
        }
    }
}

fn one_model(
    model: &str,
    base_url: Option<&str>,
    config: &Config,
    limiters: &BTreeMap<String, Arc<Limiter>>,
) -> Result<Arc<dyn ModelClient>, CommandError> {
    let spec = ModelSpec::parse(model)?;
    let provider = spec.provider();
    let configured = config.providers.get(provider.name);
    let upper = provider.name.to_uppercase();
    let own_url = variable(&format!("{upper}_BASE_URL")).or_else(|| configured?.base_url.clone());
    let own_key =
        provider.key_variable.and_then(variable).map(Secret::new).or_else(|| configured?.api_key.clone());
    // A key belongs to the addresses that its owner chose. An agent file may come from anywhere: an address in it
    // gets the key only where the owner's own configuration names the same.
    let trusted = base_url.is_none_or(|url| {
        own_url.as_ref().is_some_and(|own| own.trim_end_matches('/') == url.trim_end_matches('/'))
    });
    if !trusted && !provider.key_optional {
        return Err(CommandError::input(format!(
            "{model}: the agent file names its own base_url, and your key is not sent to an address that you did not \
             choose. Set base_url under [providers.{}] in the configuration file, or the variable {upper}_BASE_URL, \
             to the same address",
            provider.name
        )));
    }
    let options = ModelOptions {
        base_url: base_url.map(str::to_owned).or(own_url),
        api_key: own_key.filter(|_| trusted),
        jitter_seed: uuid::Uuid::now_v7().as_u64_pair().1,
        proxy: variable("HTTPS_PROXY").or_else(|| variable("https_proxy")).map(Secret::new),
        no_proxy: variable("NO_PROXY").or_else(|| variable("no_proxy")),
        limiter: limiters.get(provider.name).cloned(),
        ..ModelOptions::default()
    };
    Ok(mooring_model::connect(&spec, &options)?)
}

/// The MCP servers that an agent names, connected. One that cannot be reached is told and left out: what the others
/// offer is still of use.
async fn mcp(names: &BTreeSet<String>, config: &Config) -> Result<McpServers, CommandError> {
    let mut configs = BTreeMap::new();
    for name in names {
        let Some(server) = config.mcp.get(name) else {
            let known: Vec<&str> = config.mcp.keys().map(String::as_str).collect();
            return Err(CommandError::input(format!(
                "mcp: the configuration file describes no server '{name}' (it describes: {}). Add [mcp.{name}] to it",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        };
        configs.insert(name.clone(), server.clone());
    }
    let (servers, failures) = McpServers::connect(configs, &|name| variable(name)).await;
    for failure in failures {
        crate::view::note(&failure.to_string());
    }
    Ok(servers)
}

/// The capabilities that an agent names.
pub(crate) fn capabilities(names: &[String]) -> Result<Vec<Capability>, CommandError> {
    let find = |name: &String| {
        mooring_capability::capability(name).ok_or_else(|| {
            CommandError::input(format!(
                "there is no capability '{name}'. The capabilities are: {}",
                mooring_capability::ALL_CAPABILITIES.join(", ")
            ))
        })
    };
    names.iter().map(find).collect()
}

/// Settings of the local sandbox.
pub(crate) fn local_options(home: &Home, table: &SandboxTable) -> Result<LocalOptions, CommandError> {
    if let Some(backend) = table.backend.as_deref().filter(|&backend| backend != "local") {
        return Err(CommandError::input(format!(
            "sandbox.backend: there is no backend '{backend}'. The backends are: local"
        )));
    }
    if table.cpus.is_some_and(|cpus| !(cpus.is_finite() && cpus > 0.0)) {
        return Err(CommandError::input("sandbox.cpus: must be a number above 0, such as 1.5"));
    }
    if table.pids == Some(0) {
        return Err(CommandError::input("sandbox.pids: must be at least 1"));
    }
    let memory = table.memory.as_deref().map(str::parse::<Size>).transpose();
    let memory = memory.map_err(|error| CommandError::input(format!("sandbox.memory: {error}")))?;
    Ok(LocalOptions {
        isolation: match table.isolation {
            None | Some(IsolationArg::Namespaces) => IsolationLevel::Namespaces,
            Some(IsolationArg::None) => IsolationLevel::None,
        },
        limits: Limits { memory_bytes: memory.map(Size::bytes), pids: table.pids, cpus: table.cpus },
        ..LocalOptions::new(&home.state)
    })
}

/// The local sandbox.
pub(crate) fn local_sandbox(
    home: &Home,
    table: &SandboxTable,
) -> Result<Arc<dyn SandboxClient>, CommandError> {
    Ok(Arc::new(LocalSandboxClient::new(local_options(home, table)?)))
}

/// Sandboxes that live on for this long after the last client has left.
pub(crate) fn lingering_sandbox(
    home: &Home,
    table: &SandboxTable,
    linger: Duration,
) -> Result<Arc<dyn SandboxClient>, CommandError> {
    let options = LocalOptions { linger: Some(linger), ..local_options(home, table)? };
    Ok(Arc::new(LocalSandboxClient::new(options)))
}

/// Ctrl-C and SIGTERM: the first cancels, the second ends this process at once, and the sandbox with it. Holds for as
/// long as the handle lives.
pub(crate) fn cancel_on_signals(
    note: impl Fn(&str) + Send + 'static,
) -> Result<(CancellationToken, AbortOnDropHandle<()>), CommandError> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let cancel = token.clone();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listening = tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                note("cancelling; once more to stop at once");
                cancel.cancel();
            }
        }
        // The journal is whole at every moment, and the sandbox dies with its socket.
        std::process::exit(130);
    });
    Ok((token, AbortOnDropHandle::new(listening)))
}
