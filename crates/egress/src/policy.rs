//! What a sandbox may reach. Everything is refused that no rule allows. Plain data: the proxy asks it twice, once for
//! the host and port, before any name is looked up, and once for each request that it can see.

use http::Method;
use mooring_manifest::extension::PathPattern;

use crate::address::{Reach, reach};
use crate::host::Target;
use crate::pattern::HostPattern;
use crate::record::Refusal;
use crate::secret::SecretBinding;

/// Network access of one sandbox session. The default allows nothing.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Hosts that no rule names may be reached too, on every port and with every protocol. Private addresses still
    /// need a rule, and secrets cannot be bound: next to open egress, a broker protects nothing.
    pub unrestricted: bool,
    /// What is allowed. A request is allowed when one rule allows all of it.
    pub rules: Vec<Rule>,
    /// Names that may lead to loopback and private addresses.
    pub private: Vec<HostPattern>,
    /// The secrets that the proxy puts in, and where.
    pub secrets: Vec<SecretBinding>,
}

/// One thing that is allowed.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The hosts.
    pub host: HostPattern,
    /// The ports.
    pub ports: Vec<u16>,
    /// The methods; empty for all. Enforced on HTTPS too: the proxy then ends TLS itself for this host.
    pub methods: Vec<Method>,
    /// The paths; empty for all. Enforced as the methods are.
    pub paths: Vec<PathPattern>,
}

/// Why a policy cannot be enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Secrets with open egress.
    #[error("secret `{secret}` cannot be brokered while the network is unrestricted: use an allow-list")]
    SecretWithoutAllowList {
        /// The secret's name.
        secret: String,
    },
    /// A secret for a host that cannot be reached.
    #[error("secret `{secret}` is bound to {target}, which no rule allows: add a rule for it")]
    SecretWithoutRule {
        /// The secret's name.
        secret: String,
        /// Where it is bound to.
        target: Target,
    },
    /// A secret whose value cannot be put into a header, or cannot be recognised in a response.
    #[error("secret `{secret}` cannot be brokered: {why}")]
    SecretValue {
        /// The secret's name.
        secret: String,
        /// What is wrong with it, without the value.
        why: &'static str,
    },
    /// A rule without ports.
    #[error("the rule for {host} allows no port: list at least one, none of them 0")]
    NoPort {
        /// The rule's host.
        host: String,
    },
    /// The random numbers or certificates that a session needs could not be made.
    #[error("network access cannot be set up: {0}")]
    Setup(String),
}

impl Rule {
    /// Allows HTTP and HTTPS to a host, on their usual ports.
    pub fn host(host: HostPattern) -> Self {
        Self { host, ports: vec![443, 80], methods: Vec::new(), paths: Vec::new() }
    }

    fn covers(&self, target: &Target) -> bool {
        self.host.matches(&target.host) && self.ports.contains(&target.port)
    }

    /// Whether only a proxy that sees the requests can enforce it.
    fn sees_requests(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }
}

/// What the policy says of a host and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// How the proxy handles what goes through.
    pub(crate) handling: Handling,
    /// Which addresses the name may lead to.
    pub(crate) widest: Reach,
}

/// How much of a connection the proxy sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handling {
    /// Any bytes pass: unrestricted mode.
    Open,
    /// HTTP is read; TLS passes unread once its server name has been checked.
    Checked,
    /// The proxy ends TLS and reads the requests.
    Intercepted,
}

impl Policy {
    /// Refuses what could not be enforced.
    pub(crate) fn validate(&self) -> Result<(), PolicyError> {
        for rule in &self.rules {
            if rule.ports.is_empty() || rule.ports.contains(&0) {
                return Err(PolicyError::NoPort { host: rule.host.to_string() });
            }
        }
        for secret in &self.secrets {
            let name = secret.name.clone();
            if self.unrestricted {
                return Err(PolicyError::SecretWithoutAllowList { secret: name });
            }
            if !self.rules.iter().any(|rule| rule.covers(&secret.target())) {
                return Err(PolicyError::SecretWithoutRule { secret: name, target: secret.target() });
            }
            secret.validate().map_err(|why| PolicyError::SecretValue { secret: name, why })?;
        }
        Ok(())
    }

    /// Whether the proxy ends TLS for any host.
    pub(crate) fn intercepts(&self) -> bool {
        !self.unrestricted && (!self.secrets.is_empty() || self.rules.iter().any(Rule::sees_requests))
    }

    /// Asked before anything is looked up or connected to.
    pub(crate) fn target(&self, target: &Target) -> Result<Grant, Refusal> {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.covers(target)).collect();
        if rules.is_empty() && !self.unrestricted {
            let known = self.rules.iter().any(|rule| rule.host.matches(&target.host));
            return Err(if known {
                Refusal::Port(target.clone())
            } else {
                Refusal::Host(target.host.clone())
            });
        }
        let named = rules.iter().any(|rule| matches!(rule.host, HostPattern::Address(_)));
        let widest = if named {
            Reach::Special
        } else if self.private.iter().any(|pattern| pattern.matches(&target.host)) {
            Reach::Private
        } else {
            Reach::Public
        };
        let handling = if self.unrestricted {
            Handling::Open
        } else if self.binds(target) || rules.iter().all(|rule| rule.sees_requests()) {
            Handling::Intercepted
        } else {
            Handling::Checked
        };
        Ok(Grant { handling, widest })
    }

    /// Asked for each request that the proxy reads. The path is without its query.
    pub(crate) fn request(&self, target: &Target, method: &Method, path: &str) -> Result<(), Refusal> {
        let allows = |rule: &Rule| {
            rule.covers(target)
                && (rule.methods.is_empty() || rule.methods.contains(method))
                && (rule.paths.is_empty() || rule.paths.iter().any(|pattern| pattern.matches(path)))
        };
        if self.unrestricted || self.rules.iter().any(allows) {
            return Ok(());
        }
        Err(Refusal::Request { method: method.to_string(), target: target.clone() })
    }

    /// Whether a secret is bound to the host and port.
    fn binds(&self, target: &Target) -> bool {
        self.secrets.iter().any(|secret| secret.target() == *target)
    }
}

impl Grant {
    /// Whether the host may lead to this address.
    pub(crate) fn permits(self, address: std::net::IpAddr) -> bool {
        match (reach(address), self.widest) {
            (Reach::Public, _) | (Reach::Private, Reach::Private) | (_, Reach::Special) => true,
            (Reach::Private | Reach::Special, _) => false,
        }
    }
}
