//! What the archive crate promises.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod hostile;
mod round_trip;
mod support;
mod walking;
