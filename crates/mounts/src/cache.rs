//! Parts of files that were read, the least used forgotten first.

use std::collections::HashMap;

use bytes::Bytes;

/// How much is fetched at once, and kept as one.
pub(crate) const BLOCK: u64 = 1 << 20;
/// How much of a mount is kept in memory.
const MOST_BYTES: usize = 64 << 20;
/// How many parts: many small files are many small parts.
const MOST_BLOCKS: usize = 4096;

/// A file as it was at some moment, and the number of a block.
pub(crate) type Key = (String, String, u64);

/// Blocks of files.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    kept: HashMap<Key, (Bytes, u64)>,
    bytes: usize,
    tick: u64,
}

impl Blocks {
    pub(crate) fn get(&mut self, key: &Key) -> Option<Bytes> {
        self.tick += 1;
        let (block, used) = self.kept.get_mut(key)?;
        *used = self.tick;
        Some(block.clone())
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.kept.contains_key(key)
    }

    pub(crate) fn put(&mut self, key: Key, block: Bytes) {
        self.tick += 1;
        self.bytes += block.len();
        if let Some((old, _)) = self.kept.insert(key, (block, self.tick)) {
            self.bytes -= old.len();
        }
        if self.bytes <= MOST_BYTES && self.kept.len() <= MOST_BLOCKS {
            return;
        }
        // A quarter at once, so that it is seldom.
        let mut ticks: Vec<u64> = self.kept.values().map(|(_, used)| *used).collect();
        ticks.sort_unstable();
        let oldest = ticks[ticks.len() / 4];
        self.kept.retain(|_, (_, used)| *used > oldest);
        self.bytes = self.kept.values().map(|(block, _)| block.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let mut blocks = Blocks::default();
        let key = |n: u64| ("f".to_owned(), "v1".to_owned(), n);
        for n in 0..200 {
            blocks.put(key(n), Bytes::from(vec![0; BLOCK as usize]));
            assert!(blocks.get(&key(0)).is_some(), "the one in use is kept at {n}");
            assert!(blocks.bytes <= MOST_BYTES);
        }
        assert!(!blocks.has(&key(100)) && blocks.has(&key(199)));
    }
}
