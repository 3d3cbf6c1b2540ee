//! The numbers that the kernel knows files by.

use std::collections::HashMap;
use std::time::Instant;

use crate::bucket::Entry;

/// The number of the root.
pub(crate) const ROOT: u64 = 1;

/// A file or directory that the kernel knows.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Below the mount; empty for the root.
    pub(crate) path: String,
    pub(crate) entry: Entry,
    /// When it was looked at.
    pub(crate) seen: Instant,
    /// The version whose content the kernel may have kept.
    pub(crate) cached: Option<String>,
    /// How often the kernel was told of it, and has not forgotten it.
    told: u64,
}

/// All that the kernel knows.
#[derive(Debug)]
pub(crate) struct Table {
    nodes: HashMap<u64, Node>,
    numbers: HashMap<String, u64>,
    next: u64,
}

impl Table {
    pub(crate) fn new() -> Self {
        let root = Node {
            path: String::new(),
            entry: Entry::Directory,
            seen: Instant::now(),
            cached: None,
            told: 1,
        };
        Self { nodes: [(ROOT, root)].into(), numbers: [(String::new(), ROOT)].into(), next: ROOT + 1 }
    }

    pub(crate) fn get(&self, number: u64) -> Option<Node> {
        self.nodes.get(&number).cloned()
    }

    /// The number of what was found at a path, which the kernel is told once more.
    pub(crate) fn tell(&mut self, path: String, entry: Entry) -> u64 {
        let number = self.number(&path);
        let node = self.nodes.entry(number).or_insert_with(|| Node {
            path,
            entry: entry.clone(),
            seen: Instant::now(),
            cached: None,
            told: 0,
        });
        (node.entry, node.seen) = (entry, Instant::now());
        node.told += 1;
        number
    }

    /// What is known by now of something that the kernel knows.
    pub(crate) fn update(&mut self, number: u64, entry: Entry) {
        if let Some(node) = self.nodes.get_mut(&number) {
            (node.entry, node.seen) = (entry, Instant::now());
        }
    }

    /// A file is opened in this version. Says whether what the kernel kept of it is of the same.
    pub(crate) fn open(&mut self, number: u64, version: &str) -> bool {
        let Some(node) = self.nodes.get_mut(&number) else { return false };
        node.cached.replace(version.to_owned()).is_some_and(|cached| cached == version)
    }

    /// The number of a path, whether the kernel knows it or not.
    pub(crate) fn number(&mut self, path: &str) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(path.to_owned(), number);
        number
    }

    pub(crate) fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number).filter(|_| number != ROOT) else { return };
        node.told = node.told.saturating_sub(times);
        if node.told == 0
            && let Some(node) = self.nodes.remove(&number)
        {
            self.numbers.remove(&node.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_number_until_it_is_forgotten_as_often_as_it_was_told() {
        let mut table = Table::new();
        let first = table.tell("a/b".into(), Entry::Directory);
        assert_eq!(table.tell("a/b".into(), Entry::Directory), first);
        table.forget(first, 1);
        assert_eq!(table.get(first).unwrap().path, "a/b");
        table.forget(first, 1);
        assert!(table.get(first).is_none());
        assert_ne!(table.tell("a/b".into(), Entry::Directory), first);
        table.forget(ROOT, 100);
        assert!(table.get(ROOT).is_some());
    }
}
