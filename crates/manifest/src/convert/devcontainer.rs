//! Dev containers: image, set-up, ports, variables and the project itself. What belongs to editors, to Docker's own
//! options and to the developer's machine has no counterpart.

use indexmap::IndexMap;
use jsonc_parser::ParseOptions;
use serde_json::{Map, Value};

use super::taker::{Taker, leave};
use super::{Converted, quoted};
use crate::extension::{Cpu, Image, ImageBuild, SetupCommand, Size};
use crate::path::posix;
use crate::{Entry, EntryKind, EnvVar, Format, LocalDir, Manifest, ManifestError, Problem};

/// The project that a dev container is for.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its name, which is the name of its directory.
    pub name: String,
    /// Its directory, as the manifest is to name it.
    pub src: String,
    /// The directory that `devcontainer.json` is in, relative to the project's: `.devcontainer`, or empty.
    pub config: String,
}

/// A manifest from a `devcontainer.json`.
///
/// # Errors
/// [`ManifestError::Syntax`] for what is no JSON with comments, [`ManifestError::Structure`] for what is no object.
pub fn from_devcontainer(text: &str, project: &Project) -> Result<Converted<Manifest>, ManifestError> {
    let mut map = parse(text)?;
    map.shift_remove("$schema");
    let mut from = Taker::new(map, "");
    let mut left_out = Vec::new();
    let mut manifest = Manifest::default();

    let folder = from.text("workspaceFolder").unwrap_or_else(|| format!("/workspaces/{}", project.name));
    let folder = posix(&expand(&folder, project, ""));
    let (root, name) = folder.rsplit_once('/').unwrap_or(("", &folder));
    manifest.root = if root.is_empty() { "/workspaces".to_owned() } else { root.to_owned() };
    let src = Some(project.src.clone());
    manifest.entries.insert(name.to_owned(), Entry::new(EntryKind::LocalDir(LocalDir { src })));

    let extension = &mut manifest.extension;
    extension.image = image(&mut from, project, &mut left_out);
    for key in ["onCreateCommand", "updateContentCommand", "postCreateCommand"] {
        let Some(value) = from.any(key) else { continue };
        let mut found = Vec::new();
        if !lines(&value, &mut found) {
            leave(&mut left_out, key, "a part of it is no command", "");
        }
        for line in found {
            let mut command = SetupCommand::new(line);
            command.cwd = Some(name.to_owned());
            extension.setup.push(command);
        }
    }
    for key in ["forwardPorts", "appPort"] {
        let ports = match from.any(key) {
            Some(Value::Array(ports)) => ports,
            Some(port) => vec![port],
            None => continue,
        };
        for (index, port) in ports.into_iter().enumerate() {
            match port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0) {
                Some(port) if extension.ports.contains(&port) => {}
                Some(port) => extension.ports.push(port),
                None => {
                    let at = format!("{key}[{index}]");
                    leave(&mut left_out, at, &format!("{port} is no port of the sandbox itself"), "");
                }
            }
        }
    }
    let mut needs = from.object("hostRequirements");
    let limit = |at: String, left_out: &mut Vec<Problem>| {
        leave(left_out, at, "it asked for at least that much; the manifest allows at most that much", "");
    };
    if let Some(count) = needs.number("cpus") {
        extension.resources.cpu = Cpu::from_cpus(count);
        match extension.resources.cpu {
            Some(_) => limit(needs.at("cpus"), &mut left_out),
            None => {
                leave(&mut left_out, needs.at("cpus"), &format!("{count} is no number of processors"), "");
            }
        }
    }
    for (key, place) in
        [("memory", &mut extension.resources.memory), ("storage", &mut extension.resources.disk)]
    {
        if let Some(size) = needs.text(key) {
            match size_of(&size) {
                Some(size) => {
                    *place = Some(size);
                    limit(needs.at(key), &mut left_out);
                }
                None => leave(&mut left_out, needs.at(key), &format!("'{size}' is no size"), ""),
            }
        }
    }
    needs.rest(&mut left_out);
    for key in ["containerEnv", "remoteEnv"] {
        for (at, name, value) in from.object(key).entries() {
            let value = value.as_str().map(|value| expand(value, project, &folder));
            match value.filter(|value| !value.contains("${")) {
                Some(value) => drop(manifest.environment.value.insert(name, EnvVar::Plain(value))),
                None => leave(
                    &mut left_out,
                    at,
                    "it depends on the developer's machine or on the container",
                    "write the value into 'environment', or for a secret its name below x-mooring.secrets",
                ),
            }
        }
    }
    for (key, why, hint) in [
        (
            "features",
            "features are not installed",
            "install what they bring in the image, or in x-mooring.setup",
        ),
        ("initializeCommand", "it would run on the host", ""),
        ("postStartCommand", "it runs at every start, and set-up runs once", "have the agent run it"),
        ("postAttachCommand", "it runs when an editor connects", ""),
        ("secrets", "where a secret may go is not said", "say it below x-mooring.secrets"),
        ("mounts", "mounts of Docker are not taken over", "copy what is needed with a local_dir entry"),
        ("privileged", "a sandbox is never privileged", ""),
        ("runArgs", "they are Docker's own options", ""),
        (
            "dockerComposeFile",
            "other services are not started",
            "name the image of this service below x-mooring.image",
        ),
    ] {
        if from.has(key) {
            from.any(key);
            leave(&mut left_out, key, why, hint);
        }
    }
    from.rest(&mut left_out);
    leave(
        &mut left_out,
        "network",
        "a dev container reaches everything, and the manifest says nothing about it",
        "say below x-mooring.network what is needed",
    );
    Ok(Converted { value: manifest, left_out })
}

fn parse(text: &str) -> Result<Map<String, Value>, ManifestError> {
    let parsed = jsonc_parser::parse_to_serde_value::<Value>(text, &ParseOptions::default());
    match parsed {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => {
            Err(ManifestError::Structure(vec![Problem::new("", "a devcontainer.json must be an object")]))
        }
        Err(error) => Err(ManifestError::Syntax {
            format: Format::Json,
            line: error.line_display(),
            column: error.column_display(),
            message: error.kind().to_string(),
        }),
    }
}

fn image(from: &mut Taker, project: &Project, left_out: &mut Vec<Problem>) -> Option<Image> {
    let mut build = from.object("build");
    let dockerfile = build.text("dockerfile").or_else(|| from.text("dockerFile"));
    let context = build.text("context").or_else(|| from.text("context")).unwrap_or_else(|| ".".to_owned());
    let mut args = IndexMap::new();
    for (at, name, value) in build.object("args").entries() {
        match value {
            Value::String(value) => drop(args.insert(name, value)),
            _ => leave(left_out, at, "it is no text", ""),
        }
    }
    let target = build.text("target");
    build.rest(left_out);
    let name = from.text("image").map(Image::Name);
    let Some(dockerfile) = dockerfile else { return name };
    // Both are relative to the file that names them; here the build file is relative to the context.
    let below = |path: &str| lexical(&format!("{}/{path}", project.config));
    let (Some(context), Some(dockerfile)) = (below(&context), below(&dockerfile)) else {
        leave(left_out, "build", "it is outside of the project", "move it into the project's directory");
        return name;
    };
    let inner = match context.as_str() {
        "" => Some(dockerfile.as_str()),
        context => dockerfile.strip_prefix(context).and_then(|rest| rest.strip_prefix('/')),
    };
    let Some(inner) = inner else {
        leave(left_out, "build.dockerfile", "it is outside of the build's context", "move it there");
        return name;
    };
    let context =
        if context.is_empty() { project.src.clone() } else { posix(&format!("{}/{context}", project.src)) };
    Some(Image::Build(ImageBuild { context, dockerfile: inner.to_owned(), args, target }))
}

/// The command lines of a lifecycle script, and whether all of it is understood. Those that may run side by side run
/// one after the other.
fn lines(value: &Value, found: &mut Vec<String>) -> bool {
    match value {
        Value::String(line) if line.trim().is_empty() => true,
        Value::String(line) => {
            found.push(line.clone());
            true
        }
        Value::Array(words) => {
            let quoted: Option<Vec<String>> = words.iter().map(|word| word.as_str().map(quoted)).collect();
            found.extend(quoted.iter().filter(|words| !words.is_empty()).map(|words| words.join(" ")));
            quoted.is_some()
        }
        Value::Object(commands) => {
            let odd = commands.values().filter(|command| !lines(command, found)).count();
            odd == 0
        }
        _ => false,
    }
}

/// `4gb` and the like, which count in 1024.
fn size_of(text: &str) -> Option<Size> {
    let text = text.to_ascii_lowercase();
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => "B",
        "kb" => "KiB",
        "mb" => "MiB",
        "gb" => "GiB",
        "tb" => "TiB",
        _ => return None,
    };
    format!("{digits}{unit}").parse().ok()
}

/// The variables whose values are known.
fn expand(text: &str, project: &Project, folder: &str) -> String {
    text.replace("${localWorkspaceFolderBasename}", &project.name)
        .replace("${containerWorkspaceFolderBasename}", folder.rsplit('/').next().unwrap_or_default())
        .replace("${containerWorkspaceFolder}", folder)
}

/// A path below the project without `.` and `..`; `None` where it leaves.
fn lexical(path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}
