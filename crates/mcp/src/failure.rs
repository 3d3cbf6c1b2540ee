//! Why a server cannot be used, in words for the person who configured it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rmcp::service::ClientInitializeError;
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use thiserror::Error;

use crate::name::LONGEST_SERVER;

/// A server that could not be connected. The others are not touched by it.
#[derive(Debug, Error)]
pub struct McpFailure {
    /// Its name in the configuration.
    pub server: String,
    /// What happened.
    pub problem: McpProblem,
    /// The last lines that it wrote on standard error.
    pub stderr: String,
}

impl fmt::Display for McpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MCP server `{}`: {}", self.server, self.problem)?;
        if !self.stderr.is_empty() {
            write!(f, ". It said last:")?;
            for line in self.stderr.lines() {
                write!(f, "\n  {line}")?;
            }
        }
        write!(f, "\n{}", self.problem.hint())
    }
}

/// What can be wrong with a server.
#[derive(Debug, Error)]
pub enum McpProblem {
    /// It cannot be called so.
    #[error(
        "this name cannot begin the names of tools: it has 1 to {LONGEST_SERVER} letters, digits, `-` and single `_`, \
         none at its end"
    )]
    Name,
    /// A variable that its configuration names has no value.
    #[error("the variable {name} is not set")]
    NoVariable {
        /// The variable.
        name: String,
    },
    /// Its URL is none.
    #[error("`{url}` is no http:// or https:// URL")]
    Url {
        /// What was written.
        url: String,
    },
    /// A header has a name or a value that HTTP has no room for.
    #[error("the header {name} cannot be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// The process has no TLS provider.
    #[error("no TLS provider is installed in this process")]
    NoTlsProvider,
    /// It could not be started.
    #[error("`{command}` could not be started{}: {error}", place(cwd.as_deref()))]
    Start {
        /// The program.
        command: String,
        /// Where it should start.
        cwd: Option<PathBuf>,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It ended before it had told its tools.
    #[error("it ended before it answered ({})", ended(*status))]
    Ended {
        /// How, where it could be seen.
        status: Option<ExitStatus>,
    },
    /// It did not tell its tools in time.
    #[error("it gave no answer within {seconds} s")]
    NoAnswer {
        /// The time it had.
        seconds: u64,
    },
    /// It wants to know who asks.
    #[error("it refused the credentials: {reason}")]
    Unauthorised {
        /// What it said.
        reason: String,
    },
    /// It could not be reached, or does not speak the protocol.
    #[error("the connection failed: {reason}")]
    Protocol {
        /// What was seen.
        reason: String,
    },
    /// Its list of tools cannot be used.
    #[error("its list of tools cannot be used: {reason}")]
    Tools {
        /// What is wrong with it.
        reason: String,
    },
}

impl McpProblem {
    /// The next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name => "Rename its section in the configuration.",
            Self::NoVariable { .. } => "Set the variable, or take the reference out of the server's section.",
            Self::Url { .. } | Self::Header { .. } => "Correct it in the server's section.",
            Self::NoTlsProvider => {
                "Call `rustls::crypto::ring::default_provider().install_default()` first in `main`."
            }
            Self::Start { .. } => "Install it, or correct `command` or `cwd` in the server's section.",
            Self::Ended { .. } => "Run its command by hand to see why, and correct `args` and `env`.",
            Self::NoAnswer { .. } => {
                "Check that `command` or `url` is that of an MCP server; raise `connect_timeout_s` if it is slow."
            }
            Self::Unauthorised { .. } => {
                "Set `headers.Authorization` in the server's section, such as { from_env = \"NAME\" }."
            }
            Self::Protocol { .. } => {
                "Check that it runs and that `url` or `command` is that of an MCP server."
            }
            Self::Tools { .. } => "Leave tools out with `tools.deny`, or tell the server's makers.",
        }
    }
}

fn place(cwd: Option<&Path>) -> String {
    cwd.map(|cwd| format!(" in {}", cwd.display())).unwrap_or_default()
}

fn ended(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "it closed its output".into(), |status| status.to_string())
}

/// Why a message was not sent, without what the SDK says of itself.
pub(crate) fn transport_reason(error: &DynamicTransportError) -> String {
    match error.error.downcast_ref() {
        Some(StreamableHttpError::<reqwest::Error>::Client(error)) => chain(error),
        _ => chain(&*error.error),
    }
}

/// Why a greeting failed.
pub(crate) fn greeting_reason(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => transport_reason(error),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => greeting_reason(fallback),
        error => chain(error),
    }
}

/// An error and all of its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
        source = error.source();
    }
    text
}
