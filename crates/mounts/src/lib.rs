//! Object storage as a directory of a sandbox: S3, R2, Google Cloud Storage and Azure Blob, served from outside of it.
//!
//! The sandbox mounts a FUSE file system and hands its device out; here it is answered. So the credentials never enter
//! the sandbox, nothing is mounted on this host, and when the sandbox is gone so is the mount.
//!
//! Objects are files and what stands between slashes in their names are directories. What is listed is up to
//! [`FRESH`] old; a file is read as it was when it was opened, or not at all. An object whose name is another's
//! directory (`a` beside `a/b`), or that is no name of a file (longer than 255 bytes), does not appear. Files are
//! only read: a mount that is to be written to is refused.

mod bucket;
mod cache;
mod connect;
mod host;
mod serve;
mod table;

pub use bucket::FRESH;
pub use host::ObjectStorage;
