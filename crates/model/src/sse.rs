//! A parser of server-sent events, after the WHATWG's specification: any line ending, comments, a byte order mark,
//! data over several lines, chunks cut anywhere. `id` and `retry` mean nothing here and are skipped. Where the
//! specification replaces malformed UTF-8, this refuses it: an answer is not to be changed silently.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its `event` field; empty where it has none.
    pub(crate) name: String,
    /// Its `data` lines, joined.
    pub(crate) data: String,
}

/// Why bytes are no event stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    #[error("a single event is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the stream is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("a line is not UTF-8")]
    NotUtf8,
}

/// The parser. Bytes go in, in pieces of any size; whole events come out.
pub(crate) struct SseParser {
    event_limit: usize,
    total_limit: usize,
    /// All bytes so far.
    total: usize,
    /// The line so far, without its end.
    line: Vec<u8>,
    /// The last byte was a carriage return, so a line feed now belongs to it.
    after_return: bool,
    /// No line is over yet, so this one may begin with a byte order mark.
    first_line: bool,
    name: String,
    data: Option<String>,
}

impl SseParser {
    /// A parser that refuses an event, and a stream, with more bytes than these.
    pub(crate) fn new(event_limit: usize, total_limit: usize) -> Self {
        Self {
            event_limit,
            total_limit,
            total: 0,
            line: Vec::new(),
            after_return: false,
            first_line: true,
            name: String::new(),
            data: None,
        }
    }

    /// Takes the next bytes and adds the events that they complete to `events`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), SseError> {
        self.total = self.total.saturating_add(bytes.len());
        if self.total > self.total_limit {
            return Err(SseError::TooLong { limit: self.total_limit });
        }
        while let Some(&byte) = bytes.first() {
            if std::mem::take(&mut self.after_return) && byte == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            let held = self.line.len() + self.data.as_ref().map_or(0, String::len) + piece.len();
            if held > self.event_limit {
                return Err(SseError::TooLarge { limit: self.event_limit });
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { return Ok(()) };
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            events.extend(self.end_line(&line)?);
        }
        Ok(())
    }

    fn end_line(&mut self, line: &[u8]) -> Result<Option<SseEvent>, SseError> {
        let mut line = std::str::from_utf8(line).map_err(|_| SseError::NotUtf8)?;
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return Ok(self.data.take().map(|data| SseEvent { name, data }));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment has no field name; all else is not for us.
            _ => {}
        }
        Ok(None)
    }
}

/// For fuzzing: a stream cut into pieces at these places says what the whole stream says.
#[cfg(fuzzing)]
#[allow(clippy::missing_panics_doc, reason = "a panic is what a fuzzer looks for")]
pub fn fuzz_sse(stream: &[u8], cuts: &[u8]) {
    let mut whole = Vec::new();
    let first = SseParser::new(1 << 16, 1 << 20).push(stream, &mut whole).is_ok();
    let (mut parser, mut pieces, mut rest, mut second) =
        (SseParser::new(1 << 16, 1 << 20), Vec::new(), stream, true);
    for cut in cuts.iter().map(|cut| usize::from(*cut)).chain([usize::MAX]) {
        let (piece, left) = rest.split_at(cut.min(rest.len()));
        second = second && parser.push(piece, &mut pieces).is_ok();
        rest = left;
    }
    assert_eq!(first, second);
    if first {
        let said = |events: &[SseEvent]| -> Vec<(String, String)> {
            events.iter().map(|event| (event.name.clone(), event.data.clone())).collect()
        };
        assert_eq!(said(&whole), said(&pieces));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<SseEvent> {
        let mut parser = SseParser::new(1 << 20, 1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk, &mut events).unwrap();
        }
        events
    }

    fn event(name: &str, data: &str) -> SseEvent {
        SseEvent { name: name.into(), data: data.into() }
    }

    #[test]
    fn the_examples_of_the_specification() {
        assert_eq!(parse([b"data: YHOO\ndata: +2\ndata: 10\n\n".as_slice()]), [event("", "YHOO\n+2\n10")]);
        let four =
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        assert_eq!(
            parse([four.as_slice()]),
            [event("", "first event"), event("", "second event"), event("", " third event")]
        );
        let empty = b"data\n\ndata\ndata\n\ndata:";
        assert_eq!(parse([empty.as_slice()]), [event("", ""), event("", "\n")]);
        assert_eq!(
            parse([b"data:test\n\ndata: test\n\n".as_slice()]),
            [event("", "test"), event("", "test")]
        );
    }

    #[test]
    fn every_line_ending_a_mark_and_a_name() {
        let text = "\u{feff}event: a\r\ndata: 1\r\n\r\nevent: b\rdata: 2\r\revent: c\ndata: 3\n\n: x\nevent: lost\n\ndata: 4\n\n";
        assert_eq!(
            parse([text.as_bytes()]),
            [event("a", "1"), event("b", "2"), event("c", "3"), event("", "4")]
        );
    }

    #[test]
    fn an_event_that_is_not_ended_is_not_given() {
        assert_eq!(parse([b"data: half".as_slice()]), []);
        assert_eq!(parse([b"data: half\n".as_slice()]), []);
    }

    #[test]
    fn what_is_too_large_or_not_text_is_refused() {
        let mut parser = SseParser::new(10, 100);
        let mut events = Vec::new();
        parser.push(b"data: 1\n\ndata: 2\n\n", &mut events).unwrap();
        assert_eq!(parser.push(b"data: 345678", &mut events), Err(SseError::TooLarge { limit: 10 }));
        let mut parser = SseParser::new(20, 100);
        assert_eq!(
            parser.push(b"data: 12345678\ndata: 12345678\n", &mut events),
            Err(SseError::TooLarge { limit: 20 })
        );
        let mut parser = SseParser::new(10, 16);
        parser.push(b": still hi\n", &mut events).unwrap();
        assert_eq!(parser.push(b": still hi\n", &mut events), Err(SseError::TooLong { limit: 16 }));
        assert_eq!(SseParser::new(10, 100).push(b"data: \xff\n", &mut events), Err(SseError::NotUtf8));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(
            text in "(data: ?|event: ?|:|\r|\n|\r\n|é|x|\u{feff}| ){0,60}",
            cuts in prop::collection::vec(0..200usize, 0..20),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(parse(chunks), parse([bytes]));
        }

        #[test]
        fn what_is_written_is_read_back(
            events in prop::collection::vec(("[a-z.]{0,8}", "[^\r\u{feff}]{0,40}"), 0..8),
            ending in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let mut text = String::new();
            for (name, data) in &events {
                let data = data.split('\n').map(|line| format!("data: {line}{ending}"));
                text = [text, format!("event: {name}{ending}")].into_iter().chain(data).collect::<String>() + ending;
            }
            let expected: Vec<_> = events.iter().map(|(name, data)| event(name, data)).collect();
            prop_assert_eq!(parse([text.as_bytes()]), expected);
        }
    }
}
