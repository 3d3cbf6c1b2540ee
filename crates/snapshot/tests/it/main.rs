//! Snapshots: what comes back, what it costs, what is safe, and what differs.

mod crash;
mod differences;
mod round_trip;
mod sharing;
mod support;
