//! Tests of the capabilities, against a sandbox session in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod agents_md;
mod apply_patch;
mod diff;
mod instructions;
mod memory_session;
mod reconcile;
mod shell;
mod skills;
mod spill;
mod truncate;
mod view_image;
