//! From what a manifest asks for to a policy. A manifest may come from anywhere: it names secrets and hosts. What the
//! secrets are, and which names may lead into the operator's own network, the operator says.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, Method};
use indexmap::IndexMap;
use mooring_manifest::extension::{AllowRule, Injection, Network, SecretUse};
use mooring_manifest::{Extension, Manifest};
use mooring_sandbox::{Credential, Credentials, SandboxError};
use serde::{Deserialize, Serialize};

use crate::address::Reach;
use crate::host::Host;
use crate::limits::Limits;
use crate::pattern::HostPattern;
use crate::policy::{Grant, Handling, Policy, Rule};
use crate::secret::{SecretBinding, SecretValue};
use crate::upstream::{Resolve, SystemResolver};

/// The value of a secret, by its name; `None` where there is none of that name.
pub type SecretLookup = Arc<dyn Fn(&str) -> Option<SecretValue> + Send + Sync>;

/// What the operator of this machine says.
#[derive(Clone)]
pub struct Operator {
    /// Knows the secrets.
    pub secret: SecretLookup,
    /// Names that may lead to loopback and private addresses, where a manifest allows them.
    pub private: Vec<HostPattern>,
    /// Bounds of each sandbox's network access.
    pub limits: Limits,
    /// Looks names up.
    pub resolver: Arc<dyn Resolve>,
    /// Certificate authorities that are trusted besides the machine's own, in PEM.
    pub extra_roots: String,
}

impl Operator {
    /// With the machine's own resolver and trust, and no private names.
    pub fn new(secret: SecretLookup) -> Self {
        Self {
            secret,
            private: Vec::new(),
            limits: Limits::default(),
            resolver: Arc::new(SystemResolver),
            extra_roots: String::new(),
        }
    }
}

impl Operator {
    /// What the repositories of a manifest are fetched with, as far as there are secrets of these names.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a secret that is no credential.
    pub fn credentials(&self, manifest: &Manifest) -> Result<Credentials, SandboxError> {
        Credential::all_of(manifest, |name| (self.secret)(name).map(|value| value.expose().to_owned()))
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("private", &self.private)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Operator {
    /// The addresses of a host that a manifest names, for the control plane itself to connect to: the operator's own
    /// network only where the operator says so.
    ///
    /// # Errors
    /// Where the name is not known, or leads to an address that nobody may be sent to.
    pub async fn addresses(&self, host: &Host) -> std::io::Result<Vec<IpAddr>> {
        let addresses = match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.resolver.resolve(name).await?,
        };
        let private = self.private.iter().any(|pattern| pattern.matches(host));
        let widest = if private { Reach::Private } else { Reach::Public };
        let grant = Grant { handling: Handling::Open, widest };
        match addresses.iter().find(|address| !grant.permits(**address)) {
            None if addresses.is_empty() => Err(std::io::Error::other(format!("{host} has no address"))),
            None => Ok(addresses),
            Some(address) => Err(std::io::Error::other(format!(
                "{host} leads to {address}, which is not public; name the host under network.private in the \
                 configuration if that is meant"
            ))),
        }
    }
}

/// What a manifest asks for. It is kept with the session, so that one that comes back has the same policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    network: Network,
    secrets: IndexMap<String, SecretUse>,
}

impl Asked {
    /// `None` where nothing may be reached.
    pub(crate) fn of(extension: &Extension) -> Option<Self> {
        match &extension.network {
            None | Some(Network::Deny) => None,
            Some(network) => Some(Self { network: network.clone(), secrets: extension.secrets.clone() }),
        }
    }

    /// Whether everything may be reached, and nothing has to be put into requests.
    pub(crate) fn needs_no_proxy(&self) -> bool {
        self.network == Network::Unrestricted && self.secrets.values().all(|used| used.inject.is_empty())
    }

    /// The variables that hold phantoms, with the name of the secret.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.secrets.iter().filter_map(|(name, used)| Some((used.env.as_deref()?, name.as_str())))
    }

    /// The policy, with the operator's values.
    pub(crate) fn policy(&self, operator: &Operator) -> Result<Policy, SandboxError> {
        let rules = self.network.rules().iter().map(rule).collect::<Result<_, _>>()?;
        let mut secrets = Vec::new();
        for (name, used) in &self.secrets {
            // One without is for repositories, which are fetched before there is a sandbox.
            if used.inject.is_empty() {
                continue;
            }
            let Some(value) = (operator.secret)(name) else {
                let reason = format!(
                    "the manifest names the secret '{name}', and it is not configured on this machine; configure it \
                     (`moor` takes MOOR_SECRET_NAME, or [secrets] of config.toml), or remove it from the manifest"
                );
                return Err(SandboxError::Invalid { reason });
            };
            for injection in &used.inject {
                secrets.push(binding(name, &value, injection)?);
            }
        }
        let unrestricted = matches!(self.network, Network::Unrestricted);
        Ok(Policy { unrestricted, rules, private: operator.private.clone(), secrets })
    }
}

fn rule(rule: &AllowRule) -> Result<Rule, SandboxError> {
    let mut made = Rule::host(HostPattern::Names(rule.host.clone()));
    if !rule.ports.is_empty() {
        made.ports.clone_from(&rule.ports);
    }
    made.methods = methods(&rule.methods)?;
    made.paths.clone_from(&rule.paths);
    Ok(made)
}

fn binding(name: &str, value: &SecretValue, injection: &Injection) -> Result<SecretBinding, SandboxError> {
    let mut binding = SecretBinding::new(name, value.clone(), injection.host.clone());
    binding.port = injection.port;
    binding.methods = methods(&injection.methods)?;
    binding.paths.clone_from(&injection.paths);
    binding.header = HeaderName::try_from(injection.header.as_str()).map_err(|error| invalid(&error))?;
    Ok(binding)
}

fn methods(names: &[mooring_manifest::extension::Method]) -> Result<Vec<Method>, SandboxError> {
    names.iter().map(|name| Method::try_from(name.as_str()).map_err(|error| invalid(&error))).collect()
}

fn invalid(error: &dyn fmt::Display) -> SandboxError {
    SandboxError::Invalid { reason: error.to_string() }
}
