//! Counterparts for tests: a scriptable model server.

mod server;

pub use server::{Recorded, Reply, Server, Step};
