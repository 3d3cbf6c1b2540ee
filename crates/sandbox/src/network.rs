//! Bytes in and out of a sandbox that has no network: exposed ports, and the one way out.
//!
//! Both are streams that the sandbox's supervisor carries, so that they are the same on every backend and need no
//! address, no route and no firewall. Neither exists unless it is asked for: a sandbox by itself reaches nobody and
//! is reached by nobody.

use std::sync::Arc;

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
}
