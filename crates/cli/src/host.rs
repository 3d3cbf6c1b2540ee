//! Wires the library to this machine: which client, which sandbox, which key. The only file that names backends.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mooring_capability::Capability;
use mooring_egress::{EgressClient, HostPattern, Operator, SecretValue};
use mooring_harness::{AgentHost, AgentSpec, Compaction, Hooks, Host, Observer};
use mooring_journal::Journal;
use mooring_manifest::extension::Size;
use mooring_mcp::McpServers;
use mooring_model::{Limiter, ModelClient, ModelOptions, ModelSpec, Route, ScriptModel, Secret};
use mooring_mounts::Mounts;
use mooring_sandbox::{SandboxClient, Storage};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient};
use mooring_sandbox_local::{HostGrant, IsolationLevel, Limits, LocalOptions, LocalSandboxClient};
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

    /// What an agent works with. `sandbox` comes with its manifest's base directory; `origin` names the agent in an error about its model.
    pub(crate) fn agent(
        &self,
        agent: &AgentSpec,
        sandbox: Option<(&SandboxTable, &Path)>,
        origin: &str,
    ) -> Result<AgentHost, CommandError> {
        let model = match self.servers {
            Some(_) => self.model(agent).map_err(|error| error.at(origin))?,
            None => Arc::new(ScriptModel::from_responses("none", Vec::new())),
        };
        let summariser = match (&self.servers, &agent.compaction) {
            (Some(_), Some(Compaction { model: Some(model), .. })) => {
                Some(one_model(model, None, self.config, &self.limiters)?)
            }
            _ => None,
        };
        let own = capabilities(&agent.capabilities)?.into_iter().flat_map(|capability| capability.tools);
        let servers = self.servers.iter().flat_map(|servers| servers.tools(&agent.mcp));
        Ok(AgentHost {
            model,
            summariser,
            tools: own.chain(servers).collect(),
            guardrails: Vec::new(),
            filters: Vec::new(),
            sandbox: sandbox
                .map(|(table, base)| self::sandbox(self.home, self.config, table, base))
                .transpose()?,
        })
    }

    /// The client for an agent's model, and for those that stand in for it, with keys from the environment or the
    /// configuration file.
    fn model(&self, agent: &AgentSpec) -> Result<Arc<dyn ModelClient>, CommandError> {
        let (config, limiters) = (self.config, &self.limiters);
        if agent.compaction.as_ref().is_some_and(|compaction| compaction.provider) {
            for model in agent.models() {
                if ModelSpec::parse(model)?.provider().name != "openai" {
                    return Err(CommandError::input(format!(
                        "compaction.provider: {model} is of a provider that does not shorten conversations. Leave `provider` \
                         out, and the runtime does it"
                    )));
                }
            }
        }
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
    let usual = ModelOptions::default();
    let idle_timeout = configured.and_then(|provider| provider.idle_timeout_s);
    let tries = configured.and_then(|provider| provider.tries);
    let options = ModelOptions {
        idle_timeout: idle_timeout
            .map_or(usual.idle_timeout, |seconds| Duration::from_secs(seconds.get().into())),
        tries: tries.map_or(usual.tries, NonZeroU32::get),
        base_url: base_url.map(str::to_owned).or(own_url),
        api_key: own_key.filter(|_| trusted),
        jitter_seed: uuid::Uuid::now_v7().as_u64_pair().1,
        proxy: variable("HTTPS_PROXY").or_else(|| variable("https_proxy")).map(Secret::new),
        no_proxy: variable("NO_PROXY").or_else(|| variable("no_proxy")),
        limiter: limiters.get(provider.name).cloned(),
        ..usual
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

/// The limits that an agent file sets.
fn limits(table: &SandboxTable) -> Result<Limits, CommandError> {
    if table.cpus.is_some_and(|cpus| !(cpus.is_finite() && cpus > 0.0)) {
        return Err(CommandError::input("sandbox.cpus: must be a number above 0, such as 1.5"));
    }
    if table.pids == Some(0) {
        return Err(CommandError::input("sandbox.pids: must be at least 1"));
    }
    let memory = table.memory.as_deref().map(str::parse::<Size>).transpose();
    let memory = memory.map_err(|error| CommandError::input(format!("sandbox.memory: {error}")))?;
    Ok(Limits {
        memory_bytes: memory.map(Size::bytes),
        pids: table.pids,
        cpus: table.cpus,
        ..Limits::default()
    })
}

/// Settings of the local sandbox.
fn local_options(home: &Home, config: &Config, table: &SandboxTable) -> Result<LocalOptions, CommandError> {
    if table.image.is_some() || table.read_only {
        return Err(CommandError::input(
            "sandbox.image, sandbox.read_only: the local sandbox starts no images; set backend = \"docker\", or give \
             --sandbox docker",
        ));
    }
    let isolation = match table.isolation {
        None | Some(IsolationArg::Namespaces) => IsolationLevel::Namespaces,
        Some(IsolationArg::None) => IsolationLevel::None,
    };
    let grants = grants(config)?;
    Ok(LocalOptions { isolation, limits: limits(table)?, grants, ..LocalOptions::new(&home.state) })
}

/// The directories that the configuration allows.
fn grants(config: &Config) -> Result<Vec<HostGrant>, CommandError> {
    let of = |paths: &[PathBuf], writable| {
        let grants = paths.iter().map(|path| HostGrant { path: path.clone(), writable });
        grants.collect::<Vec<_>>()
    };
    let all = [of(&config.grants.read, false), of(&config.grants.write, true)].concat();
    match all.iter().find(|grant| !grant.path.is_absolute()) {
        None => Ok(all),
        Some(grant) => Err(CommandError::input(format!(
            "grants in the configuration file: '{}' is no absolute path",
            grant.path.display()
        ))),
    }
}

/// The sandbox that an agent file describes. `base` is its manifest's base directory.
fn sandbox(
    home: &Home,
    config: &Config,
    table: &SandboxTable,
    base: &Path,
) -> Result<Arc<dyn SandboxClient>, CommandError> {
    let backend: Arc<dyn SandboxClient> = match table.backend.as_deref() {
        None | Some("local") => {
            let options =
                LocalOptions { storage: Some(storage(config)?), ..local_options(home, config, table)? };
            Arc::new(LocalSandboxClient::new(options))
        }
        Some("docker") => docker_sandbox(home, config, table, Some(base))?,
        Some(other) => return Err(no_backend(other)),
    };
    // With a way out where a manifest asks for one.
    Ok(Arc::new(EgressClient::new(backend, operator(config)?)))
}

/// A sandbox in a container. Without a base directory no image is built.
fn docker_sandbox(
    home: &Home,
    config: &Config,
    table: &SandboxTable,
    base: Option<&Path>,
) -> Result<Arc<dyn SandboxClient>, CommandError> {
    if table.isolation.is_some() {
        return Err(CommandError::input(
            "sandbox.isolation: that is the local sandbox's; leave it out with docker, whose isolation is a \
             container",
        ));
    }
    let options = DockerOptions {
        image: table.image.clone(),
        base: base.map(Path::to_owned),
        limits: limits(table)?,
        read_only: table.read_only,
        ..docker_options(home)?
    };
    Ok(Arc::new(DockerSandboxClient::new(options).with_storage(storage(config)?)))
}

fn no_backend(name: &str) -> CommandError {
    CommandError::input(format!(
        "sandbox.backend: there is no backend '{name}'. The backends are: local, docker"
    ))
}

/// The Docker engine that the environment names, else this machine's.
fn docker_options(home: &Home) -> Result<DockerOptions, CommandError> {
    let host = variable("DOCKER_HOST").unwrap_or_else(|| "unix:///var/run/docker.sock".into());
    let socket = host.strip_prefix("unix://").ok_or_else(|| {
        CommandError::input(format!(
            "DOCKER_HOST={host}: an engine on another machine cannot be used, since sandboxes share directories with \
             this one; name a socket here, such as unix:///var/run/docker.sock"
        ))
    })?;
    Ok(DockerOptions::new(socket, &home.state))
}

/// Sandboxes in containers, whatever their image.
pub(crate) fn docker(home: &Home) -> Result<DockerSandboxClient, CommandError> {
    Ok(DockerSandboxClient::new(docker_options(home)?))
}

/// What this machine's operator says about networks and secrets.
pub(crate) fn operator(config: &Config) -> Result<Operator, CommandError> {
    let secrets = config.secrets.clone();
    let find = move |name: &str| {
        let of_environment = variable(&secret_variable(name));
        let value = of_environment.or_else(|| secrets.get(name).map(|secret| secret.expose().to_owned()));
        value.map(SecretValue::new)
    };
    let mut operator = Operator::new(Arc::new(find));
    for pattern in &config.network.private {
        let pattern = HostPattern::parse(pattern).map_err(|error| {
            CommandError::input(format!("network.private in the configuration file: {error}"))
        })?;
        operator.private.push(pattern);
    }
    Ok(operator)
}

/// Serves mounts as this machine's operator says.
fn storage(config: &Config) -> Result<Arc<dyn Storage>, CommandError> {
    Ok(Arc::new(Mounts::new(operator(config)?)))
}

/// `github-token` is `MOOR_SECRET_GITHUB_TOKEN`.
fn secret_variable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("MOOR_SECRET_{}", name.chars().map(plain).collect::<String>())
}

/// Sandboxes that live on for this long after the last client has left, without a way out. In a container only the
/// workspace does: the container ends with the process that started it. `base` is the manifest's base directory, where
/// it is known.
pub(crate) fn lingering_sandbox(
    home: &Home,
    table: &SandboxTable,
    base: Option<&Path>,
    linger: Duration,
) -> Result<Arc<dyn SandboxClient>, CommandError> {
    let config = home.config()?;
    match table.backend.as_deref() {
        None | Some("local") => {
            let options = LocalOptions { linger: Some(linger), ..local_options(home, &config, table)? };
            Ok(Arc::new(LocalSandboxClient::new(options)))
        }
        Some("docker") => docker_sandbox(home, &config, table, base),
        Some(other) => Err(no_backend(other)),
    }
}

/// The same with a way out where a manifest asks for one. It leads through this process, and ends with it; whichever
/// command is attached next serves what still runs.
pub(crate) fn with_way_out(
    home: &Home,
    lingering: Arc<dyn SandboxClient>,
) -> Result<Arc<dyn SandboxClient>, CommandError> {
    let client = EgressClient::new(lingering, operator(&home.config()?)?);
    Ok(Arc::new(client.keeping(home.sessions())))
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
