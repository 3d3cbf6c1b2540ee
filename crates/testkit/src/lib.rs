//! Counterparts for tests: a scriptable model server, a Docker engine.

mod engine;
mod server;

pub use engine::{DOCKER, IMAGE, PYTHON, docker};
pub use server::{Recorded, Reply, Server, Step};
