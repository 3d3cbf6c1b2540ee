//! Small pieces of text for people.

/// Text from a model, a tool or a file, made harmless for a terminal: no escape sequences, no control characters.
pub(crate) fn safe(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => result.push(c),
            '\t' => result.push_str("    "),
            // CSI sequences (colours, cursor movement) go as a whole; what is left of others loses its escape.
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
            }
            // Bidirectional overrides can make text look like another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => result.push(c),
        }
    }
    result
}

/// All of a text, with what a terminal would obey or hide spelled out: for whoever decides about it.
pub(crate) fn spelled(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => result.push(c),
            c if c.is_control() || unseen(c) => result.extend(c.escape_unicode()),
            c => result.push(c),
        }
    }
    result
}

/// Whether it takes no room of its own on a terminal, or changes the order of others.
fn unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// At most `width` characters of the first line.
pub(crate) fn one_line(text: &str, width: usize) -> String {
    let safe = safe(text);
    let mut lines = safe.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let more = lines.next().is_some();
    if first.chars().count() > width || more {
        let kept: String = first.chars().take(width.saturating_sub(2)).collect();
        format!("{kept} …")
    } else {
        first.to_owned()
    }
}

/// `850 ms`, `1.2 s`, `3 min 5 s`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// `1,234,567`.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut result = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            result.push(',');
        }
        result.push(digit);
    }
    result
}

/// The local date and time, to the second, in UTC.
pub(crate) fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

/// One thing or several: `1 turn`, `2 turns`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{} {noun}s", number(n)) }
}
