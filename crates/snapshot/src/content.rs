//! A file's content as objects, and back.
//!
//! A large file is cut where its content says so, not at fixed places: what is inserted at its beginning changes one
//! piece, not all of them.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use fastcdc::v2020::StreamCDC;

use crate::SnapshotError;
use crate::objects::{Reader, Writer};
use crate::tree::{Content, Data, Digest, encode};

/// Bounds of a piece, and what is aimed at. A file that is no larger than the smallest is one piece.
const PIECE: (u32, u32, u32) = (64 << 10, 256 << 10, 1 << 20);

/// What counts as a hole: a block of zeros that begins at a multiple of its size. File systems keep holes in their own
/// ways, and the same file must be the same everywhere.
const BLOCK: usize = 4096;

impl Writer<'_> {
    /// Puts the content of a dense file.
    ///
    /// # Errors
    /// The outer one of the store, the inner one of the reader.
    pub(crate) fn file(
        &mut self,
        source: &mut dyn Read,
        size_hint: u64,
    ) -> Result<io::Result<Content>, SnapshotError> {
        let mut head = Vec::with_capacity(size_hint.min(u64::from(PIECE.0)) as usize + 1);
        if let Err(error) = (&mut *source).take(u64::from(PIECE.0)).read_to_end(&mut head) {
            return Ok(Err(error));
        }
        if head.len() < PIECE.0 as usize {
            let data = if head.is_empty() { Data::Empty } else { Data::One(self.put(&head)?) };
            return Ok(Ok(Content { size: head.len() as u64, pieces: None, data }));
        }
        let mut size = 0;
        let mut list: Vec<Digest> = Vec::new();
        for piece in StreamCDC::new(head.as_slice().chain(source), PIECE.0, PIECE.1, PIECE.2) {
            match piece {
                Ok(piece) => {
                    size += piece.data.len() as u64;
                    list.push(self.put(&piece.data)?);
                }
                Err(error) => return Ok(Err(error.into())),
            }
        }
        let data = match list.as_slice() {
            [one] => Data::One(*one),
            _ => Data::Many(self.put(&encode(&list)?)?),
        };
        Ok(Ok(Content { size, pieces: None, data }))
    }

    /// Puts the content of a file with holes. `pieces` are the parts of it that `source` gives, one after the other,
    /// each beginning at a multiple of 4096; what is between them are holes.
    pub(crate) fn sparse(
        &mut self,
        source: &mut dyn Read,
        size: u64,
        pieces: Vec<(u64, u64)>,
    ) -> Result<io::Result<Content>, SnapshotError> {
        let found = Rc::new(RefCell::new(Vec::new()));
        let mut data = WithoutZeros {
            source,
            left: pieces.into_iter().collect(),
            block: Vec::with_capacity(BLOCK),
            taken: 0,
            found: Rc::clone(&found),
        };
        let content = self.file(&mut data, size)?;
        let pieces = found.take();
        Ok(content.map(|content| Content { size, pieces: Some(pieces), data: content.data }))
    }
}

/// The blocks that are not zeros, and where they were.
struct WithoutZeros<'a> {
    source: &'a mut dyn Read,
    left: std::collections::VecDeque<(u64, u64)>,
    block: Vec<u8>,
    taken: usize,
    found: Rc<RefCell<Vec<(u64, u64)>>>,
}

impl WithoutZeros<'_> {
    /// Reads the next block that is not zeros. `false` at the end.
    fn advance(&mut self) -> io::Result<bool> {
        while let Some((offset, length)) = self.left.front().copied() {
            if length == 0 {
                self.left.pop_front();
                continue;
            }
            let most = usize::try_from(length).unwrap_or(BLOCK).min(BLOCK);
            self.block.resize(most, 0);
            self.taken = 0;
            self.source.read_exact(&mut self.block)?;
            self.left[0] = (offset + most as u64, length - most as u64);
            if self.block.iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut found = self.found.borrow_mut();
            match found.last_mut() {
                Some((from, length)) if *from + *length == offset => *length += most as u64,
                _ => found.push((offset, most as u64)),
            }
            return Ok(true);
        }
        Ok(false)
    }
}

impl Read for WithoutZeros<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.block.len() && !self.advance()? {
            return Ok(0);
        }
        let count = buffer.len().min(self.block.len() - self.taken);
        buffer[..count].copy_from_slice(&self.block[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// A file's data, read from its objects one by one.
pub(crate) struct Source<'s> {
    reader: &'s Reader<'s>,
    left: std::vec::IntoIter<Digest>,
    now: Vec<u8>,
    at: usize,
    /// Why it broke off: an error of reading cannot carry it.
    pub(crate) failure: Option<SnapshotError>,
}

impl<'s> Source<'s> {
    pub(crate) fn new(reader: &'s Reader<'s>, content: &Content) -> Result<Self, SnapshotError> {
        let left = reader.pieces(content)?.into_iter();
        Ok(Self { reader, left, now: Vec::new(), at: 0, failure: None })
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.now.len() {
            let Some(next) = self.left.next() else { return Ok(0) };
            self.now = self.reader.get(&next).map_err(|error| {
                self.failure = Some(error);
                io::Error::from(io::ErrorKind::InvalidData)
            })?;
            self.at = 0;
        }
        let count = buffer.len().min(self.now.len() - self.at);
        buffer[..count].copy_from_slice(&self.now[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
