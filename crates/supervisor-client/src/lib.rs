//! The harness's side of a supervisor: a sandbox session over any stream.
//!
//! A backend that runs `mooring_supervisor` inside its sandbox says how to start it ([`Launch`]) and gets the whole
//! of a session ([`SupervisedSession`]): commands, terminals, deadlines, output cursors, files, archives, ports and
//! the way out are the same code on each.

mod channel;
mod connection;
mod egress;
mod errors;
mod limits;
mod process;
mod session;
mod sessions;

pub use connection::{End, Transport, ask};
pub use errors::{gone, translate};
pub use limits::tighter;
pub use session::{Launch, Launched, SupervisedSession};
pub use sessions::{Sessions, check_id};
