//! Network access of a sandbox, from outside of it.
//!
//! A sandbox has no route and no resolver. What it has, where its policy allows anything at all, is a stream to this
//! proxy, which runs with the control plane. HTTP, `CONNECT` and SOCKS 5 are served on the same stream. What no rule
//! allows is refused before any name is looked up; a name that is allowed is looked up once, and exactly the addresses
//! found are connected to.
//!
//! Secrets stay here. The sandbox gets a phantom for each, and the proxy puts the value in for exactly the host, method
//! and path that it is bound to, and takes it out of what comes back. For this it ends TLS, with a certificate authority
//! of the session; so it does where a rule is about methods or paths. Everywhere else TLS passes unread.
//!
//! How much a rule enforces: where requests are read, all of it. Where TLS passes unread, that the tunnel's name, its
//! address and the name in the TLS handshake are one; not which `Host` a server that serves many is asked for, nor
//! whether a phantom is carried there, which is worth nothing.
//!
//! HTTP/1.1 is spoken wherever requests are read. WebSocket, HTTP/2 and trailers do not pass there.

mod address;
mod authority;
mod body;
mod client;
mod connection;
mod egress;
mod environment;
mod forward;
mod hello;
mod host;
mod identity;
mod limits;
mod log;
mod manifest;
mod pattern;
mod policy;
mod proxy;
mod record;
mod scrub;
mod secret;
mod session;
mod socks;
mod stream;
mod tunnel;
mod upstream;

pub use client::EgressClient;
pub use egress::{Config, Egress};
pub use environment::{ca_bundle, environment};
pub use host::{Host, HostError, Target};
pub use http::{HeaderName, Method};
pub use limits::Limits;
pub use manifest::{Operator, SecretLookup};
pub use mooring_manifest::extension::{HostName, PathPattern};
pub use pattern::HostPattern;
pub use policy::{Policy, PolicyError, Rule};
pub use record::{Observer, Protocol, Record, Refusal, Verdict};
pub use secret::{SecretBinding, SecretValue};
pub use upstream::{Resolve, SystemResolver};
