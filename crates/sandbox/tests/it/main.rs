//! What staging promises.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod git;
mod lock;
mod planning;
mod staging;
mod support;
