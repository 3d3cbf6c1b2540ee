//! Reading a workspace that nobody has vetted, and showing what it says without letting it speak for others.
//!
//! No link is followed here, although the session would follow those that stay in the workspace: a file that is shown
//! as the guidance of one directory should lie there. Text goes between fences that it cannot close, and what stands
//! outside of a fence is escaped.

use mooring_sandbox::{FileKind, FileStat, SandboxError, SandboxSession};

/// What lies at a path: itself, not what it links to. `None` where there is nothing that the session can see.
pub(crate) async fn look(session: &dyn SandboxSession, path: &str) -> Result<Option<FileStat>, SandboxError> {
    match session.stat(path).await {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.session_lost() => Err(error),
        Err(_) => Ok(None),
    }
}

/// The kind of what lies at a path, as [`look`] sees it.
pub(crate) async fn kind(session: &dyn SandboxSession, path: &str) -> Result<Option<FileKind>, SandboxError> {
    Ok(look(session, path).await?.map(|stat| stat.kind))
}

/// `text` between two lines of backticks, more of them than stand anywhere in it in a row: no line of it ends the
/// block.
pub(crate) fn fenced(text: &str) -> String {
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{fence}\n{text}{end}{fence}")
}

/// A path in quotes, on one line, with all but visible characters and backticks escaped.
pub(crate) fn quoted(path: &str) -> String {
    format!("{path:?}").replace('`', "\\u{60}")
}

/// Text on one line, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|character| !character.is_control()).collect()
}

/// The first bytes of a text, at most `limit`, and whether that is less than all of it.
pub(crate) fn head(text: &str, limit: usize) -> (&str, bool) {
    let end = text.floor_char_boundary(limit);
    (&text[..end], end < text.len())
}
