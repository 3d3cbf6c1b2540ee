//! Paths that a model names, made relative to the workspace root by their text alone.
//!
//! This keeps one spelling for one file and gives the words of the OpenAI Agents SDK for what is refused. Links are
//! not looked at here: the session refuses those that leave the workspace.

/// Why a path is no path of a file in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadPath {
    Empty,
    Escape,
}

/// The path relative to `root`, without `.` and `..`; `.` for the root itself.
pub(crate) fn relative(root: &str, path: &str) -> Result<String, BadPath> {
    if path.trim().is_empty() {
        return Err(BadPath::Empty);
    }
    let from_root = if path.starts_with('/') { path.to_owned() } else { format!("{root}/{path}") };
    let mut parts = Vec::new();
    for part in from_root.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut parts = parts.into_iter();
    let inside = root.split('/').filter(|part| !part.is_empty()).all(|part| parts.next() == Some(part));
    if !inside {
        return Err(BadPath::Escape);
    }
    let relative = parts.collect::<Vec<_>>().join("/");
    Ok(if relative.is_empty() { ".".to_owned() } else { relative })
}

#[cfg(test)]
mod tests {
    use super::{BadPath, relative};

    #[test]
    fn paths_stay_below_the_root() {
        let of = |path| relative("/workspace", path);
        assert_eq!(of("a/./b//c"), Ok("a/b/c".to_owned()));
        assert_eq!(of("a/../b"), Ok("b".to_owned()));
        assert_eq!(of("/workspace/a"), Ok("a".to_owned()));
        assert_eq!(of("../workspace/a"), Ok("a".to_owned()));
        assert_eq!(of("/workspace"), Ok(".".to_owned()));
        assert_eq!(of("  "), Err(BadPath::Empty));
        for outside in ["..", "../x", "a/../../x", "/", "/etc/passwd", "/workspace2/a", "/workspace/../etc"] {
            assert_eq!(of(outside), Err(BadPath::Escape), "{outside}");
        }
        assert_eq!(relative("/", "/a"), Ok("a".to_owned()));
    }
}
