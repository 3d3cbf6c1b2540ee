//! What a user writes to name an MCP server: `[mcp.NAME]` of the configuration file.
//!
//! Secrets are named, not written: a value is a text or `{ from_env = "NAME" }`, which whoever connects looks up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mooring_capability::Effect;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::McpProblem;
use crate::name::matches;

/// An MCP server and how its tools may be used.
///
/// ```
/// use mooring_mcp::{McpConfig, McpTransport};
///
/// let config: McpConfig = toml::from_str(
///     r#"
///     command = "mcp-server-git"
///     args = ["--repository", "."]
///     env = { GIT_TOKEN = { from_env = "GIT_TOKEN" } }
///     tools = { allow = ["git_*"], deny = ["git_reset"] }
///     effect = { git_status = "pure", git_log = "pure" }
///     timeout_s = 30
///     "#,
/// )?;
/// assert!(matches!(config.transport, McpTransport::Stdio { .. }));
/// assert_eq!(config.connect_timeout, std::time::Duration::from_secs(15));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct McpConfig {
    /// How the server is reached.
    pub transport: McpTransport,
    /// Which of its tools the model sees.
    pub tools: ToolFilter,
    /// How long one call may take. `timeout_s`, 60 seconds by default.
    pub timeout: Duration,
    /// How long starting, greeting and listing may take. `connect_timeout_s`, 15 seconds by default.
    pub connect_timeout: Duration,
    /// What may happen if a call is repeated, by patterns of the server's own tool names. The longest pattern that
    /// matches counts. Where none does, a tool is taken as [`Effect::AtMostOnce`].
    pub effect: BTreeMap<String, Effect>,
    /// Believe the server where it marks a tool as read-only ([`Effect::Pure`]) or idempotent
    /// ([`Effect::Idempotent`]). `effect` goes before. Off by default: any server can claim anything.
    pub trust_annotations: bool,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum McpTransport {
    /// A program on this host, over its standard input and output.
    Stdio {
        /// The program: a name that is looked up in `PATH`, or an absolute path.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its environment, besides `PATH`, `HOME` and `LANG`. It gets nothing else of ours.
        env: BTreeMap<String, McpValue>,
        /// Where it starts: an absolute path. `None`: where this process is.
        cwd: Option<PathBuf>,
    },
    /// A URL, over streamable HTTP. Redirects are not followed and no proxy is used.
    Http {
        /// The endpoint.
        url: String,
        /// Sent with every request.
        headers: BTreeMap<String, McpValue>,
    },
}

/// A value, or where it is found.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a text or { from_env = \"NAME\" }")]
pub enum McpValue {
    /// As it is written.
    Text(String),
    /// The value of a variable, which whoever connects looks up.
    Reference(McpReference),
}

/// Names a variable.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpReference {
    /// Its name.
    pub from_env: String,
}

/// Which tools the model sees, by patterns of the server's own names. `*` stands for any text.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolFilter {
    /// Only these; all where there is no list.
    pub allow: Option<Vec<String>>,
    /// None of these, whatever is allowed.
    pub deny: Vec<String>,
}

impl McpConfig {
    /// What a call of this tool may do. `claimed` is what the server says of it.
    pub(crate) fn effect_of(&self, tool: &str, claimed: Option<Effect>) -> Effect {
        let set = self.effect.iter().filter(|(pattern, _)| matches(pattern, tool));
        let longest = set.max_by_key(|(pattern, _)| pattern.len()).map(|(_, effect)| *effect);
        let believed = claimed.filter(|_| self.trust_annotations);
        longest.or(believed).unwrap_or(Effect::AtMostOnce)
    }

    /// Looks up what the configuration names, so that the server can be started, now and again.
    pub(crate) fn launch(&self, resolve: &dyn Fn(&str) -> Option<String>) -> Result<Launch, McpProblem> {
        let value = |value: &McpValue| match value {
            McpValue::Text(text) => Ok(text.clone()),
            McpValue::Reference(McpReference { from_env }) => {
                resolve(from_env).ok_or_else(|| McpProblem::NoVariable { name: from_env.clone() })
            }
        };
        match &self.transport {
            McpTransport::Stdio { command, args, env, cwd } => {
                let inherited = ["PATH", "HOME", "LANG"].into_iter();
                let mut all: BTreeMap<_, _> =
                    inherited.filter_map(|name| Some((name.to_owned(), resolve(name)?))).collect();
                for (name, text) in env {
                    all.insert(name.clone(), value(text)?);
                }
                let (command, args, cwd) = (command.clone(), args.clone(), cwd.clone());
                Ok(Launch::Stdio { command, args, env: all, cwd })
            }
            McpTransport::Http { url, headers } => {
                let address = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
                let address = address.ok_or_else(|| McpProblem::Url { url: url.clone() })?;
                let mut all = HeaderMap::new();
                for (name, text) in headers {
                    let text = value(text)?;
                    let refused = || McpProblem::Header { name: name.clone() };
                    let header = HeaderName::try_from(name).map_err(|_| refused())?;
                    let mut value = HeaderValue::try_from(text).map_err(|_| refused())?;
                    value.set_sensitive(true);
                    all.insert(header, value);
                }
                Ok(Launch::Http { url: address, headers: all })
            }
        }
    }
}

impl ToolFilter {
    /// Whether the model sees this tool.
    pub(crate) fn admits(&self, tool: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, tool));
        self.allow.as_deref().is_none_or(any) && !any(&self.deny)
    }
}

/// All that starting a server needs, secrets included: never shown.
pub(crate) enum Launch {
    Stdio { command: String, args: Vec<String>, env: BTreeMap<String, String>, cwd: Option<PathBuf> },
    Http { url: Url, headers: HeaderMap },
}

/// As it is written, before the two transports are told apart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    command: Option<String>,
    args: Option<Vec<String>>,
    env: Option<BTreeMap<String, McpValue>>,
    cwd: Option<PathBuf>,
    url: Option<String>,
    headers: Option<BTreeMap<String, McpValue>>,
    #[serde(default)]
    tools: ToolFilter,
    #[serde(default = "default_timeout")]
    timeout_s: u32,
    #[serde(default = "default_connect_timeout")]
    connect_timeout_s: u32,
    #[serde(default)]
    effect: BTreeMap<String, Effect>,
    #[serde(default)]
    trust_annotations: bool,
}

fn default_timeout() -> u32 {
    60
}

fn default_connect_timeout() -> u32 {
    15
}

impl TryFrom<Written> for McpConfig {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let transport = match written {
            Written { command: Some(command), url: None, headers: None, args, env, cwd, .. } => {
                let (args, env) = (args.unwrap_or_default(), env.unwrap_or_default());
                McpTransport::Stdio { command, args, env, cwd }
            }
            Written { url: Some(url), command: None, args: None, env: None, cwd: None, headers, .. } => {
                McpTransport::Http { url, headers: headers.unwrap_or_default() }
            }
            Written { command: None, url: None, .. } => {
                return Err("an MCP server needs `command` (a program on this host) or `url`");
            }
            _ => {
                return Err("`command`, `args`, `env` and `cwd` are for a program on this host, `url` and \
                            `headers` for a server elsewhere: an MCP server has either");
            }
        };
        // A relative path would mean another program or place wherever a run is started or resumed.
        if let McpTransport::Stdio { command, cwd, .. } = &transport
            && (command.contains('/') && !command.starts_with('/')
                || cwd.as_ref().is_some_and(|cwd| cwd.is_relative()))
        {
            return Err("`command` is the name of a program or an absolute path, and `cwd` an absolute path");
        }
        if written.timeout_s == 0 || written.connect_timeout_s == 0 {
            return Err("`timeout_s` and `connect_timeout_s` are at least 1");
        }
        Ok(Self {
            transport,
            tools: written.tools,
            timeout: Duration::from_secs(written.timeout_s.into()),
            connect_timeout: Duration::from_secs(written.connect_timeout_s.into()),
            effect: written.effect,
            trust_annotations: written.trust_annotations,
        })
    }
}
