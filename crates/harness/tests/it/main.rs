//! The harness against a journal in memory, scripted models, and tools that count what they do to the world.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the crash matrix tells its seeds and counts")]

mod agents;
mod approval;
mod budget;
mod compaction;
mod crash;
mod crash_checks;
mod driver;
mod families;
mod fork;
mod guardrail;
mod hooks;
mod machine;
mod matrix;
mod policy;
mod typed;
mod world;
