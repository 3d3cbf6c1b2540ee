//! For tests: a scriptable model server, a Docker engine, an ordinary user.

mod engine;
mod ordinary_user;
mod server;

pub use engine::{DOCKER, IMAGE, PYTHON, docker};
pub use ordinary_user::tests_as_ordinary_user;
pub use server::{Recorded, Reply, Server, Step};
