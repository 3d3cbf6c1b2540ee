//! The crate from outside: what goes over each wire, what comes of it, and what is said when it fails.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod failures;
mod recorded;
mod requests;
mod script;
mod spec;
mod support;
