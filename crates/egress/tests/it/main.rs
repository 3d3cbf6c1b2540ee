//! The proxy against programs that other people wrote: curl, OpenSSL, Python requests, git; lighttpd at the other end.
//! Where a client has to misbehave, bytes are written by hand.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by it")]

mod git;
mod http;
mod inside;
mod limits;
mod names;
mod python;
mod secrets;
mod socks;
mod support;
mod tls;
