//! The contract of a journal's store.
//!
//! Fencing: a driver claims a run and gets an epoch that no other has had; an append names that epoch and the
//! sequence number it expects to follow. Two drivers can thus never both drive one run, whatever they believe.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Event, Record, RunId};

/// Amounts by name. What they mean and in which unit they are is the caller's to know.
pub type Amounts = BTreeMap<String, u64>;

/// A boxed future, for the object-safe trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Words that may wait for one run's driver.
pub(crate) const MAX_SIGNALS: usize = 1000;

/// An event with the time it happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What happened.
    pub event: Event,
}

/// How safe an append must be when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives the end of the process, however sudden.
    Process,
    /// It survives a power failure too: it has been synced, and all before it.
    Power,
}

/// Events to append, all or none.
#[derive(Debug, Clone)]
pub struct Append {
    /// The run.
    pub run: RunId,
    /// The epoch from the claim.
    pub epoch: u64,
    /// The sequence number of the run's last event, as the writer knows it; 0 for an empty run.
    pub after: u64,
    /// The events. Shared with the writer, which goes on with them once they are kept.
    pub events: Arc<Vec<Stamped>>,
    /// What listings show of the run, as JSON: replaced as a whole when given. The journal does not look into it.
    pub summary: Option<String>,
    /// How safe.
    pub durability: Durability,
}

/// The right to drive a run, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    /// The driver's epoch.
    pub epoch: u64,
    /// The sequence number of the last event.
    pub last_seq: u64,
    /// Held while the driver lives: shows other processes that the run is driven.
    pub guard: Box<dyn std::any::Any + Send + Sync>,
}

/// A run as listings show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// The run.
    pub id: RunId,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When its last event was appended.
    pub updated_ms: i64,
    /// The sequence number of its last event.
    pub last_seq: u64,
    /// The epoch of its last driver.
    pub epoch: u64,
    /// Whether a driver holds it now.
    pub driven: bool,
    /// What its driver last said of it.
    pub summary: Value,
}

/// What one run holds of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The account.
    pub account: String,
    /// The run.
    pub holder: RunId,
    /// Whether it is set aside for a run that goes on; otherwise it was used.
    pub open: bool,
    /// How much.
    pub amounts: Amounts,
}

/// What can go wrong with a journal.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// No run has that id.
    #[error("no run {run} in {store}. `moor runs` lists the runs there are")]
    UnknownRun {
        /// The id.
        run: RunId,
        /// The store.
        store: String,
    },
    /// A run of that id exists.
    #[error("run {run} exists already in {store}")]
    RunExists {
        /// The id.
        run: RunId,
        /// The store.
        store: String,
    },
    /// Another driver holds the run.
    #[error(
        "run {run} is being driven by {owner}. Watch it with `moor events {run} --follow`, or end it with `moor cancel {run}`"
    )]
    Driven {
        /// The run.
        run: RunId,
        /// Who drives it.
        owner: String,
    },
    /// Another driver took the run over; this one must stop.
    #[error(
        "run {run} was taken over by another driver (epoch {current}, this one had {epoch}); this driver stops"
    )]
    Fenced {
        /// The run.
        run: RunId,
        /// The writer's epoch.
        epoch: u64,
        /// The newest epoch.
        current: u64,
    },
    /// The writer's picture of the run is out of date.
    #[error("run {run} has {actual} events where {expected} were expected; read it again")]
    Conflict {
        /// The run.
        run: RunId,
        /// What the writer expected.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// A record is damaged.
    #[error(
        "the journal {store} is damaged at event {seq} of run {run}: {reason}. Events before it are whole: `moor events {run}` shows them"
    )]
    Damaged {
        /// The run.
        run: RunId,
        /// The first damaged event.
        seq: u64,
        /// The store.
        store: String,
        /// How it shows.
        reason: String,
    },
    /// No space is left.
    #[error(
        "no space left for the journal {store}. Nothing that was recorded is lost: free some space, then `moor resume` the run"
    )]
    Full {
        /// The store.
        store: String,
    },
    /// The store failed in another way.
    #[error("the journal {store} failed: {reason}")]
    Store {
        /// The store.
        store: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// A store of runs.
pub trait Journal: Send + Sync + std::fmt::Debug {
    /// Makes an empty run and claims it. `owner` says who drives it, for people. An id has 1 to 128 ASCII letters,
    /// digits, `-` and `_`.
    fn create<'a>(
        &'a self,
        run: &'a RunId,
        at_ms: i64,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Claim, JournalError>>;

    /// Takes an existing run. Fails with [`JournalError::Driven`] while another driver lives.
    fn claim<'a>(&'a self, run: &'a RunId, owner: &'a str) -> BoxFuture<'a, Result<Claim, JournalError>>;

    /// Appends events; gives the sequence number of the last. An event that could not be read back as it is (nested
    /// deeper than 120 levels, a reward that is no finite number) is refused, and the append with it.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<u64, JournalError>>;

    /// Events after `after`, at most `limit`, each checked against its checksum.
    fn read<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>>;

    /// One run, or all with `None`; the newest first.
    fn runs<'a>(&'a self, run: Option<&'a RunId>) -> BoxFuture<'a, Result<Vec<RunRow>, JournalError>>;

    /// Leaves word for a run's driver, such as `cancel`. Any process may. At most 1,000 words wait for a run.
    fn signal<'a>(&'a self, run: &'a RunId, word: &'a str) -> BoxFuture<'a, Result<(), JournalError>>;

    /// What was left for a run's driver and not yet taken; takes it. Cheap enough to ask often.
    fn signals<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Vec<String>, JournalError>>;

    /// Sets amounts of an account aside for a run, and gives them: of each name in `limit` as much as `want` says, or
    /// all where it says nothing, but no more than the limit leaves beside what all other holders have. What the run
    /// has set aside already stays as it is; what it had used is part of what it gets. All of it happens at once:
    /// nobody else can be given the same.
    fn reserve<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        want: &'a Amounts,
        limit: &'a Amounts,
    ) -> BoxFuture<'a, Result<Amounts, JournalError>>;

    /// Puts what a run has used in the place of what was set aside for it. Doing it again changes nothing.
    fn settle<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        spent: &'a Amounts,
    ) -> BoxFuture<'a, Result<(), JournalError>>;

    /// All that is set aside or used, by account and holder.
    fn holdings(&self) -> BoxFuture<'_, Result<Vec<Holding>, JournalError>>;
}

/// What a run gets: see [`Journal::reserve`]. `others` is what all others have.
pub(crate) fn grant(own: Option<&Holding>, want: &Amounts, limit: &Amounts, others: &Amounts) -> Amounts {
    if let Some(own) = own.filter(|own| own.open) {
        return own.amounts.clone();
    }
    let part = |(name, most): (&String, &u64)| {
        let left = most.saturating_sub(others.get(name).copied().unwrap_or(0));
        let used = own.and_then(|own| own.amounts.get(name)).copied().unwrap_or(0);
        // A limit that was lowered since does not undo what was used.
        (name.clone(), want.get(name).map_or(left, |want| left.min(*want)).max(used))
    };
    limit.iter().map(part).collect()
}

/// What [`Journal::signal`] says at [`MAX_SIGNALS`].
pub(crate) fn too_many_signals(run: &RunId, store: &str) -> JournalError {
    let reason =
        format!("{MAX_SIGNALS} words wait for run {run} already; resume it, and its driver takes them");
    JournalError::Store { store: store.to_owned(), reason }
}
