//! Long output cut in its middle to a number of tokens, as the OpenAI Agents SDK cuts it.
//!
//! A token is taken as four bytes. The text is fed in pieces and only what may be shown is kept, so that it costs the
//! same little memory however much comes. Unlike the SDK's, no step goes over the text character by character in
//! vain: pieces beyond the limit are only counted.

const BYTES_PER_TOKEN: u64 = 4;

/// Cuts `text` to `max_tokens`. The second value is the whole's number of tokens where something was cut.
///
/// ```
/// let (text, tokens) = mooring_capability::truncate(&"0123456789".repeat(20), 15);
/// assert_eq!(text, "Total output lines: 1\n\n012345…47 tokens truncated…456789");
/// assert_eq!(tokens, Some(50));
/// ```
pub fn truncate(text: &str, max_tokens: usize) -> (String, Option<u64>) {
    let mut excerpt = Excerpt::new(max_tokens);
    excerpt.push(text);
    let cut = excerpt.finish();
    (cut.text, cut.tokens)
}

/// The start and the end of a text that may be long.
#[derive(Debug)]
pub(crate) struct Excerpt {
    /// In bytes.
    limit: usize,
    head: String,
    /// What came after the head; its own start is dropped now and then.
    tail: String,
    total: u64,
    lines: Lines,
}

/// A text after the cut.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) text: String,
    /// The whole's tokens, where something was cut.
    pub(crate) tokens: Option<u64>,
    /// How many bytes were cut.
    pub(crate) omitted: u64,
}

impl Excerpt {
    pub(crate) fn new(max_tokens: usize) -> Self {
        let limit = max_tokens.saturating_mul(BYTES_PER_TOKEN as usize);
        Self { limit, head: String::new(), tail: String::new(), total: 0, lines: Lines::default() }
    }

    pub(crate) fn push(&mut self, piece: &str) {
        self.total += piece.len() as u64;
        self.lines.count(piece);
        let room =
            if self.tail.is_empty() { piece.floor_char_boundary(self.limit - self.head.len()) } else { 0 };
        let (head, tail) = piece.split_at(room);
        self.head.push_str(head);
        self.tail.push_str(&tail[tail.floor_char_boundary(tail.len().saturating_sub(self.limit))..]);
        if self.tail.len() > self.limit.saturating_mul(2) {
            self.tail.drain(..self.tail.floor_char_boundary(self.tail.len() - self.limit));
        }
    }

    pub(crate) fn finish(self) -> Cut {
        if self.total <= self.limit as u64 {
            return Cut { text: self.head + &self.tail, tokens: None, omitted: 0 };
        }
        let tokens = tokens_of(self.total);
        let mut prefix = format!("Total output lines: {}\n\n", self.lines.total());
        let provisional = marker(tokens);
        if prefix.len() + provisional.len() > self.limit {
            prefix.clear();
        }
        let Some(budget) = self.limit.checked_sub(prefix.len() + provisional.len()) else {
            let text = provisional[..provisional.floor_char_boundary(self.limit)].to_owned();
            return Cut { text, tokens: Some(tokens), omitted: self.total };
        };
        let left = &self.head[..self.head.floor_char_boundary(budget / 2)];
        // The tail alone is too short where the text is little longer than the limit.
        let end = if self.tail.len() < self.limit { self.head.clone() + &self.tail } else { self.tail };
        let right = &end[end.ceil_char_boundary(end.len() - (budget - budget / 2))..];
        let omitted = self.total - (left.len() + right.len()) as u64;
        Cut {
            text: format!("{prefix}{left}{}{right}", marker(tokens_of(omitted))),
            tokens: Some(tokens),
            omitted,
        }
    }
}

fn tokens_of(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

fn marker(tokens: u64) -> String {
    format!("…{tokens} tokens truncated…")
}

/// Counts lines as Python's `str.splitlines` does.
#[derive(Debug, Default)]
struct Lines {
    ended: u64,
    /// Something came after the last line's end.
    open: bool,
    /// The last character was a carriage return: a line feed belongs to it.
    after_return: bool,
}

impl Lines {
    fn count(&mut self, piece: &str) {
        for character in piece.chars() {
            let joined = self.after_return && character == '\n';
            self.after_return = character == '\r';
            let ends = matches!(
                character,
                '\n' | '\x0b' | '\x0c' | '\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
            );
            self.ended += u64::from(ends && !joined);
            self.open = !ends;
        }
    }

    fn total(&self) -> u64 {
        self.ended + u64::from(self.open)
    }
}
