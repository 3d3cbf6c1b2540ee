//! A file that carries a run: what is cut off, changed, newer or hostile is refused, and what is whole says the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod world;
