//! A value as a manifest. All problems of one reading are found, as far as what is broken allows.

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::path::posix;
use crate::problem::member;
use crate::unknown;
use crate::{
    Dir, Entry, EntryKind, EnvEntry, EnvValue, EnvVar, Environment, LocalDir, LocalFile, Manifest,
    ManifestError, Mount, MountCommon, Owner, PathGrant, Permissions, Problem, Provider,
};

/// The key of our own additions.
pub(crate) const ADDITIONS: &str = "x-mooring";

/// How deep directories may be nested. It bounds the stack.
const MAX_DEPTH: usize = 64;

/// The types that the wire form knows.
pub(crate) const TYPES: [&str; 12] = [
    "dir",
    "file",
    "local_file",
    "local_dir",
    "git_repo",
    "s3_mount",
    "gcs_mount",
    "r2_mount",
    "azure_blob_mount",
    "box_mount",
    "s3_files_mount",
    "blaxel_drive_mount",
];

/// Reads a manifest. `twice` are keys that came twice; they join what is ignored.
pub(crate) fn manifest(value: &Value, twice: Vec<Problem>) -> Result<Manifest, ManifestError> {
    let mut reader = Reader::default();
    let Value::Object(map) = value else {
        let wrong = Problem::new("", format!("a manifest must be an object, not {}", kind(value)));
        return Err(ManifestError::Structure(vec![wrong]));
    };
    let mut manifest = reader.top(map);
    if !reader.problems.is_empty() {
        return Err(ManifestError::Structure(reader.problems));
    }
    manifest.ignored = twice;
    manifest.ignored.append(&mut reader.ignored);
    unknown::keys(value, &manifest.to_value(), "", &mut manifest.ignored);
    Ok(manifest)
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
    ignored: Vec<Problem>,
}

/// The fields that every entry may have.
#[derive(Deserialize)]
struct Base {
    description: Option<String>,
    ephemeral: Option<bool>,
    group: Option<Owner>,
    is_dir: Option<bool>,
    permissions: Option<Permissions>,
}

impl Reader {
    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn top(&mut self, map: &Map<String, Value>) -> Manifest {
        let mut manifest = Manifest::default();
        if let Some(version) =
            map.get("version").filter(|version| version.as_u64() != Some(Manifest::VERSION))
        {
            let wrong = Problem::new("version", format!("unknown manifest version {version}"));
            self.problem(wrong.hint("this release reads version 1, the number"));
        }
        for key in map.keys().filter(|key| is_credential_policy(key)) {
            let wrong =
                Problem::new(key, "a manifest may not allow for itself that credentials enter the sandbox");
            self.problem(wrong.hint("remove the key"));
        }
        if let Some(root) = map.get("root") {
            manifest.root = self.leaf(root, "root").unwrap_or_default();
        }
        manifest.entries = self.entries(map.get("entries"), "entries", 0);
        if let Some(environment) = map.get("environment") {
            manifest.environment = self.environment(environment);
        }
        if let Some(users) = map.get("users") {
            manifest.users = self.leaf(users, "users").unwrap_or_default();
        }
        if let Some(groups) = map.get("groups") {
            manifest.groups = self.leaf(groups, "groups").unwrap_or_default();
        }
        if let Some(grants) = map.get("extra_path_grants") {
            manifest.extra_path_grants = self.grants(grants);
        }
        if let Some(commands) = map.get("remote_mount_command_allowlist") {
            manifest.remote_mount_command_allowlist =
                self.leaf(commands, "remote_mount_command_allowlist").unwrap_or_default();
        }
        if let Some(additions) = map.get(ADDITIONS) {
            manifest.extension = self.leaf(additions, ADDITIONS).unwrap_or_default();
        }
        manifest
    }

    fn entries(&mut self, value: Option<&Value>, at: &str, depth: usize) -> IndexMap<String, Entry> {
        let map = match value {
            None | Some(Value::Null) => return IndexMap::new(),
            Some(Value::Object(map)) => map,
            Some(other) => {
                let wrong =
                    Problem::new(at, format!("entries must be an object of names, not {}", kind(other)));
                self.problem(wrong);
                return IndexMap::new();
            }
        };
        if depth == MAX_DEPTH {
            self.problem(Problem::new(
                at,
                format!("directories are nested more than {MAX_DEPTH} levels deep"),
            ));
            return IndexMap::new();
        }
        let mut entries = IndexMap::with_capacity(map.len());
        for (name, value) in map {
            if let Some(entry) = self.entry(value, &member(at, name), depth) {
                entries.insert(name.clone(), entry);
            }
        }
        entries
    }

    fn entry(&mut self, value: &Value, at: &str, depth: usize) -> Option<Entry> {
        let Value::Object(map) = value else {
            let wrong = Problem::new(at, format!("an entry must be an object, not {}", kind(value)));
            self.problem(wrong.hint("for a file write {\"type\": \"file\", \"content\": \"…\"}"));
            return None;
        };
        let Some(Value::String(name)) = map.get("type") else {
            let wrong = Problem::new(at, "an entry must say its type");
            self.problem(wrong.hint(format!("add \"type\": one of {}", TYPES.join(", "))));
            return None;
        };
        let base: Option<Base> = self.leaf(value, at);
        let kind = self.kind(name, map, value, at, depth);
        let (base, kind) = (base?, kind?);
        let mut entry = Entry::new(kind);
        let mount = matches!(entry.kind, EntryKind::Mount(_));
        entry.description = base.description;
        entry.group = base.group;
        entry.ephemeral = base.ephemeral.unwrap_or(entry.ephemeral);
        entry.is_dir = entry.is_dir || base.is_dir == Some(true);
        if let Some(permissions) = base.permissions {
            let permissions = Permissions { directory: entry.permissions.directory, ..permissions };
            if mount && permissions != entry.permissions {
                let wrong = Problem::new(member(at, "permissions"), "a mount has no permissions of its own");
                self.ignored.push(wrong.hint("remove them"));
            } else {
                entry.permissions = permissions;
            }
        }
        Some(entry)
    }

    fn kind(
        &mut self,
        name: &str,
        map: &Map<String, Value>,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Option<EntryKind> {
        Some(match name {
            "dir" => {
                let children = self.entries(map.get("children"), &member(at, "children"), depth + 1);
                EntryKind::Dir(Dir { children })
            }
            "file" => EntryKind::File(self.leaf(value, at)?),
            "local_file" => {
                let LocalFile { src } = self.leaf(value, at)?;
                EntryKind::LocalFile(LocalFile { src: posix(&src) })
            }
            "local_dir" => {
                let LocalDir { src } = self.leaf(value, at)?;
                EntryKind::LocalDir(LocalDir { src: src.as_deref().map(posix) })
            }
            "git_repo" => EntryKind::GitRepo(self.leaf(value, at)?),
            "s3_mount" => self.mount(Provider::S3, value, at)?,
            "gcs_mount" => self.mount(Provider::Gcs, value, at)?,
            "r2_mount" => self.mount(Provider::R2, value, at)?,
            "azure_blob_mount" => self.mount(Provider::AzureBlob, value, at)?,
            "box_mount" => self.mount(Provider::Box, value, at)?,
            "s3_files_mount" => self.mount(Provider::S3Files, value, at)?,
            "blaxel_drive_mount" => self.mount(Provider::BlaxelDrive, value, at)?,
            unknown => {
                let wrong = Problem::new(member(at, "type"), format!("unknown entry type '{unknown}'"));
                self.problem(wrong.hint(unknown::suggest(unknown, TYPES)));
                return None;
            }
        })
    }

    fn mount<T: DeserializeOwned>(
        &mut self,
        provider: fn(T) -> Provider,
        value: &Value,
        at: &str,
    ) -> Option<EntryKind> {
        let common: Option<MountCommon> = self.leaf(value, at);
        let provider = self.leaf(value, at).map(provider);
        let (mut common, provider) = (common?, provider?);
        common.mount_path = common.mount_path.as_deref().map(posix);
        if let Err((field, message)) = common.mount_strategy.settle(&provider) {
            self.problem(Problem::new(format!("{at}.{field}"), message));
            return None;
        }
        Some(EntryKind::Mount(Box::new(Mount { common, provider })))
    }

    fn environment(&mut self, value: &Value) -> Environment {
        let Value::Object(map) = value else {
            let wrong = Problem::new("environment", format!("it must be an object, not {}", kind(value)));
            self.problem(wrong.hint("write {\"value\": {\"NAME\": \"value\"}}"));
            return Environment::default();
        };
        let variables = match map.get("value") {
            None => return Environment::default(),
            Some(Value::Object(variables)) => variables,
            Some(other) => {
                let wrong =
                    Problem::new("environment.value", format!("it must be an object, not {}", kind(other)));
                self.problem(wrong.hint("write {\"NAME\": \"value\"}"));
                return Environment::default();
            }
        };
        let read = |(name, value): (&String, &Value)| Some((name.clone(), self.variable(name, value)?));
        Environment { value: variables.iter().filter_map(read).collect() }
    }

    fn variable(&mut self, name: &str, value: &Value) -> Option<EnvVar> {
        let at = member("environment.value", name);
        match value {
            Value::String(text) => Some(EnvVar::Plain(text.clone())),
            Value::Object(map)
                if map.contains_key("type") || map.get("value").is_some_and(Value::is_string) =>
            {
                self.env_value(value, &at).map(EnvVar::Value)
            }
            Value::Object(map) => {
                #[derive(Deserialize)]
                struct Wire {
                    description: Option<String>,
                    #[serde(default)]
                    ephemeral: bool,
                }
                let wire: Option<Wire> = self.leaf(value, &at);
                let inner = map.get("value").unwrap_or(&Value::Null);
                let value = self.env_value(inner, &member(&at, "value"));
                let (wire, value) = (wire?, value?);
                Some(EnvVar::Entry(EnvEntry {
                    description: wire.description,
                    ephemeral: wire.ephemeral,
                    value,
                }))
            }
            other => {
                let wrong =
                    Problem::new(&at, format!("a variable's value must be text, not {}", kind(other)));
                self.problem(wrong.hint("put it in quotes"));
                None
            }
        }
    }

    fn env_value(&mut self, value: &Value, at: &str) -> Option<EnvValue> {
        match value.get("type") {
            None => {}
            Some(Value::String(name)) if name == "str" => {}
            Some(other) => {
                let wrong = Problem::new(at, format!("unknown type of variable {other}"));
                self.problem(wrong.hint("the only one is \"str\""));
                return None;
            }
        }
        match value.get("value") {
            Some(Value::String(text)) => Some(EnvValue { value: text.clone() }),
            _ => {
                let wrong = Problem::new(at, "a variable must have a value that is text");
                self.problem(wrong.hint("write {\"type\": \"str\", \"value\": \"…\"}"));
                None
            }
        }
    }

    fn grants(&mut self, value: &Value) -> Vec<PathGrant> {
        let mut grants: Vec<PathGrant> = self.leaf(value, "extra_path_grants").unwrap_or_default();
        for (index, grant) in grants.iter_mut().enumerate() {
            if let Err((field, message)) = grant.settle() {
                self.problem(Problem::new(format!("extra_path_grants[{index}].{field}"), message));
            }
        }
        grants
    }

    /// Reads what has a fixed form. Keys that it does not know are left to [`unknown::keys`].
    fn leaf<T: DeserializeOwned>(&mut self, value: &Value, at: &str) -> Option<T> {
        match serde_path_to_error::deserialize(value) {
            Ok(read) => Some(read),
            Err(error) => {
                let below = error.path().to_string();
                let path = match below.as_str() {
                    "." => at.to_owned(),
                    below if below.starts_with('[') => format!("{at}{below}"),
                    below => format!("{at}.{below}"),
                };
                let problem = Problem::new(path, error.into_inner().to_string());
                // An entry's fields are read in two steps, and both may find the same.
                if !self.problems.contains(&problem) {
                    self.problem(problem);
                }
                None
            }
        }
    }
}

/// What a value is, for a message.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The SDK's spellings of "this manifest may put credentials into the sandbox", which only code may say.
fn is_credential_policy(key: &str) -> bool {
    let plain: String =
        key.chars().filter(|char| *char != '_').map(|char| char.to_ascii_lowercase()).collect();
    let plain = plain.replace("broad", "");
    matches!(
        plain.as_str(),
        "mountcredentialexposurepolicy"
            | "incontainermountcredentialexposurepolicy"
            | "incontainermountcredentialexposureallowedpaths"
            | "incontainermountcredentialexposureacknowledgedpaths"
    )
}
