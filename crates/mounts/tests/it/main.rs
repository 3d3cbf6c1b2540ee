//! Storage that others wrote the servers and clients of, read inside of a sandbox by programs that know nothing of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod reading;
mod secrets;
mod storage;
