//! Tools of MCP servers as tools of an agent.
//!
//! [`McpServers::connect`] reaches every configured server at once, each within its own deadline, and tells which
//! could not be reached; [`McpServers::tools`] gives what the others offer. A server is a program on this host, spoken
//! to over its standard input and output, or a URL (streamable HTTP). What a server says is untrusted: it is bounded,
//! and its claims about its own tools count only where the configuration trusts them.
//!
//! # Protocol versions
//! A server is first asked `server/discover`, the way into the stateless **2026-07-28**. One that does not know that
//! is greeted with `initialize`, which offers **2025-11-25**; an older version is taken where the server counters with
//! one (2025-06-18, 2025-03-26, 2024-11-05). The tests show the first with `mcp-server-git` (Python SDK) and the second
//! with `server-everything` (TypeScript SDK), over stdio and HTTP.
//!
//! # What it is not
//! It offers servers nothing back: sampling is refused, there are no roots, and a person is asked only by `input_required`, of which a
//! question waits in the approvals inbox. The list of
//! tools is taken once. Servers on this host are not sandboxed; they run as this process's user, in their own process
//! group. A server that moves a child to another group or session takes it out of our reach.
//!
//! Nothing outside this crate knows `rmcp`, the protocol's Rust SDK.

mod config;
mod connection;
mod failure;
mod input;
mod name;
mod process;
mod result;
mod server;
mod servers;
mod tool;
mod transport;

pub use config::{McpConfig, McpReference, McpTransport, McpValue, ToolFilter};
pub use failure::{McpFailure, McpProblem};
pub use servers::{McpServerInfo, McpServers};
