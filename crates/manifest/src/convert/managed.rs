//! Environments of Claude Managed Agents: packages and a network, and nothing else. Files and repositories are given
//! to each of their sessions, not to an environment.

use serde_json::{Map, Value, json};

use super::harbor::allowed;
use super::taker::{Taker, leave};
use super::{Converted, quoted};
use crate::extension::{AllowRule, Network, SetupCommand};
use crate::problem::member;
use crate::read::ADDITIONS;
use crate::{Format, Manifest, ManifestError, Problem};

/// The package managers, in the order that they run in, and the command that installs.
const MANAGERS: [(&str, &str); 6] = [
    ("apt", "apt-get update && apt-get install -y --no-install-recommends"),
    ("cargo", "cargo install"),
    ("gem", "gem install"),
    ("go", "go install"),
    ("npm", "npm install -g"),
    ("pip", "pip install"),
];

/// What their managers reach.
const REGISTRIES: [&str; 14] = [
    "archive.ubuntu.com",
    "crates.io",
    "deb.debian.org",
    "files.pythonhosted.org",
    "index.crates.io",
    "index.rubygems.org",
    "ports.ubuntu.com",
    "proxy.golang.org",
    "pypi.org",
    "registry.npmjs.org",
    "rubygems.org",
    "security.ubuntu.com",
    "static.crates.io",
    "sum.golang.org",
];

/// A manifest from an environment, as JSON or YAML: as it is created, as it is returned, or its `config` alone.
///
/// # Errors
/// [`ManifestError::Syntax`] for what is neither, [`ManifestError::Structure`] for what is no environment.
pub fn from_managed_agents(text: &str, format: Format) -> Result<Converted<Manifest>, ManifestError> {
    let wrong = |at: &str, message: String| ManifestError::Structure(vec![Problem::new(at, message)]);
    let (value, _) = format.parse(text)?;
    let Value::Object(map) = value else {
        return Err(wrong("", "an environment must be an object".to_owned()));
    };
    let mut left_out = Vec::new();
    let mut from = Taker::new(map, "");
    let mut config = if from.has("config") {
        from.object("config")
    } else {
        std::mem::replace(&mut from, Taker::new(Map::new(), ""))
    };
    // What the service itself says about the object.
    for key in ["type", "id", "created_at", "updated_at", "archived_at"] {
        from.any(key);
    }
    let mut manifest = Manifest::default();
    match config.text("type").as_deref() {
        Some("cloud") => {}
        Some("self_hosted") => leave(
            &mut left_out,
            config.at("type"),
            "a self-hosted environment says nothing about its compute",
            "",
        ),
        other => {
            let found = other.map_or("missing".to_owned(), |other| format!("'{other}'"));
            return Err(wrong(
                &config.at("type"),
                format!("it is {found}, and must be 'cloud' or 'self_hosted'"),
            ));
        }
    }
    let mut networking = config.object("networking");
    manifest.extension.network = match networking.text("type").as_deref() {
        None => None,
        Some("unrestricted") => Some(Network::Unrestricted),
        Some("limited") => {
            let mut hosts = networking.texts("allowed_hosts").unwrap_or_default();
            let at = networking.at("allowed_hosts");
            if networking.flag("allow_package_managers") == Some(true) {
                hosts.extend(REGISTRIES.map(str::to_owned));
            }
            if networking.flag("allow_mcp_servers") == Some(true) {
                let why = "MCP servers are reached from outside of the sandbox";
                leave(&mut left_out, networking.at("allow_mcp_servers"), why, "");
            }
            Some(allowed(&hosts, &at, &mut left_out))
        }
        Some(other) => {
            return Err(wrong(
                &networking.at("type"),
                format!("'{other}' is neither 'unrestricted' nor 'limited'"),
            ));
        }
    };
    networking.rest(&mut left_out);
    let mut packages = config.object("packages");
    packages.any("type");
    for (manager, install) in MANAGERS {
        let names = packages.texts(manager).unwrap_or_default();
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            manifest.extension.setup.push(SetupCommand::new(format!("{install} {}", names.join(" "))));
        }
    }
    packages.rest(&mut left_out);
    config.rest(&mut left_out);
    from.rest(&mut left_out);
    Ok(Converted { value: manifest, left_out })
}

/// An environment from a manifest, as it is created.
pub fn to_managed_agents(manifest: &Manifest, name: &str) -> Converted<Value> {
    let mut left_out = Vec::new();
    let extension = &manifest.extension;
    let mut packages = Map::new();
    for (index, command) in extension.setup.iter().enumerate() {
        match installed(command) {
            Some((manager, mut names)) => {
                let list = packages.entry(manager).or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    list.append(&mut names);
                }
            }
            None => {
                let at = format!("{ADDITIONS}.setup[{index}]");
                leave(&mut left_out, at, "an environment installs packages, and runs no other commands", "");
            }
        }
    }
    let networking = match &extension.network {
        Some(Network::Unrestricted) => json!({ "type": "unrestricted" }),
        None | Some(Network::Deny) => limited(&[], false),
        Some(Network::Allow(rules)) => {
            let plain: Vec<String> = rules
                .iter()
                .filter(|rule| **rule == AllowRule::host(rule.host.clone()))
                .map(|rule| rule.host.to_string())
                .collect();
            let managers = REGISTRIES.iter().all(|registry| plain.iter().any(|host| host == registry));
            for (index, rule) in
                rules.iter().enumerate().filter(|(_, rule)| !plain.contains(&rule.host.to_string()))
            {
                let at = format!("{ADDITIONS}.network.allow[{index}]");
                let why = format!("a part of '{}' cannot be allowed, and all of it is not", rule.host);
                leave(&mut left_out, at, &why, "");
            }
            let hosts: Vec<String> =
                plain.into_iter().filter(|host| !managers || !REGISTRIES.contains(&host.as_str())).collect();
            limited(&hosts, managers)
        }
    };
    if !packages.is_empty() && networking["allow_package_managers"] == false {
        packages = Map::new();
        leave(
            &mut left_out,
            format!("{ADDITIONS}.setup"),
            "packages cannot be installed where the network allows no registry",
            "allow them, or build an image",
        );
    }
    let mut config = json!({ "type": "cloud", "networking": networking });
    if !packages.is_empty() {
        config["packages"] = Value::Object(packages);
    }
    others(manifest, &mut left_out);
    Converted { value: json!({ "name": name, "config": config }), left_out }
}

fn limited(hosts: &[String], managers: bool) -> Value {
    json!({ "type": "limited", "allowed_hosts": hosts, "allow_package_managers": managers, "allow_mcp_servers": false })
}

/// The packages that a command installs, where it does nothing else.
fn installed(command: &SetupCommand) -> Option<(String, Vec<Value>)> {
    if command.cwd.is_some() {
        return None;
    }
    let (manager, rest) = MANAGERS.iter().find_map(|(manager, install)| {
        Some((manager, command.run.strip_prefix(install)?.strip_prefix(' ')?))
    })?;
    let names: Vec<&str> = rest.split(' ').collect();
    // Words that a shell takes as they are, and no options.
    let plain = |name: &&str| quoted(name) == **name && !name.starts_with('-');
    names.iter().all(plain).then(|| ((*manager).to_owned(), names.into_iter().map(Value::from).collect()))
}

/// All that an environment does not have.
fn others(manifest: &Manifest, left_out: &mut Vec<Problem>) {
    let value = manifest.to_value();
    let usual = Manifest::default().to_value();
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        match key.as_str() {
            "entries" => {
                for name in manifest.entries.keys() {
                    let why = "an environment has no files";
                    let hint = "give files and repositories to its sessions, as resources";
                    leave(left_out, member("entries", name), why, hint);
                }
            }
            "environment" => {
                for name in manifest.environment.value.keys() {
                    leave(left_out, member("environment.value", name), "an environment has no variables", "");
                }
            }
            ADDITIONS => {
                let Value::Object(additions) = value else { continue };
                for key in additions.keys().filter(|key| !matches!(key.as_str(), "network" | "setup")) {
                    leave(left_out, member(ADDITIONS, key), "an environment has no place for it", "");
                }
            }
            key if usual.get(key) != Some(&value) => {
                leave(left_out, key, "an environment has no place for it", "");
            }
            _ => {}
        }
    }
}
