//! Files as a sandbox shows them.

use serde::{Deserialize, Serialize};

/// What kind of thing a path names. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, FIFO or socket.
    Other,
}

/// One file's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// The name relative to what was listed; for `stat`, the path as asked for.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, such as `0o644`, setuid and sticky bits included.
    pub mode: u32,
    /// Owner, as the sandbox numbers users.
    pub uid: u32,
    /// Group, as the sandbox numbers groups.
    pub gid: u32,
    /// The owner's name. Empty where the sandbox has one user alone, or does not know the number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The group's name, in the same way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Last modification, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// How to write a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOptions {
    /// Fail with `AlreadyExists` where the path exists. Otherwise the file is replaced as a whole: a reader sees
    /// the old content or the new, never a part.
    pub create_new: bool,
    /// Permission bits. `None`: those of the file that is replaced, else `0o644`.
    pub mode: Option<u32>,
    /// Make missing parent directories.
    pub parents: bool,
}
