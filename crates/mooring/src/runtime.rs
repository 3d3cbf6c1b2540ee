//! What runs have in common in a program: where they are kept, what time it is, what models cost.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mooring_harness::{Budget, Hooks};
use mooring_journal::event::Tenant;
use mooring_journal::{Journal, MemoryJournal};
use mooring_model::Prices;
use mooring_snapshot::SnapshotStore;
use serde_json::json;

/// Where runs are kept, the clock, and what models cost. Clones share all of it.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub(crate) prices: Arc<Prices>,
    pub(crate) hooks: Hooks,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) snapshots: Option<SnapshotStore>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Runs are gone with the program. For tests, and for work that may be lost.
    pub fn in_memory() -> Self {
        Self::with_journal(Arc::new(MemoryJournal::new()))
    }

    /// Runs are in `directory`, which is made where it is missing, and any process that opens it can go on with them:
    /// the program `moor` too, with the directory as its `MOOR_HOME`. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`crate::Error::Directory`]; [`crate::Error::Journal`] where the journal in it cannot be used.
    #[cfg(feature = "sqlite")]
    pub fn open(directory: impl AsRef<std::path::Path>) -> Result<Self, crate::Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = directory.as_ref();
        // For its owner alone: it holds what agents read and wrote.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| crate::Error::Directory { path: path.to_path_buf(), source })?;
        let journal = mooring_journal::SqliteJournal::open(&path.join("journal.db"))?;
        Ok(Self::with_journal(Arc::new(journal)))
    }

    /// Runs are kept by a journal of the program's own.
    pub fn with_journal(journal: Arc<dyn Journal>) -> Self {
        Self {
            journal,
            now_ms: Arc::new(system_clock),
            prices: Arc::new(Prices::default()),
            hooks: Hooks::default(),
            tenant: None,
            snapshots: None,
        }
    }

    /// The same with another clock, in milliseconds since the Unix epoch.
    pub fn with_clock(mut self, now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.now_ms = Arc::new(now_ms);
        self
    }

    /// The same with what models cost: [`crate::Run::cost`] is counted with it.
    pub fn with_prices(mut self, prices: Prices) -> Self {
        self.prices = Arc::new(prices);
        self
    }

    /// The same with code that is told of each step of every run that is driven with it.
    pub fn with_hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// The same for this tenant: all runs of one account, in whatever process, use no more than `limits` together. An
    /// account is a name: one for each month, say, where the limits are those of a month.
    pub fn with_tenant(
        mut self,
        name: impl Into<String>,
        account: impl Into<String>,
        limits: Budget,
    ) -> Self {
        self.tenant = Some(Tenant { name: name.into(), account: account.into(), limits: json!(limits) });
        self
    }

    /// The same with a place for snapshots of workspaces, for the agents that want some.
    pub fn with_snapshots(mut self, snapshots: SnapshotStore) -> Self {
        self.snapshots = Some(snapshots);
        self
    }

    /// Where runs are kept.
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }
}

fn system_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
