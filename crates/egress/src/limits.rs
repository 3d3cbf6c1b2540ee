//! The bounds of one sandbox's network access.

use std::time::Duration;

/// How much, and how long. The defaults suit an agent that builds software.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time; more are refused.
    pub connections: usize,
    /// Bytes of a request's line and headers, at least 8192.
    pub head_bytes: usize,
    /// From the first byte of a request to the end of its headers; also for each step of a handshake.
    pub head: Duration,
    /// From a name to an open connection, and once more for TLS.
    pub connect: Duration,
    /// A connection on which nothing moves for this long is cut.
    pub idle: Duration,
    /// No connection lives longer.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            head_bytes: 64 * 1024,
            head: Duration::from_secs(30),
            connect: Duration::from_secs(30),
            // A model that thinks sends nothing for minutes.
            idle: Duration::from_mins(15),
            total: Duration::from_hours(6),
        }
    }
}

impl Limits {
    /// For one address of several.
    pub(crate) fn attempt(&self) -> Duration {
        self.connect / 3
    }
}
