//! What the manifest crate promises.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod corpus;
mod describing;
mod generated;
mod reading;
mod schema;
mod validation;
