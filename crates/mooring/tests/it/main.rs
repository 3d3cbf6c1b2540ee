//! The library as a program uses it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agents;
mod runs;
#[cfg(feature = "local")]
mod sandbox;
mod tools;
mod words;
