//! Changes of a volume, as far as object storage has them: whole objects are put, copied and deleted. A file that is
//! renamed is copied and then deleted; an empty directory exists in this mount alone.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStoreExt as _, PutPayload};

use crate::fault::Fault;
use crate::spool::Spool;
use crate::volume::{Node, Object, Volume, split};

/// What goes out in one piece, and how large the pieces of more are.
const PART: u64 = 16 << 20;
/// How long one piece may take.
const PART_DEADLINE: Duration = Duration::from_mins(2);
/// How long the server may take to copy an object.
const COPY_DEADLINE: Duration = Duration::from_mins(2);

impl Volume {
    /// A new, empty file at a path, open.
    pub(crate) async fn create(&self, path: &str) -> Result<Arc<Spool>, Fault> {
        self.key(path)?;
        if self.stat(split(path).0).await? != Node::Directory {
            return Err(Fault::NotDirectory);
        }
        self.spools.make(path, true)
    }

    /// A file to be changed, with what it holds.
    pub(crate) async fn edit(
        self: &Arc<Self>,
        path: &str,
        object: &Object,
        truncate: bool,
    ) -> Result<Arc<Spool>, Fault> {
        if let Some(spool) = self.spools.join(path) {
            if truncate {
                spool.resize(0)?;
            }
            return Ok(spool);
        }
        if truncate {
            return self.spools.make(path, true);
        }
        // It gets its name only when it is whole.
        let spool = self.spools.unnamed(false)?;
        let mut offset = 0;
        while offset < object.size {
            let bytes = self.read(path, object, offset, PART, true).await?;
            spool.fill(offset, &bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(self.spools.adopt(path, spool))
    }

    /// Sends what is due.
    pub(crate) async fn upload(&self, spool: &Arc<Spool>) -> Result<(), Fault> {
        let _one = spool.uploading.lock().await;
        let Some(version) = spool.due() else { return Ok(()) };
        // A file that was removed meanwhile has nowhere to go.
        let Some(path) = self.spools.path(spool) else { return Ok(()) };
        let key = self.key(&path)?;
        let size = spool.object().size;
        let piece = |offset: u64| -> Result<PutPayload, Fault> {
            let length = PART.min(size - offset);
            let bytes = spool.read(offset, length as usize)?;
            if bytes.len() as u64 == length { Ok(Bytes::from(bytes).into()) } else { Err(Fault::Changed) }
        };
        if size <= PART {
            within(PART_DEADLINE, self.store.put(&key, piece(0)?)).await?;
        } else {
            let mut upload = within(PART_DEADLINE, self.store.put_multipart(&key)).await?;
            let sent = async {
                let mut offset = 0;
                while offset < size {
                    within(PART_DEADLINE, upload.put_part(piece(offset)?)).await?;
                    offset += PART;
                }
                within(PART_DEADLINE, upload.complete()).await.map(drop)
            };
            if let Err(fault) = sent.await {
                // The pieces would stay, and cost. The first error is what counts.
                let _ = within(PART_DEADLINE, upload.abort()).await;
                return Err(fault);
            }
        }
        spool.sent(version);
        self.forget(&path);
        Ok(())
    }

    pub(crate) async fn remove_file(&self, path: &str) -> Result<(), Fault> {
        if self.stat(path).await? == Node::Directory {
            return Err(Fault::IsDirectory);
        }
        let written = self.spools.removed(path);
        match self.ask(self.store.delete(&self.key(path)?)).await {
            Err(Fault::NotFound) if written => {}
            done => done?,
        }
        self.keep_directory(split(path).0);
        self.forget(path);
        Ok(())
    }

    pub(crate) async fn make_directory(&self, path: &str) -> Result<(), Fault> {
        self.key(path)?;
        match self.stat(path).await {
            Ok(_) => return Err(Fault::Exists),
            Err(Fault::NotFound) => {}
            Err(fault) => return Err(fault),
        }
        if self.stat(split(path).0).await? != Node::Directory {
            return Err(Fault::NotDirectory);
        }
        self.keep_directory(path);
        Ok(())
    }

    pub(crate) async fn remove_directory(&self, path: &str) -> Result<(), Fault> {
        if self.stat(path).await? != Node::Directory {
            return Err(Fault::NotDirectory);
        }
        self.forget(path);
        if !self.list(path).await?.is_empty() {
            return Err(Fault::NotEmpty);
        }
        self.keep_directory(split(path).0);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        self.forget(path);
        Ok(())
    }

    /// Gives a file another name. What had that name is replaced.
    pub(crate) async fn rename(self: &Arc<Self>, from: &str, to: &str, replace: bool) -> Result<(), Fault> {
        let target = self.key(to)?;
        if self.stat(from).await? == Node::Directory {
            return Err(Fault::NoRename);
        }
        match self.stat(to).await {
            Ok(Node::Directory) => return Err(Fault::IsDirectory),
            Ok(Node::File(_)) if !replace => return Err(Fault::Exists),
            Ok(_) | Err(Fault::NotFound) => {}
            Err(fault) => return Err(fault),
        }
        if let Some(spool) = self.spools.join(from) {
            let sent = self.upload(&spool).await;
            self.spools.leave(&spool);
            sent?;
        }
        let source = self.key(from)?;
        within(COPY_DEADLINE, self.store.copy(&source, &target)).await?;
        self.spools.renamed(from, to);
        self.forget(to);
        let deleted = self.ask(self.store.delete(&source)).await;
        self.keep_directory(split(from).0);
        self.forget(from);
        deleted
    }

    /// A directory that stays while this mount does, whether it holds anything or not.
    fn keep_directory(&self, path: &str) {
        if !path.is_empty() {
            self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        }
    }
}

/// One request that moves much, with its deadline.
async fn within<T>(
    deadline: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(deadline, request).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Fault::Deadline(deadline)),
    }
}
