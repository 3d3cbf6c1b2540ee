//! The workspace contract: types, wire form, validation, digest, JSON Schema.
//!
//! A [`Manifest`] says what a sandbox's workspace holds before the first command runs, and nothing about which
//! backend provides it. Its wire form is version 1 of the manifest of OpenAI's Agents SDK: what the SDK writes is
//! read here, and written again to the same JSON value and [digest](Manifest::digest). This crate does no I/O and
//! knows no sandbox.
//!
//! # Two steps
//! *Reading* (`Manifest::from_…`) accepts what the SDK's model accepts, in JSON, YAML or TOML; it fails on what has
//! no meaning at all. *Validation* ([`Manifest::validate`]) is for use, and finds all problems at once.
//! [`Manifest::load`] does both, and is what a program should call.
//!
//! ```
//! use mooring_manifest::{Format, Manifest};
//!
//! let manifest = Manifest::load("entries: {task.md: {type: file, content: Do it.}}", Format::Yaml)?;
//! assert_eq!(manifest.describe(1), "/workspace\n└── task.md  # /workspace/task.md\n");
//!
//! let error = Manifest::load("entriez: {}", Format::Yaml).unwrap_err();
//! assert!(error.to_string().contains("did you mean 'entries'?"));
//! # Ok::<(), mooring_manifest::ManifestError>(())
//! ```
//!
//! # Where validation is stricter than the SDK
//! The SDK reads these; some it drops silently, some fail only in the middle of staging. Here they are problems:
//! - unknown keys anywhere, a key that comes twice, variables directly under `environment` instead of its `value`;
//! - entry names that are empty, `.`, absolute, or hold `..`, `\`, a drive letter or NUL; two entries at one path
//!   (also as `a//b`, or as `a/b` beside a child `b` of `a`); anything below a file or a mount;
//! - permission triples outside of 0 to 7, and a file that says it is a directory;
//! - a `group` that the manifest declares neither as a group nor as a user;
//! - variable names that are empty or hold `=` or NUL; user and group names that no system takes, or that come twice;
//! - a root that is not absolute, holds `..`, or is `/`;
//! - git references that begin with `-`, and hosts, repositories and subpaths that are no such thing;
//! - line breaks in any of a mount's values, `@` and `?` in endpoints, and mount paths that leave the root by `..`.
//!
//! Credentials that a mount would put inside the sandbox are refused as the SDK does, unless code acknowledged them
//! ([`Manifest::acknowledge_exposure`]).
//!
//! Reading itself is stricter in two ways: text is not turned into numbers or booleans (`"1"` for 1), and a
//! manifest that is nested more than 64 directories deep is refused.
//!
//! What needs a backend or the host to judge (mounts, users and grants that a backend lacks, sources that are missing
//! or outside of their base directory) is refused by `mooring-sandbox` when a run is planned. Two rules of the SDK
//! are about its own entry points and have no counterpart: that a manifest given as a Python dictionary may not hold
//! grants or host sources. Here, whoever plans a manifest names the base directory that its sources are confined to.
//!
//! One key is our own: `x-mooring` at the top, for what the SDK's form has no place for: see [`extension`]. It is
//! written where it says something.

mod account;
pub mod convert;
mod describe;
mod digest;
mod entry;
mod environment;
mod exposure;
pub mod extension;
mod format;
mod grant;
mod manifest;
mod mount;
mod mount_check;
mod path;
mod problem;
mod read;
mod schema;
mod strategy;
mod tree;
mod unknown;
mod validate;

pub use account::{Group, Owner, User};
pub use entry::{Dir, Entry, EntryKind, File, GitRepo, LocalDir, LocalFile, Permissions};
pub use environment::{EnvEntry, EnvValue, EnvVar, Environment};
pub use exposure::Exposure;
pub use extension::Extension;
pub use format::Format;
pub use grant::PathGrant;
pub use manifest::{Located, Manifest};
pub use mount::{AzureBlob, BlaxelDrive, Box, Gcs, Mount, MountCommon, Provider, R2, S3, S3Files};
pub use path::{PathError, RelPath};
pub use problem::{ManifestError, Problem};
pub use strategy::{
    BoxSubType, CacheType, Fuse, MountStrategy, Mountpoint, MountpointOptions, Pattern, Rclone, RcloneMode,
    S3FilesOptions,
};
