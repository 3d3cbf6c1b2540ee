//! What must hold before a manifest is used. Every problem is found, not the first alone.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::problem::member;
use crate::{EntryKind, GitRepo, Located, Manifest, Mount, PathError, Problem, RelPath};

impl Manifest {
    /// Whether the manifest can be used. The crate's documentation lists what is asked for.
    ///
    /// # Errors
    /// All problems.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut found = self.ignored.clone();
        check_root(&self.root, &mut found);
        let entries = self.located();
        for located in &entries {
            self.check_entry(located, &mut found);
        }
        self.check_places(&entries, &mut found);
        self.check_environment(&mut found);
        self.check_accounts(&mut found);
        self.check_grants(&mut found);
        crate::extension::check(self, &mut found);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn check_entry(&self, located: &Located<'_>, found: &mut Vec<Problem>) {
        let Located { at, key, problem, entry, .. } = located;
        if let Some(error) = problem {
            found.push(Problem::new(at, format!("{error}: {key}")).hint(path_hint(*error)));
        }
        if entry.is_dir && !entry.kind.is_directory() {
            found.push(Problem::new(member(at, "is_dir"), "a file is no directory").hint("remove the key"));
        }
        let permissions = entry.permissions;
        for (field, value) in
            [("owner", permissions.owner), ("group", permissions.group), ("other", permissions.other)]
        {
            if !(0..=7).contains(&value) {
                let at = format!("{at}.permissions.{field}");
                found.push(
                    Problem::new(at, format!("{value} is no permission"))
                        .hint("use 0 to 7: read 4, write 2, execute 1"),
                );
            }
        }
        if let Some(group) = &entry.group {
            let name = group.name();
            let declared = self
                .groups
                .iter()
                .any(|group| group.name == name || group.users.iter().any(|user| user.name == name))
                || self.users.iter().any(|user| user.name == name);
            if !declared {
                let wrong = Problem::new(member(at, "group"), format!("the group '{name}' is not declared"));
                found.push(wrong.hint("add it to 'groups', or to 'users' for a user's own group"));
            }
        }
        match &entry.kind {
            EntryKind::LocalFile(file) => check_source(&file.src, at, found),
            EntryKind::LocalDir(dir) => dir.src.iter().for_each(|src| check_source(src, at, found)),
            EntryKind::GitRepo(repo) => check_git(repo, at, found),
            EntryKind::Mount(mount) => crate::mount_check::check(self, located, mount, found),
            EntryKind::Dir(_) | EntryKind::File(_) => {}
        }
    }

    /// Two entries at one path, and entries below what is no directory of the workspace.
    fn check_places(&self, entries: &[Located<'_>], found: &mut Vec<Problem>) {
        let mut places: BTreeMap<String, &Located<'_>> = BTreeMap::new();
        for located in entries {
            let Some(place) = self.place(located) else { continue };
            if let Some(first) = places.insert(place.clone(), located) {
                let wrong = Problem::new(&located.at, format!("the path '{place}' is taken by {}", first.at));
                found.push(wrong.hint("remove one of them"));
                places.insert(place, first);
            }
        }
        for (place, located) in &places {
            let above = place.rmatch_indices('/').map(|(at, _)| &place[..at]);
            for (over, what) in above.filter_map(|above| places.get(above)).filter_map(|over| {
                let mount = matches!(located.entry.kind, EntryKind::Mount(_));
                match over.entry.kind {
                    EntryKind::File(_) | EntryKind::LocalFile(_) => Some((over, "a file")),
                    EntryKind::Mount(_) if !mount => Some((over, "a mount, which would hide it")),
                    _ => None,
                }
            }) {
                let wrong = Problem::new(&located.at, format!("it is below {}, which is {what}", over.at));
                found.push(wrong.hint("rename one of them"));
            }
        }
    }

    /// Where an entry ends up: below the root, or an absolute path outside of it for some mounts.
    fn place(&self, located: &Located<'_>) -> Option<String> {
        let path = located.path.as_ref()?;
        let EntryKind::Mount(mount) = &located.entry.kind else { return Some(path.to_string()) };
        let target = self.mount_target(located, mount)?;
        let below = target.strip_prefix(self.root.trim_end_matches('/'));
        Some(below.and_then(|rest| rest.strip_prefix('/')).map_or(target.clone(), str::to_owned))
    }

    /// The absolute path that a mount appears at.
    pub fn mount_target(&self, located: &Located<'_>, mount: &Mount) -> Option<String> {
        let root = self.root.trim_end_matches('/');
        match &mount.common.mount_path {
            None => located.path.as_ref().map(|path| format!("{root}/{path}")),
            Some(path) => match path.strip_prefix('/') {
                Some(below) => RelPath::parse(below).ok().map(|path| format!("/{path}")),
                None => RelPath::parse(path).ok().map(|path| format!("{root}/{path}")),
            },
        }
    }

    fn check_environment(&self, found: &mut Vec<Problem>) {
        for (name, value) in &self.environment.value {
            let at = member("environment.value", name);
            if name.is_empty() || name.contains(['=', '\0']) {
                let wrong = Problem::new(&at, "this is no name of a variable");
                found.push(wrong.hint("a name is not empty and holds neither '=' nor NUL"));
            }
            if value.as_str().contains('\0') {
                found.push(Problem::new(&at, "a variable's value cannot hold a NUL"));
            }
        }
    }

    fn check_accounts(&self, found: &mut Vec<Problem>) {
        let users =
            self.users.iter().enumerate().map(|(index, user)| (format!("users[{index}]"), &user.name));
        let groups =
            self.groups.iter().enumerate().map(|(index, group)| (format!("groups[{index}]"), &group.name));
        check_names("user", users, found);
        check_names("group", groups, found);
        for (index, group) in self.groups.iter().enumerate() {
            let members = group.users.iter().enumerate();
            let members =
                members.map(|(user, member)| (format!("groups[{index}].users[{user}]"), &member.name));
            check_names("member", members, found);
        }
    }

    fn check_grants(&self, found: &mut Vec<Problem>) {
        let mut seen = HashSet::new();
        for (index, grant) in self.extra_path_grants.iter().enumerate() {
            if !seen.insert(&grant.path) {
                let at = format!("extra_path_grants[{index}]");
                found.push(
                    Problem::new(at, format!("'{}' is granted twice", grant.path)).hint("remove one of them"),
                );
            }
        }
    }
}

pub(crate) fn path_hint(error: PathError) -> &'static str {
    match error {
        PathError::Empty => "give it a name; the root itself is no entry",
        PathError::Absolute => "paths are relative to the root: remove what is before the first name",
        PathError::Escape => "write the path without '..'",
        PathError::Backslash => "write '/'",
        PathError::Nul => "remove the NUL",
        PathError::Long => "use shorter names",
    }
}

fn check_root(root: &str, found: &mut Vec<Problem>) {
    let hint = "use an absolute path such as /workspace";
    if !root.starts_with('/') {
        found.push(Problem::new("root", "the workspace root must be absolute").hint(hint));
    } else if root.contains('\0') || root.split('/').any(|name| name == "..") {
        found.push(Problem::new("root", "the workspace root must not hold '..' or a NUL").hint(hint));
    } else if root.split('/').all(|name| matches!(name, "" | ".")) {
        found.push(Problem::new("root", "the workspace root must not be the filesystem root").hint(hint));
    }
}

fn check_source(src: &str, at: &str, found: &mut Vec<Problem>) {
    if src.contains('\0') {
        found.push(Problem::new(member(at, "src"), "a path on the host cannot hold a NUL"));
    }
}

fn check_git(repo: &GitRepo, at: &str, found: &mut Vec<Problem>) {
    let GitRepo { host, repo, reference, subpath } = repo;
    let odd = |text: &str| {
        text.chars().any(|char| char.is_control() || char.is_whitespace() || "?#@\\%".contains(char))
    };
    let local = host.strip_prefix("file://");
    let bad_host = match local {
        Some(path) => !path.starts_with('/') || odd(path) || path.split('/').any(|name| name == ".."),
        None => {
            let (name, port) = host.split_once(':').unwrap_or((host, "443"));
            name.is_empty()
                || name.starts_with(['-', '.'])
                || !name.chars().all(|char| char.is_ascii_alphanumeric() || "-.".contains(char))
                || port.is_empty()
                || !port.chars().all(|char| char.is_ascii_digit())
        }
    };
    if bad_host {
        let wrong = Problem::new(member(at, "host"), format!("'{host}' is no host"));
        found.push(
            wrong.hint("write a name such as github.com, with :port where needed, or file:///a/directory"),
        );
    }
    let bad_name = |name: &str| matches!(name, "" | "." | "..") || name.starts_with('-');
    if odd(repo) || repo.contains(':') || repo.split('/').any(bad_name) {
        let wrong = Problem::new(member(at, "repo"), format!("'{repo}' is no repository"));
        found.push(wrong.hint("write its path on the host, such as owner/name"));
    }
    let bad_part = |part: &str| {
        part.is_empty() || part.starts_with('.') || Path::new(part).extension() == Some("lock".as_ref())
    };
    let bad_reference = reference.starts_with('-')
        || reference.chars().any(|char| char.is_control() || " ~^:?*[\\".contains(char))
        || reference.contains("..")
        || reference.contains("@{")
        || reference.split('/').any(bad_part);
    if bad_reference {
        let wrong = Problem::new(member(at, "ref"), format!("'{reference}' is no git reference"));
        found.push(wrong.hint("write a branch, a tag or a commit"));
    }
    if let Some(subpath) = subpath.as_deref().filter(|subpath| !matches!(*subpath, "" | ".")) {
        let parsed = if subpath.trim().is_empty() { Err(PathError::Empty) } else { RelPath::parse(subpath) };
        if parsed.is_err() {
            let message = format!("'{subpath}' is no relative path inside the repository");
            found.push(
                Problem::new(member(at, "subpath"), message)
                    .hint("write it with '/', without '..', or leave it out"),
            );
        }
    }
}

fn check_names<'a>(what: &str, names: impl Iterator<Item = (String, &'a String)>, found: &mut Vec<Problem>) {
    let mut seen = HashSet::new();
    for (at, name) in names {
        let good = name.len() <= 32
            && name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
            && name.chars().all(|char| char.is_ascii_alphanumeric() || "_-.".contains(char));
        if !good {
            let wrong = Problem::new(&at, format!("'{name}' is no name of a {what}"));
            found.push(wrong.hint("use up to 32 letters, digits, '_', '-' and '.', a letter or '_' first"));
        }
        if !seen.insert(name) {
            found.push(
                Problem::new(&at, format!("the {what} '{name}' comes twice")).hint("remove one of them"),
            );
        }
    }
}
