//! A reader that bounds what the tar crate may read between two members.
//!
//! Long names and extended headers are read into memory as a whole, whatever size their header claims. The guard
//! gives them an allowance, so that a hostile stream cannot fill the memory. It also remembers whether the stream
//! ended, because the tar crate takes an end without the closing zero block for a good one.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// How much may be read from one member's content to the next: extended headers and padding.
const BETWEEN_MEMBERS: u64 = 1 << 20;

/// What the guard and its user share.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    left: Cell<u64>,
    ended: Cell<bool>,
}

impl Allowance {
    /// From now on: headers.
    pub(crate) fn headers(&self) {
        self.left.set(BETWEEN_MEMBERS);
    }

    /// From now on: content, which its reader counts.
    pub(crate) fn content(&self) {
        self.left.set(u64::MAX);
    }

    /// Whether the stream came to its end.
    pub(crate) fn ended(&self) -> bool {
        self.ended.get()
    }
}

/// The reader.
pub(crate) struct Guard<'a> {
    inner: &'a mut dyn Read,
    allowance: Rc<Allowance>,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(inner: &'a mut dyn Read, allowance: Rc<Allowance>) -> Self {
        Self { inner, allowance }
    }
}

impl Read for Guard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an extended header is too large"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = loop {
            match self.inner.read(&mut buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if left != u64::MAX {
            self.allowance.left.set(left - count as u64);
        }
        if count == 0 && most > 0 {
            self.allowance.ended.set(true);
        }
        Ok(count)
    }
}
