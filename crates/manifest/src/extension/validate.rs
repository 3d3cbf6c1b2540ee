//! What must hold between the parts of an extension, and between it and the manifest around it.

use std::collections::HashSet;

use super::{Extension, Image, Network};
use crate::problem::member;
use crate::read::ADDITIONS;
use crate::{EntryKind, Located, Manifest, Problem, RelPath};

/// All problems of a manifest's extension.
pub(crate) fn check(manifest: &Manifest, found: &mut Vec<Problem>) {
    let extension = &manifest.extension;
    let mut problem = |at: &str, message: String, hint: &str| {
        found.push(Problem::new(format!("{ADDITIONS}.{at}"), message).hint(hint));
    };
    if extension.resources.pids == Some(0) {
        problem("resources.pids", "a sandbox needs at least one process".to_owned(), "write 1 or more");
    }
    check_network(extension, &mut problem);
    check_secrets(manifest, &mut problem);
    let mut ports = HashSet::new();
    for (index, port) in extension.ports.iter().enumerate() {
        let at = format!("ports[{index}]");
        if *port == 0 {
            problem(&at, "0 is no port".to_owned(), "write 1 to 65535");
        } else if !ports.insert(port) {
            problem(&at, format!("port {port} comes twice"), "remove one of them");
        }
    }
    for (index, command) in extension.setup.iter().enumerate() {
        let at = format!("setup[{index}]");
        if command.run.trim().is_empty() || command.run.contains('\0') {
            problem(&at, "this is no command".to_owned(), "write a command line, or remove it");
        }
        if let Some(cwd) = &command.cwd {
            check_path(cwd, &format!("{at}.cwd"), &mut problem);
        }
    }
    check_image(extension.image.as_ref(), &mut problem);
    check_git(manifest, &mut problem);
    check_mounts(manifest, &mut problem);
    let mut outputs = HashSet::new();
    for (index, output) in extension.outputs.iter().enumerate() {
        let at = format!("outputs[{index}].path");
        if check_path(&output.path, &at, &mut problem).is_some_and(|path| !outputs.insert(path)) {
            problem(&at, format!("'{}' comes twice", output.path), "remove one of them");
        }
    }
}

fn check_path(path: &str, at: &str, problem: &mut dyn FnMut(&str, String, &str)) -> Option<RelPath> {
    match RelPath::parse(path) {
        Ok(path) => Some(path),
        Err(error) => {
            problem(at, format!("{error}: {path}"), "write a path below the root");
            None
        }
    }
}

fn check_network(extension: &Extension, problem: &mut dyn FnMut(&str, String, &str)) {
    let Some(Network::Allow(rules)) = &extension.network else { return };
    if rules.is_empty() {
        problem("network.allow", "an empty list allows nothing".to_owned(), "write \"network\": \"deny\"");
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("network.allow[{index}]");
        if rule.ports.contains(&0) {
            problem(&format!("{at}.ports"), "0 is no port".to_owned(), "write 1 to 65535");
        }
        if rules[..index].contains(rule) {
            problem(&at, format!("the rule for '{}' comes twice", rule.host), "remove one of them");
        }
    }
}

fn check_secrets(manifest: &Manifest, problem: &mut dyn FnMut(&str, String, &str)) {
    let extension = &manifest.extension;
    let mut variables = HashSet::new();
    for (name, used) in &extension.secrets {
        let at = member("secrets", name);
        let plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if !plain(name) || name.len() > 128 {
            problem(&at, format!("'{name}' is no name of a secret"), "use letters, digits, '_', '-' and '.'");
        }
        if let Some(variable) = &used.env {
            let at = format!("{at}.env");
            let good = !variable.starts_with(|char: char| char.is_ascii_digit())
                && !variable.is_empty()
                && variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !good {
                problem(&at, format!("'{variable}' is no name of a variable"), "use letters, digits and '_'");
            } else if manifest.environment.value.contains_key(variable) || !variables.insert(variable) {
                problem(&at, format!("the variable '{variable}' is set twice"), "name another variable");
            }
        }
        if used.inject.is_empty() && used.env.is_some() {
            problem(
                &at,
                "no request may carry this secret, so its variable would be of no use".to_owned(),
                "say below 'inject' which host it is for, or remove 'env'",
            );
        }
        for (index, injection) in used.inject.iter().enumerate() {
            let at = format!("{at}.inject[{index}]");
            if injection.port == 0 {
                problem(&format!("{at}.port"), "0 is no port".to_owned(), "write 1 to 65535");
            }
            match &extension.network {
                Some(Network::Allow(rules))
                    if rules.iter().any(|rule| rule.reaches(&injection.host, injection.port)) => {}
                Some(Network::Unrestricted) => problem(
                    &at,
                    "a secret cannot be guarded where the network is unrestricted".to_owned(),
                    "name below 'network.allow' what may be reached",
                ),
                _ => problem(
                    &format!("{at}.host"),
                    format!("'{}:{}' cannot be reached", injection.host, injection.port),
                    "add the host to 'network.allow'",
                ),
            }
        }
    }
}

fn check_image(image: Option<&Image>, problem: &mut dyn FnMut(&str, String, &str)) {
    match image {
        None => {}
        Some(Image::Name(name)) => {
            let odd = |char: char| !(char.is_ascii_alphanumeric() || "._-/:@".contains(char));
            if name.is_empty() || name.starts_with('-') || name.contains(odd) || name.len() > 512 {
                problem("image", format!("'{name}' is no name of an image"), "write it as python:3.14-slim");
            }
        }
        Some(Image::Build(build)) => {
            if build.context.is_empty() || build.context.contains('\0') {
                problem(
                    "image.context",
                    "this is no directory".to_owned(),
                    "name the directory with the build file",
                );
            }
            check_path(&build.dockerfile, "image.dockerfile", problem);
        }
    }
}

/// What stands at a path below the root.
fn entry_at<'a>(located: &[Located<'a>], path: &str) -> Option<&'a EntryKind> {
    let path = RelPath::parse(path).ok()?;
    let found = located.iter().find(|located| located.path.as_ref() == Some(&path))?;
    Some(&found.entry.kind)
}

fn check_git(manifest: &Manifest, problem: &mut dyn FnMut(&str, String, &str)) {
    let extension = &manifest.extension;
    if extension.git.is_empty() {
        return;
    }
    let located = manifest.located();
    for (path, options) in &extension.git {
        let at = member("git", path);
        let Some(EntryKind::GitRepo(repo)) = entry_at(&located, path) else {
            problem(
                &at,
                format!("there is no git_repo entry at '{path}'"),
                "write the path of the entry below the root",
            );
            continue;
        };
        let Some(name) = &options.credentials else { continue };
        let at = format!("{at}.credentials");
        if !extension.secrets.contains_key(name) {
            problem(&at, format!("there is no secret '{name}'"), "add it to 'secrets'");
        }
        if repo.host.starts_with("file://") {
            problem(&at, "a directory on the host needs no credentials".to_owned(), "remove them");
        }
    }
}

fn check_mounts(manifest: &Manifest, problem: &mut dyn FnMut(&str, String, &str)) {
    let extension = &manifest.extension;
    if extension.mounts.is_empty() {
        return;
    }
    let located = manifest.located();
    for (path, options) in &extension.mounts {
        let at = member("mounts", path);
        let Some(EntryKind::Mount(mount)) = entry_at(&located, path) else {
            problem(
                &at,
                format!("there is no mount at '{path}'"),
                "write the path of the entry below the root",
            );
            continue;
        };
        for (field, name) in &options.credentials {
            let at = member(&format!("{at}.credentials"), field);
            let known = mount.provider.credential_fields();
            if !known.contains(&field.as_str()) {
                let fields = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let wrong =
                    format!("a {} has no such credential; it has: {fields}", mount.provider.type_name());
                problem(&at, wrong, "remove it");
            } else if mount.provider.credentials().contains(&(field.as_str(), None)) {
                // As it should be.
            } else {
                problem(&at, "the entry itself has it, too".to_owned(), "remove one of them");
            }
            if !extension.secrets.contains_key(name) {
                problem(&at, format!("there is no secret '{name}'"), "add it to 'secrets'");
            }
        }
    }
}
