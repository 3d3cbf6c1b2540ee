//! What must hold for a mount: its values, its credentials, and where those would end up.
//!
//! The rules are the SDK's own, which checks them when a session is made. A helper inside of the sandbox gets only
//! the credentials that it has a use for, and only where code acknowledged it (see `exposure`).

use serde_json::Value;

use crate::exposure::Reach;
use crate::problem::member;
use crate::{
    EntryKind, Located, Manifest, Mount, MountStrategy, Pattern, Problem, Provider, Rclone, RelPath,
};

/// What a helper inside of the sandbox can do with credentials.
#[derive(Default)]
struct Capability {
    /// Fields that open what is mounted.
    scoped: &'static [&'static str],
    /// Fields that may open more.
    broad: &'static [&'static str],
    /// Whether the helper looks for credentials of the machine by itself.
    discovers: bool,
    /// Fields of which it needs one at least.
    any_of: &'static [&'static str],
}

const KEYS: &[&str] = &["access_key_id", "secret_access_key"];
const S3_KEYS: &[&str] = &["access_key_id", "secret_access_key", "session_token"];
const HMAC: &[&str] = &["access_id", "secret_access_key"];
const CONFIG_FILE: &str = "mount_strategy.pattern.config_file_path";

/// `None`: no credentials can be used this way.
fn capability(mount: &Mount) -> Option<Capability> {
    let strategy = &mount.common.mount_strategy;
    let own = matches!(strategy, MountStrategy::InContainer { .. });
    let base = Capability::default();
    Some(match (strategy, strategy.pattern(), &mount.provider) {
        (_, Some(Pattern::Rclone(_)), provider) => match provider {
            Provider::S3(_) => Capability { scoped: S3_KEYS, broad: &[CONFIG_FILE], ..base },
            Provider::R2(_) => Capability { scoped: KEYS, broad: &[CONFIG_FILE], ..base },
            Provider::Gcs(_) => Capability {
                scoped: &["access_id", "secret_access_key", "service_account_credentials", "access_token"],
                broad: &["service_account_file", CONFIG_FILE],
                ..base
            },
            Provider::AzureBlob(_) => {
                Capability { scoped: &["account_key"], broad: &["identity_client_id", CONFIG_FILE], ..base }
            }
            Provider::Box(_) => Capability {
                scoped: &["client_secret", "access_token", "token", "config_credentials"],
                broad: &["box_config_file", CONFIG_FILE],
                any_of: &["access_token", "token", "config_credentials", "box_config_file"],
                ..base
            },
            _ => return None,
        },
        (_, Some(Pattern::Mountpoint(_)), Provider::S3(_)) if own => Capability { scoped: S3_KEYS, ..base },
        (_, Some(Pattern::Mountpoint(_)), Provider::Gcs(_)) if own => Capability { scoped: HMAC, ..base },
        (_, Some(Pattern::Fuse(_)), Provider::AzureBlob(_)) if own => {
            Capability { scoped: &["account_key"], broad: &["identity_client_id"], discovers: true, ..base }
        }
        (_, Some(Pattern::S3Files { .. }), Provider::S3Files(_)) if own => Capability {
            broad: &["extra_options", "mount_strategy.pattern.options.extra_options"],
            discovers: true,
            ..base
        },
        (MountStrategy::VercelCloudBucket {} | MountStrategy::BlaxelCloudBucket {}, _, Provider::S3(_)) => {
            Capability { scoped: S3_KEYS, ..base }
        }
        (MountStrategy::BlaxelCloudBucket {}, _, Provider::R2(_)) => Capability { scoped: KEYS, ..base },
        (MountStrategy::BlaxelCloudBucket {}, _, Provider::Gcs(_)) => {
            Capability { scoped: &["access_id", "secret_access_key", "service_account_credentials"], ..base }
        }
        _ => return None,
    })
}

/// All problems of one mount.
pub(crate) fn check(manifest: &Manifest, located: &Located<'_>, mount: &Mount, found: &mut Vec<Problem>) {
    let at = &located.at;
    if let Some(path) = &mount.common.mount_path {
        let relative = path.strip_prefix('/').unwrap_or(path);
        if let Err(error) = RelPath::parse(relative) {
            let problem = Problem::new(member(at, "mount_path"), format!("{error}: {path}"));
            found.push(problem.hint(crate::validate::path_hint(error)));
        }
    }
    if let Ok(value) = serde_json::to_value(mount) {
        check_texts(&value, at, found);
    }
    check_files(manifest, mount, at, found);
    let vercel = matches!(mount.common.mount_strategy, MountStrategy::VercelCloudBucket {});
    if vercel && !located.entry.ephemeral {
        let wrong = Problem::new(member(at, "ephemeral"), "Vercel keeps no mount in a snapshot");
        found.push(wrong.hint("remove it"));
    }
    if mount.common.mount_strategy.is_inside() {
        check_sets(mount, at, found);
        check_exposure(manifest, located, mount, found);
    }
}

/// Texts of a mount that would end in a helper's configuration.
fn check_texts(value: &Value, at: &str, found: &mut Vec<Problem>) {
    match value {
        Value::String(text) if text.contains(['\n', '\r', '\0']) => {
            found.push(Problem::new(at, "a mount's values cannot hold line breaks"));
        }
        Value::Object(map) => {
            let blaxel =
                map.get("mount_strategy").is_some_and(|strategy| strategy["type"] == "blaxel_cloud_bucket");
            for (key, value) in map {
                let at = member(at, key);
                let url = matches!(key.as_str(), "endpoint_url" | "endpoint" | "custom_domain");
                if url && value.as_str().is_some_and(|text| text.contains(['@', '?'])) {
                    let wrong = Problem::new(&at, "an endpoint cannot carry credentials or a query");
                    found.push(wrong.hint("write scheme, host and path alone"));
                }
                let option = url || matches!(key.as_str(), "region" | "account_id");
                if blaxel && option && value.as_str().is_some_and(|text| text.contains(',')) {
                    found.push(Problem::new(&at, "this would be several options, for its ','"));
                }
                check_texts(value, &at, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_texts(item, &format!("{at}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// A file with credentials that the manifest itself brings along.
fn check_files(manifest: &Manifest, mount: &Mount, at: &str, found: &mut Vec<Problem>) {
    let config = match mount.common.mount_strategy.pattern() {
        Some(Pattern::Rclone(rclone)) => rclone.config_file_path.as_deref(),
        _ => None,
    };
    let own = mount.provider.credentials().into_iter();
    let own = own.filter(|(field, _)| matches!(*field, "service_account_file" | "box_config_file"));
    for (field, file) in own.chain([(CONFIG_FILE, config)]) {
        let Some(file) = file.filter(|file| !file.is_empty()) else { continue };
        let file = absolute(&manifest.root, file);
        let brought = manifest.located().into_iter().any(|located| {
            let directory = match &located.entry.kind {
                EntryKind::Dir(_) => true,
                EntryKind::LocalDir(dir) => dir.src.is_none(),
                _ => false,
            };
            let place = located.path.map(|path| absolute(&manifest.root, path.as_str()));
            let around = place.is_some_and(|place| {
                file.strip_prefix(&place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            around && !directory
        });
        if brought {
            let wrong =
                Problem::new(format!("{at}.{field}"), "the manifest itself holds this credential file");
            found.push(wrong.hint("keep it outside of the manifest"));
        }
    }
}

/// Credentials that are blank, or half of a pair.
fn check_sets(mount: &Mount, at: &str, found: &mut Vec<Problem>) {
    let credentials = mount.provider.credentials();
    for (field, value) in &credentials {
        if value.is_some_and(|value| value.trim().is_empty()) {
            found.push(Problem::new(member(at, field), "this credential is blank").hint("leave it out"));
        }
    }
    let (pair, more) = match mount.provider {
        Provider::S3(_) => (KEYS, Some("session_token")),
        Provider::R2(_) => (KEYS, None),
        Provider::Gcs(_) => (HMAC, None),
        _ => return,
    };
    let set = |name: &str| credentials.iter().any(|(field, value)| *field == name && value.is_some());
    if pair.iter().copied().chain(more).any(set) {
        for missing in pair.iter().filter(|name| !set(name)) {
            let wrong =
                Problem::new(member(at, missing), "it is missing, and the others are of no use without it");
            found.push(wrong.hint(format!("{} belong together", pair.join(" and "))));
        }
    }
}

fn check_exposure(manifest: &Manifest, located: &Located<'_>, mount: &Mount, found: &mut Vec<Problem>) {
    let at = &located.at;
    let Some(target) = manifest.mount_target(located, mount) else { return };
    let scoped = manifest.acknowledges(Reach::Mount, &target);
    let broad = manifest.acknowledges(Reach::Broad, &target);
    let fields = authority(mount);
    let Some(capability) = capability(mount) else {
        if !fields.is_empty() || scoped || broad {
            let wrong = Problem::new(at, "no credentials can be used with this type and strategy");
            found.push(wrong.hint("leave them out, or use a strategy that mounts from outside the sandbox"));
        }
        return;
    };
    if !capability.any_of.is_empty() && !capability.any_of.iter().any(|field| fields.contains(field)) {
        let wrong = Problem::new(at, "nobody could log in: this mount needs a credential");
        found.push(wrong.hint(format!("give one of {}", capability.any_of.join(", "))));
    }
    for field in &fields {
        let (acknowledged, call) = if capability.scoped.contains(field) {
            (scoped, "acknowledge_exposure")
        } else if capability.broad.contains(field) {
            (broad, "acknowledge_broad_exposure")
        } else {
            let wrong = Problem::new(format!("{at}.{field}"), "it cannot be used with this strategy");
            found.push(wrong.hint("leave it out, or use another strategy"));
            continue;
        };
        if !acknowledged {
            let message = "this credential would be inside the sandbox, where commands can read it";
            found.push(Problem::new(format!("{at}.{field}"), message).hint(format!(
                "leave it out, use a strategy that mounts from outside the sandbox, or allow it in code ({call})"
            )));
        }
    }
    if capability.discovers && !broad {
        let message = "this helper finds credentials of its machine by itself, and commands could use it";
        found.push(Problem::new(format!("{at}.mount_strategy.pattern"), message).hint(
            "use a strategy that mounts from outside the sandbox, or allow it in code (acknowledge_broad_exposure)",
        ));
    }
    let unused = [
        (scoped && capability.scoped.is_empty(), "credentials of its own"),
        (broad && capability.broad.is_empty() && !capability.discovers, "credentials that open more"),
    ];
    for (_, what) in unused.into_iter().filter(|(unused, _)| *unused) {
        let wrong =
            Problem::new(at, format!("it was acknowledged that this mount exposes {what}, and it has none"));
        found.push(wrong.hint("remove the acknowledgement"));
    }
}

/// The fields of a mount that hold a credential, say where one is, or may do so.
fn authority(mount: &Mount) -> Vec<&'static str> {
    let credentials = mount.provider.credentials().into_iter();
    let mut fields: Vec<_> =
        credentials.filter(|(_, value)| value.is_some()).map(|(field, _)| field).collect();
    match mount.common.mount_strategy.pattern() {
        Some(Pattern::Rclone(rclone)) => {
            let unsafe_name = |name: &String| {
                let odd = |char: char| !(char.is_ascii_alphanumeric() || "_. -".contains(char));
                name.starts_with([' ', '.', '-']) || name.ends_with(' ') || name.contains(odd)
            };
            if rclone.remote_name.as_ref().is_some_and(unsafe_name) {
                fields.push("mount_strategy.pattern.remote_name");
            }
            if rclone.config_file_path.is_some() {
                fields.push(CONFIG_FILE);
            }
            if !harmless(rclone) {
                fields.push("mount_strategy.pattern.extra_args");
            }
        }
        Some(Pattern::S3Files { options }) if !options.extra_options.is_empty() => {
            fields.push("mount_strategy.pattern.options.extra_options");
        }
        _ => {}
    }
    match &mount.provider {
        Provider::S3Files(files) if !files.extra_options.is_empty() => fields.push("extra_options"),
        _ => {}
    }
    fields
}

/// Whether rclone's further arguments are among the few that open nothing.
fn harmless(rclone: &Rclone) -> bool {
    let mut arguments = rclone.extra_args.iter().peekable();
    while let Some(argument) = arguments.next() {
        let Some(option) = argument.strip_prefix('-') else { return false };
        let option = option.trim_start_matches('-');
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let good = match name.to_lowercase().replace('_', "-").as_str() {
            "allow-other" => value.is_none(),
            "buffer-size" | "gid" | "uid" => match value {
                Some(value) => !value.is_empty(),
                None => arguments.next_if(|next| !next.starts_with('-')).is_some(),
            },
            _ => false,
        };
        if !good {
            return false;
        }
    }
    true
}

/// A path below the root, or an absolute one, without `.` and `..`.
fn absolute(root: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{root}/{path}") };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}
