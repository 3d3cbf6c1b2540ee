//! Bytes in and out of a sandbox that has no network: exposed ports, and the one way out.
//!
//! Both are streams that the sandbox's supervisor carries, so that they are the same on every backend and need no
//! address, no route and no firewall. Neither exists unless it is asked for: a sandbox by itself reaches nobody and
//! is reached by nobody.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{BoxFuture, SandboxError};

/// The port of the loopback interface inside a sandbox at which the way out is offered.
pub const EGRESS_PORT: u16 = 3128;

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}

/// A connection to or from inside a sandbox. It ends with the sandbox: reading then is an error, not an end of file.
pub type ByteStream = Box<dyn Duplex>;

/// Connects to servers inside a sandbox.
pub trait Ports: Send + Sync {
    /// A connection to what listens at this port of the sandbox's loopback interface, IPv4 before IPv6.
    ///
    /// # Errors
    /// [`SandboxError::Port`] where nobody listens.
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<ByteStream, SandboxError>>;
}

/// Serves connections that programs in a sandbox make to [`EGRESS_PORT`].
pub trait EgressHandler: Send + Sync + std::fmt::Debug {
    /// Serves one connection to its end. What arrives was sent by something untrusted.
    fn connection(&self, stream: ByteStream) -> BoxFuture<'_, ()>;
}

/// The way out of a sandbox without a network. Only what a handler does is possible; without one, nothing is.
pub trait Egress: Send + Sync {
    /// Has connections to [`EGRESS_PORT`] served by `handler`. On a session that is not started this takes effect
    /// with the start, before any command runs, and again with each later one.
    ///
    /// # Errors
    /// [`SandboxError::Port`] where something in the sandbox listens at that port already.
    fn serve(&self, handler: Arc<dyn EgressHandler>) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// The address inside, at [`EGRESS_PORT`], at which this process serves whoever else is a client of the sandbox,
    /// once it is started. Commands that this process starts should use it: a connection to any other of 127.0.0.0/8 is
    /// served by anybody, and ends with who does.
    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::LOCALHOST
    }
}

/// Something that a sandbox sent out, or that it was refused: a connection, or a request where requests are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `http`, `https`, `connect`, `socks5`; `unknown` where it ended before that was known.
    pub protocol: String,
    /// The host; shortened and escaped where it is none. Empty where more were refused or allowed than are listed.
    pub host: String,
    /// The port; 0 where it is not known.
    pub port: u16,
    /// The method, where it was seen.
    pub method: Option<String>,
    /// The path without its query, where it was seen.
    pub path: Option<String>,
    /// `allow`, `deny`, or `fail` for what was allowed and did not get to its end.
    pub decision: String,
    /// A stable word for why it was refused.
    pub code: Option<String>,
    /// Why it was refused or failed, in words.
    pub reason: Option<String>,
    /// The secrets that were put in, by name.
    pub secrets: Vec<String>,
    /// How many of the same kind these are.
    pub count: u64,
    /// Bytes that left the sandbox, of all of them.
    pub bytes_up: u64,
    /// Bytes that came back, of all of them.
    pub bytes_down: u64,
    /// How long they took together, in milliseconds.
    pub duration_ms: u64,
}
