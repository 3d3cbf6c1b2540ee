//! What a local sandbox does, seen from outside and from inside.
//!
//! Run as root, all of it runs a second time as an ordinary user (`ordinary_user`).

#![expect(clippy::unwrap_used, reason = "the lint's exception for tests does not reach their helpers")]

mod conformance;
mod escape;
mod files;
mod forks;
mod grants;
mod hostile;
mod inside;
mod lifecycle;
mod limits;
mod lingering;
mod manifest;
mod nested;
mod network;
mod ordinary_user;
mod output;
mod setup;
mod stopping;
mod terminals;
mod unisolated;
mod users;
mod way_out;
