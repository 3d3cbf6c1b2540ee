//! The program as a whole: what a user types, what they see, what is left when it is killed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "tests that kill say how often")]

mod agents;
mod approve;
mod bad_input;
mod budget;
mod cancel;
mod chat;
mod checks;
mod compaction;
mod docker;
mod example;
mod git;
mod guidance;
mod kill;
mod kill_team;
mod manifest;
mod mcp;
mod moor;
mod mounts;
mod network;
mod ordinary_user;
mod outputs;
mod ports;
mod sandbox;
mod sandbox_docker;
mod sandbox_names;
mod sandbox_network;
mod sandbox_pipes;
mod sandbox_restore;
mod sandbox_unfinished;
mod terminal;
mod tls;
mod transfer;
mod wire;
