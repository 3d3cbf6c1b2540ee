//! What a workspace holds: directories, files, copies from the host, repositories. Mounts have a file of their own.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::{Mount, Owner};

/// One entry of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is for; shown to the model.
    pub description: Option<String>,
    /// Whether a snapshot leaves it out, and a resume stages it again.
    pub ephemeral: bool,
    /// The group that it belongs to.
    pub group: Option<Owner>,
    /// What the wire form says; it has a meaning only where it contradicts the type.
    pub is_dir: bool,
    /// Its mode.
    pub permissions: Permissions,
    /// What it is.
    pub kind: EntryKind,
}

/// Permissions as three digits. The wire form allows any integer; [`crate::Manifest::validate`] does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Permissions {
    /// Of the owner, 0 to 7.
    #[serde(default = "seven")]
    #[schemars(range(min = 0, max = 7))]
    pub owner: i64,
    /// Of the group, 0 to 7.
    #[serde(default)]
    #[schemars(range(min = 0, max = 7))]
    pub group: i64,
    /// Of all others, 0 to 7.
    #[serde(default)]
    #[schemars(range(min = 0, max = 7))]
    pub other: i64,
    /// Whether they are a directory's. The entry's type decides.
    #[serde(default)]
    pub directory: bool,
}

fn seven() -> i64 {
    7
}

impl Permissions {
    /// What an entry has that says nothing: 0755.
    pub fn usual(directory: bool) -> Self {
        Self { owner: 7, group: 5, other: 5, directory }
    }

    /// The mode bits.
    pub fn mode(self) -> u32 {
        let digit = |value: i64| (value & 7) as u32;
        digit(self.owner) << 6 | digit(self.group) << 3 | digit(self.other)
    }
}

/// The kinds of entries, each with its own fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EntryKind {
    /// A directory and what is in it.
    Dir(Dir),
    /// A file with its content.
    File(File),
    /// A copy of a file on the host.
    LocalFile(LocalFile),
    /// A copy of a directory on the host.
    LocalDir(LocalDir),
    /// A copy of a repository.
    GitRepo(GitRepo),
    /// Storage that is mounted.
    Mount(std::boxed::Box<Mount>),
}

/// A directory and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Dir {
    /// Its entries by name. A name may be a path.
    pub children: IndexMap<String, Entry>,
}

/// A file with its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// The content. The wire form has no place for bytes that are not UTF-8.
    pub content: String,
}

/// A copy of a file on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalFile {
    /// The file: relative to the base directory of whoever stages the manifest, or absolute below it.
    pub src: String,
}

/// A copy of a directory on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalDir {
    /// The directory: relative to the base directory of whoever stages the manifest, or absolute below it. `None`:
    /// an empty directory.
    #[serde(default)]
    pub src: Option<String>,
}

/// A copy of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GitRepo {
    /// The host. The repository is cloned from `https://HOST/REPO.git`; or from a directory on the host, where this
    /// is a `file:///…` URL of a directory.
    #[serde(default = "github")]
    pub host: String,
    /// The repository, such as `owner/name`.
    pub repo: String,
    /// A branch, a tag or a commit.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The directory in the repository to copy. `None`, empty or `.`: all of it, with `.git`.
    #[serde(default)]
    pub subpath: Option<String>,
}

fn github() -> String {
    "github.com".to_owned()
}

impl EntryKind {
    /// The wire form's `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Dir(_) => "dir",
            Self::File(_) => "file",
            Self::LocalFile(_) => "local_file",
            Self::LocalDir(_) => "local_dir",
            Self::GitRepo(_) => "git_repo",
            Self::Mount(mount) => mount.provider.type_name(),
        }
    }

    /// Whether it makes a directory.
    pub fn is_directory(&self) -> bool {
        !matches!(self, Self::File(_) | Self::LocalFile(_))
    }
}

impl Entry {
    /// An entry with everything but its kind at its default.
    pub fn new(kind: EntryKind) -> Self {
        let directory = kind.is_directory();
        Self {
            description: None,
            ephemeral: matches!(kind, EntryKind::Mount(_)),
            group: None,
            is_dir: directory,
            permissions: Permissions::usual(directory),
            kind,
        }
    }

    /// A file.
    pub fn file(content: impl Into<String>) -> Self {
        Self::new(EntryKind::File(File { content: content.into() }))
    }

    /// A directory.
    pub fn dir<N: Into<String>>(children: impl IntoIterator<Item = (N, Entry)>) -> Self {
        let children = children.into_iter().map(|(name, entry)| (name.into(), entry)).collect();
        Self::new(EntryKind::Dir(Dir { children }))
    }
}

/// The fields that all entries have, in the order of the wire form.
#[derive(Serialize)]
struct Wire<'a> {
    r#type: &'static str,
    description: &'a Option<String>,
    ephemeral: bool,
    group: &'a Option<Owner>,
    is_dir: bool,
    permissions: Permissions,
    #[serde(flatten)]
    kind: &'a EntryKind,
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let directory = self.kind.is_directory();
        Wire {
            r#type: self.kind.type_name(),
            description: &self.description,
            ephemeral: self.ephemeral,
            group: &self.group,
            is_dir: directory || self.is_dir,
            permissions: Permissions { directory, ..self.permissions },
            kind: &self.kind,
        }
        .serialize(serializer)
    }
}
