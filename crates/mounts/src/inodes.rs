//! Numbers for paths: the kernel speaks of files by number, and says when it has forgotten one.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

/// The mount itself.
pub(crate) const ROOT: u64 = 1;

/// What the kernel knows at present.
#[derive(Debug, Default)]
pub(crate) struct Inodes {
    hasher: RandomState,
    known: Mutex<HashMap<u64, Known>>,
}

#[derive(Debug)]
struct Known {
    path: String,
    lookups: u64,
}

impl Inodes {
    /// The path of a number that the kernel got from us; relative to the mount, empty for the mount itself.
    pub(crate) fn path(&self, number: u64) -> Option<String> {
        if number == ROOT {
            return Some(String::new());
        }
        self.known().get(&number).map(|known| known.path.clone())
    }

    /// The number that a path would have, for a listing.
    pub(crate) fn number(&self, path: &str) -> u64 {
        free(&self.known(), self.hasher.hash_one(path), path)
    }

    /// The number of a path, which the kernel knows from here on.
    pub(crate) fn look(&self, path: &str) -> u64 {
        let mut known = self.known();
        let number = free(&known, self.hasher.hash_one(path), path);
        let entry = known.entry(number).or_insert_with(|| Known { path: path.to_owned(), lookups: 0 });
        entry.lookups += 1;
        number
    }

    /// The kernel has forgotten it so often.
    pub(crate) fn forget(&self, number: u64, count: u64) {
        let mut known = self.known();
        if let Some(entry) = known.get_mut(&number) {
            entry.lookups = entry.lookups.saturating_sub(count);
            if entry.lookups == 0 {
                known.remove(&number);
            }
        }
    }

    /// A file has another path now. The kernel goes on using its number.
    pub(crate) fn renamed(&self, from: &str, to: &str) {
        for entry in self.known().values_mut().filter(|entry| entry.path == from) {
            entry.path = to.to_owned();
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first number from `hash` on that is the path's, or nobody's.
fn free(known: &HashMap<u64, Known>, hash: u64, path: &str) -> u64 {
    let mut number = hash.max(ROOT + 1);
    while known.get(&number).is_some_and(|other| other.path != path) {
        number = number.wrapping_add(1).max(ROOT + 1);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_as_long_as_the_kernel_knows_it() {
        let inodes = Inodes::default();
        let number = inodes.look("a/b");
        assert_eq!(inodes.look("a/b"), number);
        assert_eq!(inodes.number("a/b"), number);
        inodes.forget(number, 1);
        assert_eq!(inodes.path(number).as_deref(), Some("a/b"));
        inodes.forget(number, 1);
        assert_eq!(inodes.path(number), None);
    }

    #[test]
    fn a_renamed_file_keeps_its_number_and_its_old_name_gets_another() {
        let inodes = Inodes::default();
        let number = inodes.look("old");
        inodes.renamed("old", "new");
        assert_eq!(inodes.path(number).as_deref(), Some("new"));
        assert_ne!(inodes.look("old"), number);
    }
}
