//! Where a file has data and where it has holes, so that a sparse file stays one.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// A file in more pieces than this is taken as dense: the map would cost more than the holes save.
const MAX_EXTENTS: usize = 10_000;

/// A tar stream is made of such blocks, and so is its map of a sparse file.
const BLOCK: u64 = 512;

/// A piece of a file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is: whole blocks of 512 bytes, but for the last piece.
    pub length: u64,
}

/// The pieces of a file of `size` bytes that hold data. `None`: it is dense, or its file system does not tell.
///
/// # Errors
/// What the system says.
pub fn extents(file: &File, size: u64) -> io::Result<Option<Vec<Extent>>> {
    let mut found: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(begin) if begin < size => begin / BLOCK * BLOCK,
            // Only a hole is left.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(begin))?.next_multiple_of(BLOCK).min(size);
        match found.last_mut() {
            Some(last) if last.offset + last.length >= begin => last.length = end - last.offset,
            _ => found.push(Extent { offset: begin, length: end - begin }),
        }
        if found.len() > MAX_EXTENTS {
            return Ok(None);
        }
        at = end;
    }
    let dense = found.first().is_some_and(|first| *first == Extent { offset: 0, length: size });
    Ok((!dense).then_some(found))
}

/// The data of a sparse file, one piece after the other.
#[derive(Debug)]
pub struct Pieces<'a> {
    file: &'a File,
    left: std::slice::Iter<'a, Extent>,
    now: Extent,
}

impl<'a> Pieces<'a> {
    /// The data of `file` in these pieces.
    pub fn new(file: &'a File, extents: &'a [Extent]) -> Self {
        Self { file, left: extents.iter(), now: Extent { offset: 0, length: 0 } }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.length == 0 {
            match self.left.next() {
                Some(next) => self.now = *next,
                None => return Ok(0),
            }
        }
        let most = buffer.len().min(usize::try_from(self.now.length).unwrap_or(usize::MAX));
        let count = std::os::unix::fs::FileExt::read_at(self.file, &mut buffer[..most], self.now.offset)?;
        self.now.offset += count as u64;
        self.now.length -= count as u64;
        Ok(count)
    }
}
