//! The process inside a sandbox: runs commands, keeps deadlines, holds output, serves files.
//!
//! One thread, one `epoll` loop, one socket. The supervisor is the harness's hand inside the sandbox, so it keeps
//! its promises without the harness: deadlines go by its own clock, output is drained whether anyone reads it or
//! not, and everything a command started is found and killed, however it tried to get away.
//!
//! There is no program to install. Whoever links this crate carries the supervisor: started under the name
//! [`NAME`], the program becomes it before `main` runs (see [`command`]). The socket to the harness is its
//! standard input; [`wire`] says what is spoken there.
//!
//! Isolation is the other half (see [`Level`]): on the way to the loop the process puts itself into
//! namespaces of its own. The loop itself does not rely on that, so that it serves in a container just as well.
//!
//! This is the only crate with `unsafe` code. All of it is in `sys` and `entry`.

mod accounts;
mod channels;
mod clients;
mod config;
mod container;
mod disk;
mod entry;
mod exec;
mod files;
mod frame;
mod isolate;
mod jobs;
mod kill;
mod linger;
mod link;
mod log;
mod monitor;
mod paths;
mod probe;
mod process;
mod serve;
mod spawn;
mod sys;
pub mod wire;
mod world;

pub use config::{Check, Config, Grant, Hello, Level, Limits, Linger, MountPoint, Ready, Setup, Task};
pub use container::{Part, parts};
pub use entry::{DOOR_INSIDE, NAME, NAME_INSIDE, command};
pub use frame::{Decoder, Frame, FrameError, MAX_HEADER, MAX_PAYLOAD, encode};
pub use isolate::{is_root, more_users, names_on_disk, root_allowed};
pub use linger::{DOOR, LOCK};
