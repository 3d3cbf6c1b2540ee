//! The crate from outside: what goes over each wire, what comes of it, and what is said when it fails.

#![expect(clippy::format_push_string, clippy::format_collect, reason = "a test's text is short")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod compaction;
mod counterparts;
mod failures;
mod limit;
mod price;
mod recorded;
mod requests;
mod route;
mod script;
mod spec;
mod support;
