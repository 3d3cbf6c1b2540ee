//! Mounts in real sandboxes, of servers that other people wrote (moto, Azurite), filled by the providers' own clients
//! (boto3, azure-storage-blob), and looked at with plain tools.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by it")]
#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it is used")]

mod changing;
mod docker;
mod failing;
mod keeping;
mod ordinary_user;
mod reading;
mod refused;
mod support;
mod writing;
