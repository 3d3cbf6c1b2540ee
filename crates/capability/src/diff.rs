//! The text side of `apply_patch`: what a diff of one file makes of its content. Pure.
//!
//! The algorithm is the OpenAI Agents SDK's, so that a patch does here what models are trained to expect. It differs
//! where the SDK loses something:
//! - Lines that match at several places, with nothing to decide between them, are refused with the places. The SDK
//!   edits the first. An `@@` anchor that names one line of the file decides, and so does `*** End of File`.
//! - A hunk that only adds lines needs an anchor that exists, once, if it names one. The SDK puts the lines at the
//!   place of the last hunk, or at the start of the file.
//! - Untouched lines keep their own line endings; a new line takes that of its place. The SDK makes a mixed file
//!   uniform.
//! - The end of the file stays as it was, with or without a final newline, and is not mistaken for an empty line.
//! - A created file ends with a newline.
//! - Lines after the end of an update's diff are refused. The SDK drops them.

const END_PATCH: &str = "*** End Patch";
const END_FILE: &str = "*** End of File";
const TERMINATORS: [&str; 4] = [END_PATCH, "*** Update File:", "*** Delete File:", "*** Add File:"];

/// At most so many places are named where lines match at several.
const CANDIDATES: usize = 8;

/// Why a diff does not apply. The text is the SDK's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// A line of a new file does not start with `+`.
    #[error("Invalid Add File Line: {line}")]
    AddLine {
        /// The line.
        line: String,
    },
    /// A line of a hunk starts with none of ` `, `+`, `-`, `@@`.
    #[error("Invalid Line: {line}")]
    Line {
        /// The line.
        line: String,
    },
    /// A hunk after the first does not start with `@@`.
    #[error("Invalid Line:\n{line}")]
    NoHeader {
        /// The line.
        line: String,
    },
    /// A hunk has no lines.
    #[error("Nothing in this section - index={index} {line}")]
    EmptySection {
        /// Which line of the diff, from 0.
        index: usize,
        /// The line that came instead.
        line: String,
    },
    /// An anchor that has to be in the file is not.
    #[error("Invalid Anchor {cursor}:\n{anchor}")]
    Anchor {
        /// From which line of the file on it was looked for, from 0.
        cursor: usize,
        /// Its text.
        anchor: String,
    },
    /// The hunk's lines are not in the file.
    #[error("Invalid Context {cursor}:\n{context}")]
    Context {
        /// From which line of the file on they were looked for, from 0.
        cursor: usize,
        /// The lines.
        context: String,
    },
    /// The lines of a hunk for the file's end are not in the file.
    #[error("Invalid EOF Context {cursor}:\n{context}")]
    EofContext {
        /// From which line of the file on they were looked for, from 0.
        cursor: usize,
        /// The lines.
        context: String,
    },
    /// The hunk could go to several places.
    #[error("Ambiguous Context: the same lines are at {}:\n{context}", places(lines))]
    Ambiguous {
        /// Where they match, as line numbers from 1; at most the first eight.
        lines: Vec<usize>,
        /// The lines.
        context: String,
    },
    /// Two hunks change the same lines.
    #[error("applyDiff: overlapping chunk at {at} (cursor {cursor})")]
    Overlap {
        /// Where the second starts, from 0.
        at: usize,
        /// Where the first ends, from 0.
        cursor: usize,
    },
}

impl DiffError {
    /// What to do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::AddLine { .. } => "Start every line of a new file with `+`.",
            Self::Line { .. } => "Start every line of a hunk with a space, `-` or `+`.",
            Self::NoHeader { .. } => "Start every hunk with an `@@` line.",
            Self::EmptySection { .. } => "Give the hunk the lines to change, or leave it out.",
            Self::Anchor { .. } => "Read the file and use an `@@` line that is in it.",
            Self::Context { .. } | Self::EofContext { .. } => {
                "Read the file and use its lines as they are now, with hunks in the order of the file."
            }
            Self::Ambiguous { .. } => {
                "Add lines of context, or an `@@` line that is in the file only once, to say which place is meant."
            }
            Self::Overlap { .. } => "Put changes of the same lines into one hunk.",
        }
    }
}

/// The content of a new file.
///
/// ```
/// assert_eq!(mooring_capability::created_content("+one\n+two\n").as_deref(), Ok("one\ntwo\n"));
/// ```
pub fn created_content(diff: &str) -> Result<String, DiffError> {
    let newline = newline_of(diff);
    let mut content = Vec::new();
    for line in diff_lines(diff) {
        if starts_with_any(line, &TERMINATORS) {
            break;
        }
        match line.strip_prefix('+') {
            Some(text) => content.push(text),
            None => return Err(DiffError::AddLine { line: line.to_owned() }),
        }
    }
    let mut content = content.join(newline);
    if !content.is_empty() && !content.ends_with('\n') {
        content.push_str(newline);
    }
    Ok(content)
}

/// A file's content after a diff.
///
/// ```
/// let changed = mooring_capability::apply_diff("a\nb\nc\n", "@@\n a\n-b\n+B\n");
/// assert_eq!(changed.as_deref(), Ok("a\nB\nc\n"));
/// ```
pub fn apply_diff(input: &str, diff: &str) -> Result<String, DiffError> {
    let mut lines = diff_lines(diff);
    lines.push(END_PATCH);
    let file = File::parse(input, diff);
    let mut chunks: Vec<Chunk<'_>> = Vec::new();
    let (mut index, mut cursor) = (0, 0);

    while !(starts_with_any(lines[index], &TERMINATORS) || lines[index].starts_with(END_FILE)) {
        let (anchors, headers) = read_anchors(&lines, &mut index);
        if headers == 0 && cursor != 0 {
            return Err(DiffError::NoHeader { line: lines[index].to_owned() });
        }
        let narrowed = file.narrow(&anchors, cursor, headers > 1)?;
        let section = read_section(&lines, index)?;
        let at = file.locate(&section, &anchors, &narrowed)?;
        cursor = at + section.context.len();
        index = section.next;
        chunks.extend(section.chunks.into_iter().map(|chunk| Chunk { at: chunk.at + at, ..chunk }));
    }
    let envelope = ["", END_PATCH, END_FILE, "*** Begin Patch"];
    if let Some(line) = lines[index..].iter().find(|line| !envelope.contains(&line.trim())) {
        return Err(DiffError::Line { line: (*line).to_owned() });
    }
    file.apply(&chunks)
}

/// One change of a section: at `at`, `deleted` lines go and `inserted` come.
struct Chunk<'a> {
    at: usize,
    deleted: usize,
    inserted: Vec<&'a str>,
}

/// One hunk without its headers.
struct Section<'a> {
    /// Context and deleted lines: what has to be in the file.
    context: Vec<&'a str>,
    /// Places relative to the context's first line.
    chunks: Vec<Chunk<'a>>,
    /// The first line of the diff after it.
    next: usize,
    at_end: bool,
}

impl<'a> Section<'a> {
    /// Ends a change just before the context's end.
    fn add_chunk(&mut self, deleted: &mut usize, inserted: &mut Vec<&'a str>) {
        if *deleted > 0 || !inserted.is_empty() {
            let at = self.context.len() - *deleted;
            self.chunks.push(Chunk { at, deleted: *deleted, inserted: std::mem::take(inserted) });
            *deleted = 0;
        }
    }
}

/// Where the anchors of a hunk lead.
struct Narrowed {
    cursor: usize,
    /// An anchor names one line of the file and no other.
    decided: bool,
    /// No anchor was found.
    missed: bool,
}

/// A file as lines with their endings.
struct File<'a> {
    lines: Vec<(&'a str, &'a str)>,
    /// The lines' texts and, after a final newline, the empty rest: it may be matched as context, since patches often
    /// end with an empty line, but never changed.
    texts: Vec<&'a str>,
    /// For a line whose place has no ending to copy.
    newline: &'static str,
    ends_with_newline: bool,
}

impl<'a> File<'a> {
    fn parse(input: &'a str, diff: &str) -> Self {
        let lines: Vec<_> = input.split_inclusive('\n').map(split_ending).collect();
        let ends_with_newline = lines.last().is_none_or(|(_, ending)| !ending.is_empty());
        let mut texts: Vec<_> = lines.iter().map(|(text, _)| *text).collect();
        if ends_with_newline {
            texts.push("");
        }
        let newline = newline_of(if input.contains('\n') { input } else { diff });
        Self { lines, texts, newline, ends_with_newline }
    }

    /// Follows the anchors from `cursor` on.
    fn narrow(&self, anchors: &[&str], cursor: usize, required: bool) -> Result<Narrowed, DiffError> {
        let mut narrowed = Narrowed { cursor, decided: false, missed: !anchors.is_empty() };
        for (nth, anchor) in anchors.iter().enumerate() {
            let found = [same as fn(&str) -> &str, str::trim].into_iter().find_map(|key| {
                let is_anchor = |text: &&str| key(text) == key(anchor);
                let (before, after) = self.texts.split_at(narrowed.cursor);
                let cursor = if nth == 0 && before.iter().any(is_anchor) {
                    narrowed.cursor
                } else {
                    narrowed.cursor + after.iter().position(is_anchor)? + 1
                };
                Some((cursor, self.texts.iter().filter(|text| is_anchor(text)).count() == 1))
            });
            match found {
                Some((cursor, unique)) => {
                    narrowed.cursor = cursor;
                    narrowed.decided |= unique;
                    narrowed.missed = false;
                }
                None if required => {
                    return Err(DiffError::Anchor { cursor: narrowed.cursor, anchor: (*anchor).to_owned() });
                }
                None => {}
            }
        }
        Ok(narrowed)
    }

    /// Where a section's context is.
    fn locate(
        &self,
        section: &Section<'_>,
        anchors: &[&str],
        narrowed: &Narrowed,
    ) -> Result<usize, DiffError> {
        let context = &section.context;
        let cursor = narrowed.cursor;
        if section.at_end {
            let end = self.lines.len().saturating_sub(context.len());
            if context.is_empty() {
                return Ok(self.lines.len());
            }
            if let Some(at) = self.matches(section, end, self.lines.len()).first() {
                return Ok(*at);
            }
        } else if context.is_empty() {
            if narrowed.missed {
                return Err(DiffError::Anchor { cursor, anchor: anchors.join("\n") });
            }
            if !anchors.is_empty() && !narrowed.decided {
                let places = self.texts.iter().enumerate();
                let anchor = anchors[anchors.len() - 1];
                let lines = places.filter(|(_, text)| text.trim() == anchor.trim());
                return Err(DiffError::Ambiguous {
                    lines: lines.map(|(at, _)| at + 1).take(CANDIDATES).collect(),
                    context: anchors.join("\n"),
                });
            }
            return Ok(cursor);
        }
        let until = if section.at_end { self.lines.len() } else { self.texts.len() };
        let found = self.matches(section, cursor, until);
        match found.as_slice() {
            [] if section.at_end => Err(DiffError::EofContext { cursor, context: context.join("\n") }),
            [] => Err(DiffError::Context { cursor, context: context.join("\n") }),
            [at, others @ ..] if others.is_empty() || narrowed.decided => Ok(*at),
            several => Err(DiffError::Ambiguous {
                lines: several.iter().map(|at| at + 1).collect(),
                context: context.join("\n"),
            }),
        }
    }

    /// The places of a section's context between two lines: exact ones, or else without the spaces at the lines' ends,
    /// or else without those at their starts too.
    fn matches(&self, section: &Section<'_>, from: usize, until: usize) -> Vec<usize> {
        let changes_rest = |at: usize| {
            section
                .chunks
                .iter()
                .any(|chunk| chunk.deleted > 0 && at + chunk.at + chunk.deleted > self.lines.len())
        };
        for key in [same as fn(&str) -> &str, str::trim_end, str::trim] {
            let places = find_all(&self.texts[..until], &section.context, from.min(until), key);
            let places: Vec<_> = places.filter(|at| !changes_rest(*at)).take(CANDIDATES).collect();
            if !places.is_empty() {
                return places;
            }
        }
        Vec::new()
    }

    fn apply(&self, chunks: &[Chunk<'_>]) -> Result<String, DiffError> {
        let mut output: Vec<(&str, &str)> = Vec::with_capacity(self.lines.len());
        let mut cursor = 0;
        for chunk in chunks {
            let at = chunk.at.min(self.lines.len());
            if cursor > at {
                return Err(DiffError::Overlap { at, cursor });
            }
            output.extend_from_slice(&self.lines[cursor..at]);
            cursor = at + chunk.deleted;
            // Where nothing is deleted, the line before gives the ending: it is the one that is continued.
            let neighbours =
                if chunk.deleted > 0 { [Some(at), at.checked_sub(1)] } else { [at.checked_sub(1), Some(at)] };
            let ending = neighbours.into_iter().flatten().filter_map(|line| self.lines.get(line));
            let ending = ending.map(|(_, ending)| *ending).find(|ending| !ending.is_empty());
            output.extend(chunk.inserted.iter().map(|text| (*text, ending.unwrap_or(self.newline))));
        }
        output.extend_from_slice(&self.lines[cursor..]);

        let last = output.len().saturating_sub(1);
        let mut content = String::new();
        for (line, (text, ending)) in output.iter().enumerate() {
            content.push_str(text);
            if line < last || self.ends_with_newline {
                content.push_str(if ending.is_empty() { self.newline } else { ending });
            }
        }
        Ok(content)
    }
}

/// Reads the `@@` lines before a hunk: those with text, and how many there are.
fn read_anchors<'a>(lines: &[&'a str], index: &mut usize) -> (Vec<&'a str>, usize) {
    let start = *index;
    let mut anchors = Vec::new();
    while let Some(rest) = lines[*index].strip_prefix("@@") {
        match rest.strip_prefix(' ') {
            Some(anchor) if !anchor.trim().is_empty() => anchors.push(anchor),
            Some(_) => {}
            None if rest.is_empty() => {}
            None => break,
        }
        *index += 1;
    }
    (anchors, *index - start)
}

fn read_section<'a>(lines: &[&'a str], start: usize) -> Result<Section<'a>, DiffError> {
    let mut section = Section { context: Vec::new(), chunks: Vec::new(), next: start, at_end: false };
    let mut deleted = 0;
    let mut inserted = Vec::new();
    let mut index = start;
    loop {
        let line = lines[index];
        if line.starts_with("@@")
            || starts_with_any(line, &TERMINATORS)
            || line.starts_with(END_FILE)
            || line == "***"
        {
            break;
        }
        match line.as_bytes().first() {
            Some(b'+') => inserted.push(&line[1..]),
            Some(b'-') => {
                // Lines that come after deleted ones belong to their place; a further deletion goes on from it.
                deleted += 1;
                section.context.push(&line[1..]);
            }
            Some(b' ') | None => {
                section.add_chunk(&mut deleted, &mut inserted);
                section.context.push(line.get(1..).unwrap_or(""));
            }
            Some(_) => return Err(DiffError::Line { line: line.to_owned() }),
        }
        index += 1;
    }
    section.add_chunk(&mut deleted, &mut inserted);
    section.next = index;
    if lines[index] == END_FILE {
        section.at_end = true;
        section.next += 1;
    } else if index == start {
        return Err(DiffError::EmptySection { index, line: lines[index].to_owned() });
    }
    Ok(section)
}

/// Every place at or after `from` where `lines` has `wanted`, compared by `key`. Knuth, Morris and Pratt's search:
/// linear, whatever a model sends.
fn find_all<'a>(
    lines: &'a [&'a str],
    wanted: &'a [&'a str],
    from: usize,
    key: fn(&str) -> &str,
) -> impl Iterator<Item = usize> + 'a {
    let mut borders = vec![0; wanted.len()];
    let mut border = 0;
    for at in 1..wanted.len() {
        while border > 0 && key(wanted[at]) != key(wanted[border]) {
            border = borders[border - 1];
        }
        border += usize::from(key(wanted[at]) == key(wanted[border]));
        borders[at] = border;
    }
    let mut matched = 0;
    (from..lines.len()).filter_map(move |at| {
        while matched > 0 && key(lines[at]) != key(wanted[matched]) {
            matched = borders[matched - 1];
        }
        matched += usize::from(key(lines[at]) == key(wanted[matched]));
        if matched < wanted.len() {
            return None;
        }
        matched = borders[matched - 1];
        Some(at + 1 - wanted.len())
    })
}

fn diff_lines(diff: &str) -> Vec<&str> {
    let mut lines: Vec<_> = diff.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    lines
}

fn split_ending(line: &str) -> (&str, &str) {
    let text = line.strip_suffix('\n').map_or(line, |text| text.strip_suffix('\r').unwrap_or(text));
    line.split_at(text.len())
}

fn newline_of(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn starts_with_any(line: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| line.starts_with(prefix))
}

fn same(text: &str) -> &str {
    text
}

fn places(lines: &[usize]) -> String {
    let numbers: Vec<_> = lines.iter().map(ToString::to_string).collect();
    let more = if lines.len() < CANDIDATES { "" } else { " and perhaps more" };
    format!("lines {}{more}", numbers.join(", "))
}
