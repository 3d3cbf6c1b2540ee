//! What the manifest crate promises.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod convert;
mod corpus;
mod describing;
mod extension;
mod generated;
mod reading;
mod schema;
mod sdk;
mod validation;
