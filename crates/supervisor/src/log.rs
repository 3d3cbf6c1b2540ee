//! The output of one command: bounded, addressed by cursor, in order of arrival.
//!
//! Of a command that waits for its reader, only what was not read is kept, and all of it. Of any other, the first half of the limit is kept for ever, since a command's beginning explains the rest; the other half
//! slides, since its end says how it went. What falls out between is counted by the gap in the cursors.

use std::collections::VecDeque;

use mooring_sandbox::Stream;

use crate::wire::Piece;

/// Pieces are cheap, but not free: a command that alternates streams byte by byte must not cost more than its
/// output. At most so many are kept for the limit given.
fn most_pieces(limit: usize) -> usize {
    256 + limit / 64
}

#[derive(Debug)]
pub(crate) struct Log {
    head: Half,
    tail: Half,
    head_limit: usize,
    tail_limit: usize,
    head_full: bool,
    end: u64,
}

#[derive(Debug, Default)]
struct Half {
    bytes: VecDeque<u8>,
    pieces: VecDeque<Piece>,
}

impl Log {
    pub(crate) fn new(limit: usize) -> Self {
        let head_limit = limit / 2;
        Self {
            head: Half::default(),
            tail: Half::default(),
            head_limit,
            tail_limit: limit - head_limit,
            head_full: false,
            end: 0,
        }
    }

    /// One that keeps what was not read.
    pub(crate) fn unread(limit: usize) -> Self {
        Self { head_limit: 0, tail_limit: limit.max(1), head_full: true, ..Self::new(0) }
    }

    /// How much can come before something falls out.
    pub(crate) fn room(&self) -> usize {
        if self.tail.pieces.len() < most_pieces(self.tail_limit) {
            self.tail_limit - self.tail.bytes.len()
        } else {
            0
        }
    }

    /// Lets go of what was read.
    pub(crate) fn forget(&mut self, before: u64) {
        while let Some(first) = self.tail.pieces.front() {
            match before.saturating_sub(first.at).min(first.len) {
                0 => return,
                gone => self.tail.drop_first(gone),
            }
        }
    }

    /// How many bytes have come in all.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn push(&mut self, stream: Stream, mut data: &[u8]) {
        if !self.head_full {
            let room = self.head_limit - self.head.bytes.len();
            let (fits, rest) = data.split_at(room.min(data.len()));
            self.head.push(self.end, stream, fits);
            self.end += fits.len() as u64;
            data = rest;
            self.head_full = !data.is_empty() || self.head.pieces.len() >= most_pieces(self.head_limit);
        }
        // What would be dropped in the same breath need not be copied.
        let skipped = data.len().saturating_sub(self.tail_limit);
        if skipped > 0 {
            self.tail = Half::default();
            self.end += skipped as u64;
            data = &data[skipped..];
        }
        self.tail.push(self.end, stream, data);
        self.end += data.len() as u64;
        self.tail.shrink(self.tail_limit);
    }

    /// What was kept from `after` on, at most `max` bytes of it, and where to read on.
    pub(crate) fn read(&self, after: u64, max: usize) -> (Vec<Piece>, Vec<u8>, u64) {
        let mut found = Found { pieces: Vec::new(), bytes: Vec::new(), next: after, max };
        self.head.read(&mut found);
        self.tail.read(&mut found);
        // Everything between here and the end was dropped, or there is nothing.
        if found.bytes.len() < max {
            found.next = found.next.max(self.end);
        }
        (found.pieces, found.bytes, found.next)
    }
}

struct Found {
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    next: u64,
    max: usize,
}

impl Half {
    fn push(&mut self, at: u64, stream: Stream, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.bytes.extend(data);
        match self.pieces.back_mut() {
            Some(last) if last.stream == stream && last.at + last.len == at => last.len += data.len() as u64,
            _ => self.pieces.push_back(Piece { at, stream, len: data.len() as u64 }),
        }
    }

    fn shrink(&mut self, limit: usize) {
        let most = most_pieces(limit);
        while self.bytes.len() > limit || self.pieces.len() > most {
            let excess = if self.pieces.len() > most { u64::MAX } else { (self.bytes.len() - limit) as u64 };
            let Some(first) = self.pieces.front() else { return };
            self.drop_first(first.len.min(excess));
        }
    }

    /// Drops bytes of the first piece.
    fn drop_first(&mut self, count: u64) {
        let Some(first) = self.pieces.front_mut() else { return };
        self.bytes.drain(..count as usize);
        first.at += count;
        first.len -= count;
        if first.len == 0 {
            self.pieces.pop_front();
        }
    }

    fn read(&self, found: &mut Found) {
        let mut start = 0;
        for piece in &self.pieces {
            let end = piece.at + piece.len;
            let room = found.max - found.bytes.len();
            if end > found.next && room > 0 {
                let from = found.next.max(piece.at);
                let len = ((end - from) as usize).min(room);
                let offset = start + (from - piece.at) as usize;
                found.bytes.extend(self.bytes.range(offset..offset + len));
                found.pieces.push(Piece { at: from, stream: piece.stream, len: len as u64 });
                found.next = from + len as u64;
            }
            start += piece.len as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(log: &Log, step: usize) -> (Vec<(u64, Stream, u8)>, u64) {
        let mut bytes = Vec::new();
        let mut cursor = 0;
        loop {
            let (pieces, data, next) = log.read(cursor, step);
            let mut data = data.into_iter();
            for piece in &pieces {
                for at in piece.at..piece.at + piece.len {
                    bytes.push((at, piece.stream, data.next().unwrap()));
                }
            }
            assert_eq!(data.next(), None);
            if next == cursor {
                return (bytes, next);
            }
            cursor = next;
        }
    }

    #[test]
    fn keeps_the_beginning_and_the_end() {
        let mut log = Log::new(8);
        log.push(Stream::Stdout, b"abcdef");
        log.push(Stream::Stderr, b"ghijklmnop");
        let (pieces, bytes, next) = log.read(0, 100);
        assert_eq!(bytes, b"abcdmnop");
        assert_eq!(
            pieces,
            [
                Piece { at: 0, stream: Stream::Stdout, len: 4 },
                Piece { at: 12, stream: Stream::Stderr, len: 4 }
            ]
        );
        assert_eq!(next, 16);
    }

    proptest! {
        #[test]
        fn every_kept_byte_is_where_it_was(
            limit in 0_usize..64,
            step in 1_usize..9,
            writes in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        ) {
            let mut log = Log::new(limit);
            let mut written = Vec::new();
            for (error, data) in &writes {
                let stream = if *error { Stream::Stderr } else { Stream::Stdout };
                log.push(stream, data);
                written.extend(data.iter().map(|byte| (stream, *byte)));
            }
            let (kept, end) = all(&log, step);
            prop_assert_eq!(end, written.len() as u64);
            prop_assert_eq!(kept.len(), written.len().min(limit));
            for (at, stream, byte) in &kept {
                prop_assert_eq!(written[*at as usize], (*stream, *byte));
            }
            let head = (limit / 2).min(written.len());
            prop_assert!(kept.iter().take(head).map(|(at, ..)| *at).eq(0..head as u64));
        }

        #[test]
        fn nothing_falls_out_that_was_not_read(
            limit in 1_usize..64,
            step in 1_usize..9,
            steps in prop::collection::vec((any::<bool>(), 0_usize..40, any::<bool>()), 0..40),
        ) {
            let mut log = Log::unread(limit);
            let (mut written, mut read, mut cursor) = (Vec::new(), Vec::new(), 0);
            for (error, wanted, reads) in steps {
                let data: Vec<u8> = (0..wanted.min(log.room())).map(|index| (written.len() + index) as u8).collect();
                log.push(if error { Stream::Stderr } else { Stream::Stdout }, &data);
                written.extend(data);
                if reads {
                    log.forget(cursor);
                    let (_, bytes, next) = log.read(cursor, step);
                    read.extend(bytes);
                    cursor = next;
                }
            }
            loop {
                log.forget(cursor);
                let (_, bytes, next) = log.read(cursor, step);
                read.extend(bytes);
                if next == cursor {
                    break;
                }
                cursor = next;
            }
            prop_assert_eq!(read, written);
            prop_assert_eq!(log.room(), limit);
        }

        #[test]
        fn alternating_streams_cost_no_more_than_their_share(bytes in 1000_usize..20_000) {
            let mut log = Log::new(4096);
            for index in 0..bytes {
                log.push(if index % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, b"x");
            }
            prop_assert!(log.head.pieces.len() + log.tail.pieces.len() <= 2 * (most_pieces(2048) + 1));
        }
    }
}
