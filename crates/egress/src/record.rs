//! What went out, and what was refused: one plain record for each, given to whoever hosts the proxy, who puts it into
//! the journal. It names secrets and never holds one; a query, which may carry anything, is left out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::host::{Host, HostError, Target};

/// Longest method and path that is recorded, in bytes.
const MAX_TEXT: usize = 1024;

/// Gets each record when its connection or request is over. It is called by the proxy's tasks, so it must not block;
/// a sandbox can cause any number of calls.
pub type Observer = Arc<dyn Fn(Record) + Send + Sync>;

/// One connection, or one request where the proxy sees requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// How the sandbox asked.
    pub protocol: Protocol,
    /// The host, as far as it is known; shortened and escaped where it is none.
    pub host: String,
    /// The port; 0 where it is not known.
    pub port: u16,
    /// The method, where the proxy saw it.
    pub method: Option<String>,
    /// The path without its query, where the proxy saw it.
    pub path: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// The secrets that were put in, by name.
    pub secrets: Vec<String>,
    /// Bytes that left the sandbox: the body of a request, or everything in a tunnel.
    pub bytes_up: u64,
    /// Bytes that came back.
    pub bytes_down: u64,
    /// From the first byte of the request to the end.
    pub duration: Duration,
}

/// How the sandbox asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Not known yet when it ended.
    Unknown,
    /// A plain HTTP request.
    Http,
    /// A request over HTTPS that the proxy decrypted.
    Https,
    /// A tunnel by HTTP `CONNECT`.
    Connect,
    /// A tunnel by SOCKS 5.
    Socks5,
}

impl Protocol {
    /// As the journal writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Http => "http",
            Self::Https => "https",
            Self::Connect => "connect",
            Self::Socks5 => "socks5",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was allowed, and went through.
    Allowed,
    /// It was allowed, and did not get to its end: why.
    Failed(String),
    /// It was refused: why.
    Denied(Refusal),
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// What was named is no host.
    #[error(transparent)]
    Name(#[from] HostError),
    /// No rule allows the host.
    #[error("{0} is not on this sandbox's network allow-list")]
    Host(Host),
    /// Rules allow the host on other ports.
    #[error("{0} is not allowed: the network allow-list has this host with other ports")]
    Port(Target),
    /// Rules allow the host, and not this method and path.
    #[error("{method} of this path is not on the network allow-list for {target}")]
    Request {
        /// The method.
        method: String,
        /// Where to.
        target: Target,
    },
    /// The name leads to an address that a sandbox must not reach.
    #[error("{0} leads to an address that is private, local or a metadata service")]
    Address(Target),
    /// The server name in TLS is another one, absent, or hidden.
    #[error("the TLS connection to {target} was refused: {why}")]
    ServerName {
        /// Where the tunnel leads to.
        target: Target,
        /// What is wrong with the name.
        why: &'static str,
    },
    /// A tunnel carries something that cannot be checked.
    #[error("what is sent to {0} is neither TLS nor HTTP, and only these can be checked")]
    Opaque(Target),
    /// A proxy behind the proxy.
    #[error(
        "CONNECT inside of a connection to {0} was refused: a host on the allow-list is no way to others"
    )]
    Relayed(Target),
    /// The request names two different hosts.
    #[error("the request is addressed to {target} and names another host in `Host`")]
    HostMismatch {
        /// Where the request goes.
        target: Target,
    },
    /// A phantom where it does not belong.
    #[error(
        "the placeholder of secret `{secret}` was found in {place}; it stands for the secret only where it is bound"
    )]
    Misplaced {
        /// The secret's name.
        secret: String,
        /// Where it was.
        place: &'static str,
    },
    /// Something a client must not send to a proxy, or that this proxy does not speak.
    #[error("the request was refused: {0}")]
    Malformed(String),
    /// The response could not be searched for secrets.
    #[error(
        "the response of {0} is compressed although that was not asked for, and cannot be searched for secrets"
    )]
    Encoded(Target),
    /// Too many at once.
    #[error("this sandbox has {0} connections open, which is the most it may have: close some first")]
    TooMany(usize),
}

impl Refusal {
    /// A stable word for the journal and for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "host_name",
            Self::Host(_) => "host",
            Self::Port(_) => "port",
            Self::Request { .. } => "request",
            Self::Address(_) => "address",
            Self::ServerName { .. } => "server_name",
            Self::Opaque(_) => "opaque",
            Self::Relayed(_) => "relayed_connect",
            Self::HostMismatch { .. } => "host_mismatch",
            Self::Misplaced { .. } => "secret_misplaced",
            Self::Malformed(_) => "malformed",
            Self::Encoded(_) => "encoded_response",
            Self::TooMany(_) => "too_many",
        }
    }
}

/// Why something did not go through: refused, or allowed and failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Failed(String),
}

impl From<HostError> for Stop {
    fn from(error: HostError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Stop> for Verdict {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(refusal) => Self::Denied(refusal),
            Stop::Failed(why) => Self::Failed(why),
        }
    }
}

/// Counts bytes both ways.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
}

impl Meter {
    pub(crate) fn total(&self) -> u64 {
        self.up.load(Ordering::Relaxed).wrapping_add(self.down.load(Ordering::Relaxed))
    }
}

/// A record in the making. It is handed over when it is dropped, so that none is lost, however a connection ends.
pub(crate) struct Entry {
    record: Record,
    observer: Observer,
    started: Instant,
    /// Why the whole connection was cut, when it was.
    cut: Arc<std::sync::OnceLock<&'static str>>,
    forgotten: bool,
    pub(crate) meter: Arc<Meter>,
}

impl Entry {
    pub(crate) fn new(
        observer: Observer,
        cut: Arc<std::sync::OnceLock<&'static str>>,
        protocol: Protocol,
    ) -> Self {
        let record = Record {
            protocol,
            host: String::new(),
            port: 0,
            method: None,
            path: None,
            verdict: Verdict::Allowed,
            secrets: Vec::new(),
            bytes_up: 0,
            bytes_down: 0,
            duration: Duration::ZERO,
        };
        Self { record, observer, started: Instant::now(), cut, forgotten: false, meter: Arc::default() }
    }

    pub(crate) fn target(&mut self, target: &Target) {
        self.record.host = target.host.to_string();
        self.record.port = target.port;
    }

    /// What was sent instead of a host.
    pub(crate) fn no_target(&mut self, text: &[u8]) {
        self.record.host = crate::host::quote(text);
    }

    pub(crate) fn request(&mut self, method: &str, path: &str) {
        self.record.method = Some(shorten(method));
        self.record.path = Some(shorten(path));
    }

    pub(crate) fn secrets(&mut self, secrets: Vec<String>) {
        self.record.secrets = secrets;
    }

    /// Hands over nothing: what is inside has records of its own.
    pub(crate) fn forget(&mut self) {
        self.forgotten = true;
    }

    /// The first stop counts: what follows is its consequence.
    pub(crate) fn stop(&mut self, stop: Stop) {
        if self.record.verdict == Verdict::Allowed {
            self.record.verdict = stop.into();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.forgotten {
            return;
        }
        if let Some(why) = self.cut.get() {
            self.stop(Stop::Failed((*why).into()));
        }
        self.record.bytes_up = self.meter.up.load(Ordering::Relaxed);
        self.record.bytes_down = self.meter.down.load(Ordering::Relaxed);
        self.record.duration = self.started.elapsed();
        (self.observer)(self.record.clone());
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}
