//! Snapshots of sandbox sessions: taken from the host where the workspace lies there, else as a tar stream; given back
//! as a tar stream.

use std::io::Write;
use std::sync::Arc;

use mooring_archive::ArchiveError;
use mooring_sandbox::{CreateRequest, HostWorkspace, SandboxClient, SandboxError, SandboxSession};
use tokio_util::io::SyncIoBridge;

use crate::export::export;
use crate::import::import;
use crate::index::{self, Index};
use crate::objects::{Reader, Writer};
use crate::scan::{Held, scan};
use crate::store::record;
use crate::tree::Digest;
use crate::{NewSnapshot, Snapshot, SnapshotError, SnapshotStore};

/// How much of a stream is held between its two ends.
const BUFFER: usize = 512 << 10;

/// How often a workspace is read whose files come and go meanwhile.
const TRIES: usize = 5;

impl SnapshotStore {
    /// Takes a snapshot of a session's workspace. What runs in it goes on: a file that changes meanwhile is kept as it
    /// was at some moment of it, and two files may be of two moments.
    ///
    /// A session that is not running will do where its workspace lies on this host.
    ///
    /// # Errors
    /// [`SnapshotError::Exists`], [`SnapshotError::Read`], [`SnapshotError::Sandbox`], [`SnapshotError::Store`]. Nothing
    /// is recorded then.
    pub async fn take(
        &self,
        session: &dyn SandboxSession,
        new: NewSnapshot,
    ) -> Result<Snapshot, SnapshotError> {
        self.read(session, Some(new)).await.map(|(snapshot, _)| snapshot)
    }

    /// What a session's workspace holds now, to compare with snapshots. It is not recorded, and lasts until the next
    /// [`SnapshotStore::prune`].
    ///
    /// # Errors
    /// As [`SnapshotStore::take`].
    pub async fn look(&self, session: &dyn SandboxSession) -> Result<Digest, SnapshotError> {
        self.read(session, None).await.map(|(_, root)| root)
    }

    /// Replaces the workspace of a running session by a snapshot. The sandbox unpacks it, with no more rights than it
    /// has, and lets go of what was there only when all has come.
    ///
    /// # Errors
    /// [`SnapshotError::Unknown`], [`SnapshotError::Damaged`], [`SnapshotError::Sandbox`]. The workspace is as it was
    /// then.
    pub async fn restore(&self, id: &str, session: &dyn SandboxSession) -> Result<Snapshot, SnapshotError> {
        let snapshot = self.get(id)?;
        self.restore_root(snapshot.root, session).await?;
        Ok(snapshot)
    }

    /// The same for what [`SnapshotStore::look`] saw.
    ///
    /// # Errors
    /// As [`SnapshotStore::restore`].
    pub async fn restore_root(
        &self,
        root: Digest,
        session: &dyn SandboxSession,
    ) -> Result<(), SnapshotError> {
        let (input, output) = tokio::io::duplex(BUFFER);
        let input = SyncIoBridge::new(input);
        let store = self.clone();
        let produced = blocking(move || export(&Reader::new(&store)?, &root, input));
        let (produced, restored) = tokio::join!(produced, session.restore(Box::pin(output)));
        match produced {
            // The reader stopped; why is the reader's to say.
            Err(SnapshotError::Read(ArchiveError::Stream { .. })) | Ok(()) => Ok(restored?),
            Err(error) => Err(error),
        }
    }

    /// Makes a session, not started, whose workspace begins as `parent`'s is now. Where the backend can share it does;
    /// elsewhere, and of a session that runs, the files are copied, and the flag says so. `request` says what to make;
    /// what it may do comes from it and from the client, never from the workspace.
    ///
    /// # Errors
    /// As [`SnapshotStore::look`] and [`SnapshotStore::restore`].
    pub async fn fork(
        &self,
        client: &dyn SandboxClient,
        parent: &dyn SandboxSession,
        request: CreateRequest,
    ) -> Result<(Arc<dyn SandboxSession>, bool), SnapshotError> {
        match client.fork(&parent.state(), &request.session_id).await {
            Err(SandboxError::Unsupported { .. }) => {}
            shared => return Ok((shared?, false)),
        }
        if parent.host_workspace().is_none() {
            parent.start().await?;
        }
        let root = self.look(parent).await?;
        let session = client.create(request).await?;
        session.start().await?;
        if let Err(error) = self.restore_root(root, session.as_ref()).await {
            // Half a fork is none. The first error is the one to tell.
            let _ = client.delete(&session.state()).await;
            return Err(error);
        }
        Ok((session, true))
    }

    /// Writes a snapshot as a tar stream. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Unknown`], [`SnapshotError::Damaged`], and [`SnapshotError::Read`] where `out` fails.
    pub fn write_tar(&self, id: &str, out: impl Write) -> Result<(), SnapshotError> {
        let root = self.get(id)?.root;
        export(&Reader::new(self)?, &root, out)
    }

    async fn read(
        &self,
        session: &dyn SandboxSession,
        new: Option<NewSnapshot>,
    ) -> Result<(Snapshot, Digest), SnapshotError> {
        if let Some(workspace) = session.host_workspace() {
            let (store, id, new) = (self.clone(), session.id().to_owned(), new.clone());
            match blocking(move || from_host(&store, &workspace, &id, new)).await {
                // What its owner made unreadable is not so inside, where it is read then.
                Err(error) if unreadable(&error) => session.start().await?,
                other => return other,
            }
        }
        let (input, output) = tokio::io::duplex(BUFFER);
        let output = SyncIoBridge::new(output);
        let (store, id) = (self.clone(), session.id().to_owned());
        let taken = blocking(move || {
            let mut writer = Writer::new(&store)?;
            let held = import(output, &mut writer)?;
            finish(writer, held, &id, new, None)
        });
        let (persisted, taken) = tokio::join!(session.persist(Box::pin(input), &[]), taken);
        match (persisted, taken) {
            // The sandbox's failure explains a stream that broke off.
            (Err(error), Err(SnapshotError::Read(ArchiveError::Stream { .. })) | Ok(_)) => Err(error.into()),
            (_, taken) => taken,
        }
    }
}

fn from_host(
    store: &SnapshotStore,
    workspace: &HostWorkspace,
    session: &str,
    new: Option<NewSnapshot>,
) -> Result<(Snapshot, Digest), SnapshotError> {
    let mut tries = 1;
    loop {
        let mut writer = Writer::new(store)?;
        let mut index = Index::new(store, session);
        match scan(workspace, &mut writer, &mut index) {
            Ok(held) => return finish(writer, held, session, new, Some(&index)),
            // Something went between being listed and being looked at.
            Err(SnapshotError::Read(ArchiveError::File { .. })) if tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn finish(
    writer: Writer<'_>,
    held: Held,
    session: &str,
    new: Option<NewSnapshot>,
    index: Option<&Index<'_>>,
) -> Result<(Snapshot, Digest), SnapshotError> {
    let recorded = new.as_ref().map(|new| new.replaces);
    let new = new.unwrap_or_default();
    let snapshot = Snapshot {
        id: new.id,
        digest: held.root.to_string(),
        session: session.to_owned(),
        manifest_digest: new.manifest_digest,
        taken_ms: new.taken_ms,
        files: held.files,
        bytes: held.bytes,
        added_bytes: writer.added_bytes,
        root: held.root,
    };
    let seen = index.map(Index::save).transpose()?;
    writer.finish(|conn| {
        if let Some(seen) = &seen {
            index::keep(conn, session, seen)?;
        }
        recorded.map_or(Ok(()), |replaces| record(conn, &snapshot, replaces))
    })?;
    Ok((snapshot, held.root))
}

fn unreadable(error: &SnapshotError) -> bool {
    matches!(error, SnapshotError::Read(ArchiveError::File { source, .. })
        if source.kind() == std::io::ErrorKind::PermissionDenied)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SandboxError::Invalid { reason: format!("a snapshot was interrupted: {error}") })?
}
