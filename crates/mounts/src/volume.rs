//! A bucket as a tree of directories and files, read: listings, single objects and their blocks, each with a deadline
//! and kept for a short, stated time. Changes are in `write`.
//!
//! A directory is what keys have in common up to a `/`. Where there is an object `a` beside objects below `a/`, `a` is
//! the directory, and the object is not shown.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt as _};
use tokio::sync::Semaphore;

use crate::blocks::{BLOCK, Blocks, Key};
use crate::bucket::{Bucket, Store};
use crate::fault::{Fault, Faults};
use crate::spool::Spools;

/// How long a command waits for an answer at most: a listing's page, an object's metadata, a block.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);
/// How long what was listed or looked up counts as so.
pub(crate) const FRESH: Duration = Duration::from_secs(10);
/// Most entries of a directory.
const ENTRIES: usize = 500_000;
/// Most entries of all listings that are kept.
const KEPT: usize = 200_000;
/// Most objects that were looked up alone and are kept.
const SEEN: usize = 10_000;
/// Most requests at once.
const AT_ONCE: usize = 32;
/// Longest name.
const NAME: usize = 255;
/// How far is read ahead, in blocks.
const AHEAD: u64 = 8;

/// What is at a path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Directory,
    File(Object),
}

/// A file's state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    /// The entity tag, where the server gives one.
    pub(crate) tag: Option<String>,
}

/// The entries of a directory, by name.
pub(crate) type Listing = Arc<BTreeMap<String, Node>>;

#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) store: Arc<dyn Store>,
    prefix: String,
    pub(crate) faults: Faults,
    listings: Mutex<HashMap<String, (Listing, Instant)>>,
    seen: Mutex<HashMap<String, (Option<Node>, Instant)>>,
    blocks: Blocks,
    requests: Arc<Semaphore>,
    /// Directories that were made here and hold nothing yet: object storage has no empty ones.
    pub(crate) made: Mutex<HashSet<String>>,
    /// Files that are being written.
    pub(crate) spools: Spools,
}

/// Directory and name of a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The path of a name in a directory.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

impl Volume {
    pub(crate) fn new(bucket: Bucket, faults: Faults) -> Self {
        Self {
            store: bucket.store,
            prefix: bucket.prefix,
            faults,
            listings: Mutex::default(),
            seen: Mutex::default(),
            blocks: Blocks::default(),
            requests: Arc::new(Semaphore::new(AT_ONCE)),
            made: Mutex::default(),
            spools: Spools::default(),
        }
    }

    /// The key of a path.
    pub(crate) fn key(&self, path: &str) -> Result<Path, Fault> {
        let name = split(path).1;
        if name.len() > NAME {
            return Err(Fault::Name(name.to_owned()));
        }
        Path::parse(join(&self.prefix, path)).map_err(|_| Fault::Name(name.to_owned()))
    }

    /// What is at a path, if anything.
    pub(crate) async fn stat(&self, path: &str) -> Result<Node, Fault> {
        if path.is_empty() {
            return Ok(Node::Directory);
        }
        if let Some(object) = self.spools.object(path) {
            return Ok(Node::File(object));
        }
        let (directory, name) = split(path);
        let known = match fresh(&self.listings, directory) {
            Some(listing) => Some(listing.get(name).cloned()),
            None => fresh(&self.seen, path),
        };
        let node = match known {
            Some(node) => node,
            None => {
                let node = self.look(path).await?;
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.len() >= SEEN {
                    seen.clear();
                }
                seen.insert(path.to_owned(), (node.clone(), Instant::now()));
                node
            }
        };
        match node {
            Some(node) => Ok(node),
            None if self.is_made(path) => Ok(Node::Directory),
            None => Err(Fault::NotFound),
        }
    }

    /// Asks for one path: as an object, and as the beginning of others.
    async fn look(&self, path: &str) -> Result<Option<Node>, Fault> {
        // A name that no key can have is no file's.
        let Ok(key) = self.key(path) else { return Ok(None) };
        let below = format!("{key}/");
        let object = self.ask(self.store.head(&key));
        let options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        let first = self.ask(self.store.list_paginated(Some(&below), options));
        let (object, first) = tokio::join!(object, first);
        match first {
            Ok(first) if !first.result.objects.is_empty() => return Ok(Some(Node::Directory)),
            Ok(_) | Err(Fault::NotFound) => {}
            // There is something below it.
            Err(Fault::Key(_)) => return Ok(Some(Node::Directory)),
            Err(fault) => return Err(fault),
        }
        match object {
            Ok(meta) => Ok(Some(Node::File(meta.into()))),
            Err(Fault::NotFound) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// What is in a directory.
    pub(crate) async fn list(&self, directory: &str) -> Result<Listing, Fault> {
        let listing = match fresh(&self.listings, directory) {
            Some(listing) => listing,
            None => {
                let listing = Arc::new(self.fetch_listing(directory).await?);
                self.keep(directory, &listing);
                listing
            }
        };
        let made = self.made_in(directory);
        let written = self.spools.within(directory);
        if made.is_empty() && written.is_empty() {
            return Ok(listing);
        }
        let mut all = BTreeMap::clone(&listing);
        for name in made {
            all.entry(name).or_insert(Node::Directory);
        }
        for (name, object) in written {
            all.insert(name, Node::File(object));
        }
        Ok(Arc::new(all))
    }

    async fn fetch_listing(&self, directory: &str) -> Result<BTreeMap<String, Node>, Fault> {
        let whole = join(&self.prefix, directory);
        let whole = whole.trim_end_matches('/');
        let below = if whole.is_empty() { String::new() } else { format!("{whole}/") };
        let mut entries = BTreeMap::new();
        let mut page_token = None;
        loop {
            let options = PaginatedListOptions {
                delimiter: Some("/".into()),
                page_token: page_token.take(),
                ..PaginatedListOptions::default()
            };
            let prefix = (!below.is_empty()).then_some(below.as_str());
            let page = match self.ask(self.store.list_paginated(prefix, options)).await {
                // Of the bucket itself, since a directory without keys is an empty list.
                Err(Fault::NotFound) => {
                    return Err(Fault::Missing("the server knows no such bucket".to_owned()));
                }
                page => page?,
            };
            for object in page.result.objects {
                // The key of the directory itself is a mark that some programs leave.
                if let Some(name) = self.name(&below, object.location.as_ref()) {
                    entries.entry(name).or_insert_with(|| Node::File(object.into()));
                }
            }
            for prefix in page.result.common_prefixes {
                if let Some(name) = self.name(&below, prefix.as_ref()) {
                    entries.insert(name, Node::Directory);
                }
            }
            if entries.len() > ENTRIES {
                return Err(Fault::TooMany(ENTRIES));
            }
            match page.page_token {
                Some(token) => page_token = Some(token),
                None => return Ok(entries),
            }
        }
    }

    /// The name of a key right below a directory.
    fn name(&self, below: &str, key: &str) -> Option<String> {
        let name = key.strip_prefix(below).filter(|name| !name.is_empty() && !name.contains('/'))?;
        if name.len() > NAME {
            self.faults.tell(
                "show",
                name,
                &Fault::Name(format!("{}…", name.chars().take(40).collect::<String>())),
            );
            return None;
        }
        Some(name.to_owned())
    }

    fn keep(&self, directory: &str, listing: &Listing) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.retain(|_, (_, at)| at.elapsed() < FRESH);
        let mut held: usize = listings.values().map(|(listing, _)| listing.len()).sum();
        while held + listing.len() > KEPT {
            let oldest = listings.iter().min_by_key(|(_, (_, at))| *at).map(|(path, _)| path.clone());
            let Some((gone, _)) = oldest.and_then(|path| listings.remove(&path)) else { break };
            held -= gone.len();
        }
        listings.insert(directory.to_owned(), (Arc::clone(listing), Instant::now()));
    }

    /// Bytes of a file in the state in which it was opened.
    pub(crate) async fn read(
        self: &Arc<Self>,
        path: &str,
        object: &Object,
        offset: u64,
        size: u64,
        ahead: bool,
    ) -> Result<Vec<u8>, Fault> {
        let end = object.size.min(offset.saturating_add(size));
        if offset >= end {
            return Ok(Vec::new());
        }
        let (first, last) = (offset / BLOCK, (end - 1) / BLOCK);
        let wanted: Vec<_> = (first..=last).map(|index| self.block(path, object, index)).collect();
        if ahead {
            let end = object.size.div_ceil(BLOCK);
            for index in (last + 1..end).take(AHEAD as usize) {
                // It runs by itself; whoever comes to need it finds it, or its error.
                drop(self.block(path, object, index));
            }
        }
        let mut bytes = Vec::with_capacity((end - offset) as usize);
        for (index, block) in (first..).zip(wanted) {
            let block = match block.await {
                Ok(block) => block,
                Err(fault) => {
                    if matches!(fault, Fault::Changed) {
                        self.forget(path);
                    }
                    return Err(fault);
                }
            };
            let start = index * BLOCK;
            let from = offset.max(start) - start;
            let to = (end - start).min(BLOCK);
            bytes.extend_from_slice(block.get(from as usize..to as usize).ok_or(Fault::Changed)?);
        }
        Ok(bytes)
    }

    fn block(
        self: &Arc<Self>,
        path: &str,
        object: &Object,
        index: u64,
    ) -> impl Future<Output = Result<Bytes, Fault>> + use<> {
        let state = object.tag.clone().unwrap_or_else(|| format!("{:?} {}", object.modified, object.size));
        let key = Key { path: path.to_owned(), state, index };
        let range = index * BLOCK..object.size.min((index + 1) * BLOCK);
        self.blocks.get(&key, || {
            let (volume, path, tag) = (Arc::clone(self), path.to_owned(), object.tag.clone());
            async move { volume.fetch(&path, tag, range).await }.boxed()
        })
    }

    async fn fetch(
        &self,
        path: &str,
        tag: Option<String>,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, Fault> {
        let key = self.key(path)?;
        let length = range.end - range.start;
        let options = GetOptions {
            if_match: tag.clone(),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let work = async {
            let got = self.store.get_opts(&key, options).await?;
            // Not every server looks at what it is asked to match.
            let now = Object::from(got.meta.clone()).tag;
            if tag.is_some() && now.is_some() && now != tag {
                return Err(Fault::Changed);
            }
            Ok(got.bytes().await?)
        };
        let bytes = match self.within(work).await {
            Err(Fault::NotFound) => return Err(Fault::Changed),
            bytes => bytes?,
        };
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(Fault::Changed) }
    }

    /// One request, with the deadline.
    pub(crate) async fn ask<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Fault> {
        self.within(async { Ok(request.await?) }).await
    }

    /// Some requests one after the other, with one deadline, waiting for their turn too.
    async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let work = async {
            let _turn = self.requests.acquire().await.map_err(|_| Fault::Ended)?;
            work.await
        };
        tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(Fault::Deadline(DEADLINE)))
    }

    /// Something has changed here: what was kept about a path counts no more, nor what was about its directories, which
    /// may come and go with it.
    pub(crate) fn forget(&self, path: &str) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = path;
        seen.remove(place);
        listings.remove(place);
        while !place.is_empty() {
            place = split(place).0;
            listings.remove(place);
            seen.remove(place);
        }
    }

    pub(crate) fn is_made(&self, path: &str) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    fn made_in(&self, directory: &str) -> Vec<String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let within = made.iter().map(|path| split(path)).filter(|(above, _)| *above == directory);
        within.map(|(_, name)| name.to_owned()).collect()
    }
}

fn fresh<T: Clone>(kept: &Mutex<HashMap<String, (T, Instant)>>, path: &str) -> Option<T> {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.get(path).filter(|(_, at)| at.elapsed() < FRESH).map(|(value, _)| value.clone())
}

impl From<ObjectMeta> for Object {
    fn from(meta: ObjectMeta) -> Self {
        // Some servers write it without its quotes in a listing.
        let quoted = |tag: String| if tag.contains('"') { tag } else { format!("\"{tag}\"") };
        Self { size: meta.size, modified: meta.last_modified.into(), tag: meta.e_tag.map(quoted) }
    }
}
