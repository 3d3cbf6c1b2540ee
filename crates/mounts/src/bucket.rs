//! Storage as a tree: what is in a directory, what a name is, what is in a file.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _};

use crate::cache::{BLOCK, Blocks};
use crate::connect::{Connected, told};

/// How old what is known of names may be. A file that changed meanwhile cannot be read half old and half new.
pub const FRESH: Duration = Duration::from_secs(5);

/// How long one request of the kernel may take, all tries together.
const DEADLINE: Duration = Duration::from_secs(30);
/// How many listings are kept.
const LISTINGS: usize = 256;
/// The longest name of a file.
const NAME: usize = 255;
/// How many blocks are fetched at once where a file is read from front to back.
const AHEAD: u64 = 8;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Directory,
    File(File),
}

/// An object, as it was at some moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct File {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    /// What is another whenever the content is.
    pub(crate) version: String,
    etag: Option<String>,
}

impl File {
    fn of(meta: &ObjectMeta) -> Self {
        let modified = SystemTime::from(meta.last_modified);
        let version = meta.e_tag.clone().unwrap_or_else(|| format!("{} {}", meta.last_modified, meta.size));
        Self { size: meta.size, modified, version, etag: meta.e_tag.clone() }
    }
}

/// Why something could not be had.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is not there.
    Missing,
    /// The storage does not let us.
    Denied(String),
    /// It is no longer what was opened.
    Changed,
    /// Nothing came in time.
    Late,
    /// Anything else.
    Failed(String),
}

impl Fault {
    fn of(error: &object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Self::Denied(told(error))
            }
            object_store::Error::Precondition { .. } | object_store::Error::NotModified { .. } => {
                Self::Changed
            }
            other => Self::of_answer(told(other)),
        }
    }

    /// What an answer to a listing means, of which the client tells nothing but the text.
    fn of_answer(text: String) -> Self {
        let status =
            |codes: [&str; 2]| codes.iter().any(|code| text.contains(&format!("status code: {code}")));
        if status(["404", "410"]) {
            Self::Missing
        } else if status(["401", "403"]) {
            Self::Denied(text)
        } else {
            Self::Failed(text)
        }
    }

    /// In words.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Missing => "there is no such bucket, container or object".into(),
            Self::Denied(why) => format!("the storage refused: {why}"),
            Self::Changed => "it was changed meanwhile".into(),
            Self::Late => format!("no answer came within {} s", DEADLINE.as_secs()),
            Self::Failed(why) => why.clone(),
        }
    }
}

/// What is in a directory, by name.
pub(crate) type Listing = BTreeMap<String, Entry>;

/// What is mounted.
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    listings: Mutex<HashMap<String, (Instant, Arc<Listing>)>>,
    blocks: Mutex<Blocks>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: who knows what it shows.
        f.debug_struct("Bucket").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Bucket {
    pub(crate) fn new(connected: Connected) -> Self {
        let Connected { store, prefix } = connected;
        Self { store, prefix, listings: Mutex::default(), blocks: Mutex::default() }
    }

    /// Whether it can be listed.
    pub(crate) async fn probe(&self) -> Result<(), Fault> {
        in_time(async {
            match self.store.list(Some(&self.prefix)).next().await {
                Some(Err(error)) => Err(Fault::of(&error)),
                Some(Ok(_)) | None => Ok(()),
            }
        })
        .await
    }

    /// The name of an object, or of a directory of objects, from a path below the mount.
    fn name(&self, path: &str) -> Result<Path, Fault> {
        let prefix = self.prefix.as_ref();
        let whole = match (prefix.is_empty(), path.is_empty()) {
            (true, _) => path.to_owned(),
            (false, true) => prefix.to_owned(),
            (false, false) => format!("{prefix}/{path}"),
        };
        // What cannot be an object's name is the name of none.
        Path::parse(whole).map_err(|_| Fault::Missing)
    }

    /// What is in a directory.
    pub(crate) async fn list(&self, path: &str) -> Result<Arc<Listing>, Fault> {
        if let Some(known) = self.known(path) {
            return Ok(known);
        }
        let name = self.name(path)?;
        let found = in_time(async {
            self.store.list_with_delimiter(Some(&name)).await.map_err(|error| Fault::of(&error))
        })
        .await?;
        let mut listing = Listing::new();
        for object in &found.objects {
            if let Some(name) = object.location.filename().filter(|name| name.len() <= NAME) {
                listing.insert(name.to_owned(), Entry::File(File::of(object)));
            }
        }
        for directory in &found.common_prefixes {
            if let Some(name) = directory.filename().filter(|name| name.len() <= NAME) {
                listing.insert(name.to_owned(), Entry::Directory);
            }
        }
        let listing = Arc::new(listing);
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if listings.len() >= LISTINGS {
            listings.retain(|_, (since, _)| since.elapsed() < FRESH);
            if listings.len() >= LISTINGS {
                listings.clear();
            }
        }
        listings.insert(path.to_owned(), (Instant::now(), Arc::clone(&listing)));
        Ok(listing)
    }

    fn known(&self, path: &str) -> Option<Arc<Listing>> {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, listing) = listings.get(path)?;
        (since.elapsed() < FRESH).then(|| Arc::clone(listing))
    }

    /// What a name in a directory stands for.
    pub(crate) async fn find(&self, directory: &str, name: &str) -> Result<Entry, Fault> {
        if let Some(listing) = self.known(directory) {
            return listing.get(name).cloned().ok_or(Fault::Missing);
        }
        let path = join(directory, name);
        let whole = self.name(&path)?;
        in_time(async {
            match self.store.list(Some(&whole)).next().await {
                Some(Ok(_)) => return Ok(Entry::Directory),
                Some(Err(error)) => match Fault::of(&error) {
                    Fault::Missing => {}
                    fault => return Err(fault),
                },
                None => {}
            }
            match self.store.head(&whole).await {
                Ok(meta) => Ok(Entry::File(File::of(&meta))),
                Err(error) => Err(Fault::of(&error)),
            }
        })
        .await
    }

    /// A file as it is now.
    pub(crate) async fn look(&self, path: &str) -> Result<File, Fault> {
        let name = self.name(path)?;
        in_time(async { self.store.head(&name).await.map_err(|error| Fault::of(&error)) })
            .await
            .map(|meta| File::of(&meta))
    }

    /// Part of a file, as it was when it was looked at.
    pub(crate) async fn read(&self, path: &str, file: &File, from: u64, most: u64) -> Result<Bytes, Fault> {
        let to = file.size.min(from.saturating_add(most));
        if from >= to {
            return Ok(Bytes::new());
        }
        let mut read = BytesMut::with_capacity((to - from) as usize);
        for block in from / BLOCK..=(to - 1) / BLOCK {
            let whole = self.block(path, file, block).await?;
            let begin = block * BLOCK;
            let part = from.max(begin) - begin..to.min(begin + whole.len() as u64) - begin;
            let part = whole.get(part.start as usize..part.end as usize);
            read.extend_from_slice(part.ok_or(Fault::Changed)?);
        }
        Ok(read.freeze())
    }

    async fn block(&self, path: &str, file: &File, block: u64) -> Result<Bytes, Fault> {
        let key = |block: u64| (path.to_owned(), file.version.clone(), block);
        let ahead = {
            let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = blocks.get(&key(block)) {
                return Ok(known);
            }
            if block > 0 && blocks.has(&key(block - 1)) { AHEAD } else { 1 }
        };
        let begin = block * BLOCK;
        let end = file.size.min((block + ahead) * BLOCK);
        let name = self.name(path)?;
        let options = GetOptions {
            range: Some((begin..end).into()),
            if_match: file.etag.clone(),
            ..GetOptions::default()
        };
        let fetched = in_time(async {
            let got = self.store.get_opts(&name, options).await.map_err(|error| Fault::of(&error))?;
            // One that does not know the condition says what it sent.
            if File::of(&got.meta).version != file.version {
                return Err(Fault::Changed);
            }
            got.bytes().await.map_err(|error| Fault::of(&error))
        })
        .await?;
        if fetched.len() as u64 != end - begin {
            return Err(Fault::Changed);
        }
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let step = BLOCK as usize;
        for (at, start) in (block..).zip((0..fetched.len()).step_by(step)) {
            let part = fetched.slice(start..fetched.len().min(start + step));
            // A copy: a part that stays must not keep the others.
            blocks.put(key(at), Bytes::copy_from_slice(&part));
        }
        Ok(fetched.slice(..fetched.len().min(step)))
    }
}

/// A path of a name in a directory.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(Fault::Late))
}
