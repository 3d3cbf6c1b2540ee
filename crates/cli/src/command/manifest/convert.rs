//! `moor manifest import` and `moor manifest export`: which file is which form, and what is told.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mooring_manifest::convert::{
    Converted, HarborTask, Project, from_devcontainer, from_harbor, from_managed_agents, to_managed_agents,
};
use mooring_manifest::{Format, Manifest, ManifestError, Problem};

use crate::agent_file::{directory, read_manifest};
use crate::args::{ManifestExportArgs, ManifestImportArgs};
use crate::command_error::CommandError;
use crate::home::absolute;

/// Where a project keeps its dev container.
const DEV_CONTAINERS: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];

pub(super) fn import(args: &ManifestImportArgs) -> Result<ExitCode, CommandError> {
    let converted = read(&args.source)?;
    let wrong = |error: ManifestError| CommandError::input(format!("{}: {error}", args.source.display()));
    converted.value.validate().map_err(|problems| wrong(ManifestError::Invalid(problems)))?;
    let usual = Manifest::default().to_value();
    let mut value = converted.value.to_value();
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, value| key == "version" || usual.get(key) != Some(value));
    }
    tell(&value, &converted.left_out)
}

pub(super) fn export(args: &ManifestExportArgs) -> Result<ExitCode, CommandError> {
    let (manifest, _) = read_manifest(&args.file)?;
    let own = || args.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let converted = to_managed_agents(&manifest, &args.name.clone().unwrap_or_else(own));
    tell(&converted.value, &converted.left_out)
}

/// The result on standard output, and what is not in it beside it.
fn tell(value: &serde_json::Value, left_out: &[Problem]) -> Result<ExitCode, CommandError> {
    crate::view::line(&format!("{value:#}"))?;
    for problem in left_out {
        crate::view::note(&format!("left out: {problem}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn read(source: &Path) -> Result<Converted<Manifest>, CommandError> {
    let wrong = |error: ManifestError| CommandError::input(format!("{}: {error}", source.display()));
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    if source.is_dir() {
        if source.join("task.toml").exists() {
            return harbor(source);
        }
        return match DEV_CONTAINERS.iter().map(|file| source.join(file)).find(|file| file.exists()) {
            Some(file) => dev_container(&file),
            None => Err(CommandError::input(format!(
                "{}: it holds neither a task.toml nor a devcontainer.json",
                source.display()
            ))),
        };
    }
    if name == "task.toml" {
        return harbor(&directory(source)?);
    }
    if name.ends_with("devcontainer.json") {
        return dev_container(source);
    }
    let format = Format::from_path(source).map_err(wrong)?;
    from_managed_agents(&text(source)?, format).map_err(wrong)
}

fn dev_container(file: &Path) -> Result<Converted<Manifest>, CommandError> {
    let folder = directory(file)?;
    // The project is around the directory for dev containers, which may hold one for each of several.
    let around = folder.ancestors().find(|folder| folder.ends_with(".devcontainer")).and_then(Path::parent);
    let project = around.unwrap_or(&folder);
    let config = folder.strip_prefix(project).unwrap_or(Path::new("")).to_string_lossy().into_owned();
    let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let project = Project { name, src: from_here(project)?, config };
    from_devcontainer(&text(file)?, &project)
        .map_err(|error| CommandError::input(format!("{}: {error}", file.display())))
}

fn harbor(folder: &Path) -> Result<Converted<Manifest>, CommandError> {
    let environment = folder.join("environment");
    let dockerfile = environment.join("Dockerfile");
    let dockerfile = if dockerfile.exists() { Some(text(&dockerfile)?) } else { None };
    let config = folder.join("task.toml");
    let mut others = Vec::new();
    for (folder, before) in [(folder, ""), (environment.as_path(), "environment/")] {
        let Ok(entries) = fs_err::read_dir(folder) else { continue };
        for entry in entries {
            others.push(format!("{before}{}", entry?.file_name().to_string_lossy()));
        }
    }
    others.retain(|name| !matches!(name.as_str(), "task.toml" | "environment" | "environment/Dockerfile"));
    others.sort();
    let task = HarborTask {
        config: text(&config)?,
        environment: from_here(&absolute(&environment)?)?,
        dockerfile,
        others,
    };
    from_harbor(&task).map_err(|error| CommandError::input(format!("{}: {error}", config.display())))
}

fn text(file: &Path) -> Result<String, CommandError> {
    fs_err::read_to_string(file).map_err(|error| CommandError::input(error.to_string()))
}

/// A path as a manifest in the current directory names it.
fn from_here(path: &Path) -> Result<String, CommandError> {
    let here = absolute(Path::new("."))?;
    let path = match path.strip_prefix(&here) {
        Ok(below) if below.as_os_str().is_empty() => PathBuf::from("."),
        Ok(below) => below.to_path_buf(),
        Err(_) => path.to_path_buf(),
    };
    Ok(path.to_string_lossy().into_owned())
}
