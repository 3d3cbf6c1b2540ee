//! Harbor tasks: the environment that an agent gets. What a task says about its graders and its solution is not for
//! the agent, and stays where it is.

use serde_json::Value;

use super::Converted;
use super::taker::{Taker, leave};
use crate::extension::{AllowRule, Cpu, HostPattern, Image, ImageBuild, Network, Output, Seconds, Size};
use crate::path::posix;
use crate::{EnvVar, Format, Manifest, ManifestError, Problem};

/// A task's folder, as far as it was looked at.
#[derive(Debug, Clone, Default)]
pub struct HarborTask {
    /// The text of `task.toml`.
    pub config: String,
    /// The folder `environment`, as the manifest is to name it.
    pub environment: String,
    /// The text of `environment/Dockerfile`, where there is one.
    pub dockerfile: Option<String>,
    /// What else the folder holds, by name.
    pub others: Vec<String>,
}

/// A manifest from a Harbor task.
///
/// # Errors
/// [`ManifestError::Syntax`] for what is no TOML.
pub fn from_harbor(task: &HarborTask) -> Result<Converted<Manifest>, ManifestError> {
    let (value, _) = Format::Toml.parse(&task.config)?;
    let Value::Object(map) = value else {
        return Ok(Converted { value: Manifest::default(), left_out: Vec::new() });
    };
    let mut from = Taker::new(map, "");
    let mut left_out = Vec::new();
    let mut manifest = Manifest::default();
    // Which version of the form it is says nothing about the workspace.
    for key in ["schema_version", "version"] {
        from.any(key);
    }

    let mut environment = from.object("environment");
    let workdir = environment.text("workdir").or_else(|| task.dockerfile.as_deref().and_then(workdir));
    match workdir.map(|path| posix(&path)).filter(|path| path.starts_with('/') && path != "/") {
        Some(workdir) => manifest.root = workdir,
        None => leave(
            &mut left_out,
            "environment.workdir",
            "it is not said which directory the image works in",
            "set 'root' to it",
        ),
    }
    let extension = &mut manifest.extension;
    extension.image = match environment.text("docker_image") {
        Some(name) => Some(Image::Name(name)),
        None => task.dockerfile.is_some().then(|| {
            Image::Build(ImageBuild {
                context: task.environment.clone(),
                dockerfile: "Dockerfile".to_owned(),
                args: indexmap::IndexMap::new(),
                target: None,
            })
        }),
    };
    extension.resources.cpu = environment.number("cpus").and_then(|count| {
        let cpus = Cpu::from_cpus(count);
        if cpus.is_none() {
            leave(&mut left_out, "environment.cpus", &format!("{count} is no number of processors"), "");
        }
        cpus
    });
    extension.resources.memory = size(&mut environment, "memory", &mut left_out);
    extension.resources.disk = size(&mut environment, "storage", &mut left_out);
    let mut agent = from.object("agent");
    if let Some(seconds) = agent.number("timeout_sec") {
        extension.resources.wall_clock = Seconds::new(seconds.ceil() as u64);
        if extension.resources.wall_clock.is_none() {
            leave(&mut left_out, "agent.timeout_sec", &format!("{seconds} is no length of time"), "");
        }
    }
    // What holds while the agent works.
    let own = agent.has("network_mode");
    let baseline = network(&mut environment, &mut left_out);
    extension.network = Some(if own { network(&mut agent, &mut left_out) } else { baseline });
    if own {
        leave(&mut left_out, "environment.network_mode", "the agent's own network holds instead", "");
    }
    for (at, name, value) in environment.object("env").entries() {
        match value.as_str().filter(|value| !value.contains("${")) {
            Some(value) => drop(manifest.environment.value.insert(name, EnvVar::Plain(value.to_owned()))),
            None => leave(
                &mut left_out,
                at,
                "its value comes from the host",
                "write it into 'environment', or for a secret its name below x-mooring.secrets",
            ),
        }
    }
    for artifact in from.list("artifacts") {
        let place = artifact.as_str().or_else(|| artifact["source"].as_str()).unwrap_or_default();
        let whole =
            if place.starts_with('/') { posix(place) } else { posix(&format!("{}/{place}", manifest.root)) };
        match whole.strip_prefix(&manifest.root).and_then(|rest| rest.strip_prefix('/')) {
            Some(below) => {
                manifest.extension.outputs.push(Output { required: false, ..Output::new(below) });
            }
            None => {
                leave(&mut left_out, "artifacts", &format!("{artifact} is not below {}", manifest.root), "");
            }
        }
    }
    if environment.text("os").is_some_and(|os| !os.eq_ignore_ascii_case("linux")) {
        leave(&mut left_out, "environment.os", "sandboxes are Linux", "");
    }
    agent.rest(&mut left_out);
    environment.rest(&mut left_out);
    for key in ["verifier", "solution", "steps", "multi_step_reward_strategy"] {
        if from.has(key) {
            from.any(key);
            leave(&mut left_out, key, "it is about grading, which a workspace knows nothing of", "");
        }
    }
    from.rest(&mut left_out);
    for name in &task.others {
        let (why, hint) = match name.as_str() {
            "instruction.md" => ("it is what the agent is asked", "give its text as the prompt"),
            "tests" | "solution" | "steps" => ("it is not for the agent", ""),
            "environment/docker-compose.yaml" => ("other services are not started", ""),
            name if name.starts_with("environment/") => continue,
            _ => ("it is no part of the environment", ""),
        };
        leave(&mut left_out, format!("({name})"), why, hint);
    }
    Ok(Converted { value: manifest, left_out })
}

/// `…_mb`, or the older text such as `2G`.
fn size(from: &mut Taker, key: &str, left_out: &mut Vec<Problem>) -> Option<Size> {
    let mebibytes = from.number(&format!("{key}_mb")).map(|count| (count * f64::from(1 << 20)) as u64);
    let text = from.text(key);
    let old = text.as_deref().and_then(|text| {
        let text = text.trim().to_ascii_uppercase();
        let unit = text.chars().last()?;
        let factor = match unit {
            'G' => 1_u64 << 30,
            'M' => 1 << 20,
            'K' => 1 << 10,
            _ => return None,
        };
        Some((text.trim_end_matches(unit).parse::<f64>().ok()? * factor as f64) as u64)
    });
    if let (Some(text), None) = (&text, old) {
        leave(left_out, from.at(key), &format!("'{text}' is no size"), "");
    }
    mebibytes.or(old).and_then(Size::from_bytes)
}

fn network(from: &mut Taker, left_out: &mut Vec<Problem>) -> Network {
    let internet = from.flag("allow_internet");
    let mode = from.text("network_mode");
    let hosts = from.texts("allowed_hosts").unwrap_or_default();
    match mode.as_deref() {
        Some("no-network") => Network::Deny,
        Some("allowlist") => allowed(&hosts, &from.at("allowed_hosts"), left_out),
        None if internet == Some(false) => Network::Deny,
        None | Some("public") => Network::Unrestricted,
        Some(other) => {
            leave(
                left_out,
                from.at("network_mode"),
                &format!("'{other}' is no mode; nothing is allowed"),
                "",
            );
            Network::Deny
        }
    }
}

/// The hosts as rules; nothing is allowed where there is none that can be said.
pub(super) fn allowed(hosts: &[String], at: &str, left_out: &mut Vec<Problem>) -> Network {
    let mut rules: Vec<AllowRule> = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        match HostPattern::parse(host.trim().trim_end_matches('.')) {
            Ok(pattern) => {
                let rule = AllowRule::host(pattern);
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
            Err(error) => leave(left_out, format!("{at}[{index}]"), &error.to_string(), ""),
        }
    }
    if rules.is_empty() { Network::Deny } else { Network::Allow(rules) }
}

/// The last `WORKDIR` of a build file, where it is absolute and plain.
fn workdir(dockerfile: &str) -> Option<String> {
    let mut named = dockerfile.lines().rev().filter_map(|line| {
        let (word, path) = line.trim().split_once(char::is_whitespace)?;
        word.eq_ignore_ascii_case("WORKDIR").then(|| path.trim().trim_matches('"').to_owned())
    });
    named.next().filter(|path| path.starts_with('/') && !path.contains('$'))
}
