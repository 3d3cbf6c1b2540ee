//! What was read of objects, kept for a while: blocks of one mebibyte, the least recently used of which go first.
//!
//! A block belongs to one state of an object, by its entity tag, so what is kept is never wrong, only unused.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use crate::fault::Fault;

/// How much is read at once.
pub(crate) const BLOCK: u64 = 1 << 20;

/// How many blocks one mount keeps.
const KEPT: usize = 64;

/// Which block of what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) path: String,
    /// The object's state.
    pub(crate) state: String,
    pub(crate) index: u64,
}

type Fetch = Shared<BoxFuture<'static, Result<Bytes, Fault>>>;

#[derive(Default)]
pub(crate) struct Blocks {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    blocks: HashMap<Key, (Fetch, u64)>,
    clock: u64,
}

impl Blocks {
    /// A block, from here or by `fetch`, which runs once for all who ask meanwhile and to its end, whoever still waits.
    pub(crate) fn get(
        &self,
        key: &Key,
        fetch: impl FnOnce() -> BoxFuture<'static, Result<Bytes, Fault>>,
    ) -> Fetch {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        if let Some((found, used)) = kept.blocks.get_mut(key)
            && !matches!(found.peek(), Some(Err(_)))
        {
            *used = now;
            return found.clone();
        }
        let running = tokio::spawn(fetch());
        let block = async move { running.await.unwrap_or(Err(Fault::Ended)) }.boxed().shared();
        kept.blocks.insert(key.clone(), (block.clone(), now));
        if kept.blocks.len() > KEPT {
            let oldest = kept.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                kept.blocks.remove(&oldest);
            }
        }
        block
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").finish_non_exhaustive()
    }
}
