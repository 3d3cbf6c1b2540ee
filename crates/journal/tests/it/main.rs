//! The journal's behaviour, seen from outside.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "processes of a test talk to it")]

mod accounts;
mod conformance;
mod damage;
mod full;
mod histories;
mod interleavings;
mod log;
mod places;
mod processes;
mod support;
mod torn;
