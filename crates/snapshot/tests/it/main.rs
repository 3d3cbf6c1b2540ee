//! Snapshots: what comes back, what it costs, what is safe, and what differs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod differences;
mod local;
mod round_trip;
mod setup;
mod sharing;
mod support;
