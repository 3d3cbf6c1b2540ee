//! The proxy against programs that other people wrote: curl, OpenSSL, Python requests, git; lighttpd at the other end.
//! Where a client has to misbehave, bytes are written by hand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod git;
mod http;
mod limits;
mod names;
mod python;
mod secrets;
mod socks;
mod support;
mod tls;
