//! What a sandbox in a container does, on a real engine.
//!
//! The engine is started for the tests (`scripts/docker-engine`), which needs root. Elsewhere
//! `MOORING_TEST_DOCKER=unix:///…` names one that runs; without it these tests are left out. As root,
//! all of it runs a second time as an ordinary user who may use the engine's socket.

#![expect(clippy::unwrap_used, reason = "the lint's exception for tests does not reach their helpers")]

mod conformance;
mod containers;
mod crashes;
mod egress;
mod engine;
mod escape;
mod ordinary_user;
mod snapshots;
