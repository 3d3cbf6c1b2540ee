//! The manifest itself: reading, writing, and its entries in one list.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::Value;

use crate::problem::member;
use crate::{
    Entry, EntryKind, Environment, Exposure, Extension, Format, Group, ManifestError, PathError, PathGrant,
    Problem, RelPath, User,
};

/// The commands that the SDK tells a model to use on mounts. Nothing enforces it.
const ALLOWLIST: [&str; 18] = [
    "ls", "find", "stat", "cat", "less", "head", "tail", "du", "grep", "rg", "wc", "sort", "cut", "cp",
    "tee", "echo", "mkdir", "rm",
];

/// A portable description of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Value")]
pub struct Manifest {
    /// Absolute path of the workspace inside the sandbox.
    pub root: String,
    /// What the workspace holds, by path.
    pub entries: IndexMap<String, Entry>,
    /// Variables for every command.
    pub environment: Environment,
    /// Users to provision.
    pub users: Vec<User>,
    /// Groups to provision.
    pub groups: Vec<Group>,
    /// Paths outside of the workspace that may be reached.
    pub extra_path_grants: Vec<PathGrant>,
    /// Commands that a model is told to use on mounts. Text only: nothing enforces it.
    pub remote_mount_command_allowlist: Vec<String>,
    /// Our own additions, `x-mooring` in the wire form: not written where they say nothing.
    pub extension: Extension,
    /// Which mounts may have their credentials inside of the sandbox. It is no part of the wire form either.
    pub exposure: Exposure,
    /// What was read and means nothing, such as unknown keys. It is no part of the wire form;
    /// [`Manifest::validate`] reports it.
    pub ignored: Vec<Problem>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            root: "/workspace".into(),
            entries: IndexMap::new(),
            environment: Environment::default(),
            users: Vec::new(),
            groups: Vec::new(),
            extra_path_grants: Vec::new(),
            remote_mount_command_allowlist: ALLOWLIST.map(str::to_owned).into(),
            extension: Extension::default(),
            exposure: Exposure::default(),
            ignored: Vec::new(),
        }
    }
}

/// An entry and where it is.
#[derive(Debug, Clone)]
pub struct Located<'a> {
    /// Where in the manifest, as problems name it.
    pub at: String,
    /// Its name, as it is written.
    pub key: &'a str,
    /// Its path below the root. `None` where its name or that of a directory around it is no path.
    pub path: Option<RelPath>,
    /// Why it has no path, where that is its own fault.
    pub problem: Option<PathError>,
    /// The entry.
    pub entry: &'a Entry,
}

impl Manifest {
    /// The version of the wire form, the only one there is.
    pub const VERSION: u64 = 1;

    /// Reads a manifest and validates it.
    pub fn load(text: &str, format: Format) -> Result<Self, ManifestError> {
        let manifest = Self::read(text, format)?;
        manifest.validate().map_err(ManifestError::Invalid)?;
        Ok(manifest)
    }

    /// Reads a manifest as the SDK's model would: what has no meaning goes to [`Manifest::ignored`].
    pub fn read(text: &str, format: Format) -> Result<Self, ManifestError> {
        let (value, twice) = format.parse(text)?;
        crate::read::manifest(&value, twice)
    }

    /// [`Manifest::read`] for JSON.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        Self::read(text, Format::Json)
    }

    /// [`Manifest::read`] for YAML.
    pub fn from_yaml(text: &str) -> Result<Self, ManifestError> {
        Self::read(text, Format::Yaml)
    }

    /// [`Manifest::read`] for TOML.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        Self::read(text, Format::Toml)
    }

    /// [`Manifest::read`] for a value.
    pub fn from_value(value: &Value) -> Result<Self, ManifestError> {
        crate::read::manifest(value, Vec::new())
    }

    /// The wire form: every field in the SDK's order, defaults and nulls included.
    #[expect(clippy::expect_used, reason = "maps with string keys always become a value")]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a manifest is plain data")
    }

    /// The wire form as text, on one line.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// The variables that every command in the workspace gets.
    pub fn resolved_environment(&self) -> BTreeMap<String, String> {
        self.environment.value.iter().map(|(name, value)| (name.clone(), value.as_str().to_owned())).collect()
    }

    /// The entry at a path.
    pub fn entry_mut(&mut self, path: &RelPath) -> Option<&mut Entry> {
        find(&mut self.entries, path.as_str())
    }

    /// All entries, a directory before what is in it, otherwise in the order they were written.
    pub fn located(&self) -> Vec<Located<'_>> {
        let mut found = Vec::new();
        locate(&self.entries, "entries", Some(""), &mut found);
        found
    }
}

fn find<'a>(entries: &'a mut IndexMap<String, Entry>, path: &str) -> Option<&'a mut Entry> {
    entries.iter_mut().find_map(|(key, entry)| {
        let name = RelPath::parse(key).ok()?;
        let rest = path.strip_prefix(name.as_str())?;
        if rest.is_empty() {
            return Some(entry);
        }
        let EntryKind::Dir(dir) = &mut entry.kind else { return None };
        find(&mut dir.children, rest.strip_prefix('/')?)
    })
}

/// `above` is the path of the directory around: empty for the root, `None` where it is no path.
fn locate<'a>(
    entries: &'a IndexMap<String, Entry>,
    at: &str,
    above: Option<&str>,
    found: &mut Vec<Located<'a>>,
) {
    for (key, entry) in entries {
        let at = member(at, key);
        let name = RelPath::parse(key);
        let path = match (above, &name) {
            (Some(above), Ok(name)) if !above.is_empty() => {
                RelPath::parse(&format!("{above}/{name}")).map(Some)
            }
            (Some(_), Ok(name)) => Ok(Some(name.clone())),
            (None, Ok(_)) => Ok(None),
            (_, Err(error)) => Err(*error),
        };
        let (path, problem) = path.map_or_else(|error| (None, Some(error)), |path| (path, None));
        found.push(Located { at: at.clone(), key, path: path.clone(), problem, entry });
        if let EntryKind::Dir(dir) = &entry.kind {
            locate(&dir.children, &format!("{at}.children"), path.as_ref().map(RelPath::as_str), found);
        }
    }
}

impl TryFrom<Value> for Manifest {
    type Error = ManifestError;

    fn try_from(value: Value) -> Result<Self, ManifestError> {
        Self::from_value(&value)
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut wire =
            serializer.serialize_struct("Manifest", 8 + usize::from(!self.extension.is_empty()))?;
        wire.serialize_field("version", &Self::VERSION)?;
        wire.serialize_field("root", &self.root)?;
        wire.serialize_field("entries", &self.entries)?;
        wire.serialize_field("environment", &self.environment)?;
        wire.serialize_field("users", &self.users)?;
        wire.serialize_field("groups", &self.groups)?;
        wire.serialize_field("extra_path_grants", &self.extra_path_grants)?;
        wire.serialize_field("remote_mount_command_allowlist", &self.remote_mount_command_allowlist)?;
        if !self.extension.is_empty() {
            wire.serialize_field(crate::read::ADDITIONS, &self.extension)?;
        }
        wire.end()
    }
}
