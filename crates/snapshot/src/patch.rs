//! One file's part of a patch, in the form of `git diff`.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use similar::TextDiff;

use crate::tree::Digest;

/// After this a file's differences are told in larger pieces than they need to be.
const PATIENCE: Duration = Duration::from_secs(5);

/// Git looks this far for a NUL to tell what is no text.
const LOOKED_AT: usize = 8000;

/// A file before or after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    mode: Mode,
    pub(crate) size: u64,
    /// `None`: it is not text.
    text: Option<Vec<u8>>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Executable,
    Link,
}

impl Mode {
    fn of(mode: u32) -> Self {
        if mode & 0o100 == 0 { Self::Plain } else { Self::Executable }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "100644",
            Self::Executable => "100755",
            Self::Link => "120000",
        }
    }
}

impl Side {
    pub(crate) fn link(target: Vec<u8>) -> Self {
        Self { mode: Mode::Link, size: target.len() as u64, text: Some(target), digest: None }
    }

    pub(crate) fn file(mode: u32, content: Vec<u8>, digest: Digest) -> Self {
        let size = content.len() as u64;
        if content[..content.len().min(LOOKED_AT)].contains(&0) {
            return Self::binary(mode, size, digest);
        }
        Self { mode: Mode::of(mode), size, text: Some(content), digest: None }
    }

    pub(crate) fn binary(mode: u32, size: u64, digest: Digest) -> Self {
        Self { mode: Mode::of(mode), size, text: None, digest: Some(digest) }
    }

    pub(crate) fn is_link(&self) -> bool {
        self.mode == Mode::Link
    }

    pub(crate) fn is_binary(&self) -> bool {
        self.text.is_none()
    }
}

/// The patch that leads from one to the other; empty where nothing differs that it can tell.
pub(crate) fn file_patch(path: &Path, old: Option<&Side>, new: Option<&Side>) -> Vec<u8> {
    let changed_mode = match (old, new) {
        (Some(old), Some(new)) => old.mode != new.mode,
        _ => true,
    };
    let texts = text(old).zip(text(new));
    let hunks = texts.map(|(old, new)| hunks(old, new)).unwrap_or_default();
    // A file that is not text is not there for a patch, neither before nor after.
    let only_content = old.is_none() || new.is_none();
    if (hunks.is_empty() && !changed_mode) || (only_content && texts.is_none()) {
        return Vec::new();
    }
    let (a, b) = (quoted("a/", path), quoted("b/", path));
    let mut patch = format!("diff --git {a} {b}\n");
    match (old, new) {
        (Some(old), Some(new)) if changed_mode => {
            patch += &format!("old mode {}\nnew mode {}\n", old.mode.as_str(), new.mode.as_str());
        }
        (None, Some(new)) => patch += &format!("new file mode {}\n", new.mode.as_str()),
        (Some(old), None) => patch += &format!("deleted file mode {}\n", old.mode.as_str()),
        _ => {}
    }
    if !hunks.is_empty() {
        // Without the tab, a name would end at its first space.
        let tab = if path.as_os_str().as_bytes().contains(&b' ') { "\t" } else { "" };
        let name = |side: Option<&Side>, name: &str| match side {
            Some(_) => format!("{name}{tab}"),
            None => "/dev/null".to_owned(),
        };
        patch += &format!("--- {}\n+++ {}\n", name(old, &a), name(new, &b));
    }
    let mut patch = patch.into_bytes();
    patch.extend(hunks);
    patch
}

/// The text of a side; that of a missing one is empty.
fn text(side: Option<&Side>) -> Option<&[u8]> {
    match side {
        Some(side) => side.text.as_deref(),
        None => Some(&[]),
    }
}

fn hunks(old: &[u8], new: &[u8]) -> Vec<u8> {
    let lines = |text: &'_ [u8]| -> Vec<Vec<u8>> {
        text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let (old, new) = (lines(old), lines(new));
    let (old, new): (Vec<&[u8]>, Vec<&[u8]>) =
        (old.iter().map(Vec::as_slice).collect(), new.iter().map(Vec::as_slice).collect());
    let diff = TextDiff::configure().timeout(PATIENCE).diff_slices(&old, &new);
    let mut out = Vec::new();
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        out.extend_from_slice(format!("{}\n", hunk.header()).as_bytes());
        for change in hunk.iter_changes() {
            out.extend_from_slice(change.tag().to_string().as_bytes());
            out.extend_from_slice(change.value());
            if !change.value().ends_with(b"\n") {
                out.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    }
    out
}

/// A name as git writes it: quoted where it holds what would end it.
fn quoted(prefix: &str, path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let plain = |byte: &u8| !byte.is_ascii_control() && !matches!(byte, b'"' | b'\\');
    if let (Ok(name), true) = (std::str::from_utf8(bytes), bytes.iter().all(plain)) {
        return format!("{prefix}{name}");
    }
    let mut name = format!("\"{prefix}");
    for byte in bytes {
        if plain(byte) && byte.is_ascii() {
            name.push(char::from(*byte));
        } else {
            name += &format!("\\{byte:03o}");
        }
    }
    name + "\""
}
