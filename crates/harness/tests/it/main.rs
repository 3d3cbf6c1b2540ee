//! The harness against a journal in memory, scripted models, and tools that count what they do to the world.

mod approval;
mod crash;
mod driver;
mod machine;
mod policy;
mod world;
