//! A journal in memory: the same contract, gone with the process. For tests and simulations.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::{MAX_SIGNALS, grant, too_many_signals};
use crate::{
    Amounts, Append, BoxFuture, Claim, Holding, Journal, JournalError, Record, RunId, RunRow, SCHEMA_VERSION,
    Stamped, chain,
};

const STORE: &str = "in memory";

/// A journal in memory. Clones share it, as two processes share a file.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    runs: Vec<RunId>,
    by_id: HashMap<RunId, Run>,
    fault: Option<(u64, JournalError)>,
    /// By account and holder.
    holdings: BTreeMap<(String, RunId), Holding>,
}

#[derive(Debug)]
struct Run {
    created_ms: i64,
    updated_ms: i64,
    epoch: u64,
    records: Vec<Kept>,
    /// JSON, as listings show it.
    summary: String,
    /// The epoch that holds the run, and who.
    driver: Option<(u64, String)>,
    signals: Vec<String>,
}

/// A record. Its event is text, as in a file: that takes a fraction of the memory, and what could not be read back from
/// a file is not kept here either.
#[derive(Debug)]
struct Kept {
    epoch: u64,
    at_ms: i64,
    event: Box<str>,
}

impl Kept {
    fn record(&self, run: &RunId, seq: u64) -> Result<Record, JournalError> {
        let event = serde_json::from_str(&self.event).map_err(|error| JournalError::Store {
            store: STORE.to_owned(),
            reason: format!("event {seq} of run {run} cannot be read: {error}"),
        })?;
        Ok(Record { run: run.clone(), seq, epoch: self.epoch, at_ms: self.at_ms, v: SCHEMA_VERSION, event })
    }
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the `nth` append from now fail with `error` (1 is the next, 0 is none), once. It appends nothing.
    pub fn fail_append(&self, nth: u64, error: JournalError) {
        self.lock().fault = (nth > 0).then_some((nth, error));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive(&self, state: &mut State, run: &RunId, owner: &str) -> Result<Claim, JournalError> {
        let entry = state.run(run)?;
        if let Some((_, owner)) = &entry.driver {
            return Err(JournalError::Driven { run: run.clone(), owner: owner.clone() });
        }
        entry.epoch += 1;
        entry.driver = Some((entry.epoch, owner.to_owned()));
        let guard = Guard { journal: self.clone(), run: run.clone(), epoch: entry.epoch };
        Ok(Claim { epoch: entry.epoch, last_seq: entry.records.len() as u64, guard: Box::new(guard) })
    }
}

impl State {
    fn run(&mut self, run: &RunId) -> Result<&mut Run, JournalError> {
        let unknown = || JournalError::UnknownRun { run: run.clone(), store: STORE.to_owned() };
        self.by_id.get_mut(run).ok_or_else(unknown)
    }

    fn hold(&mut self, key: (String, RunId), open: bool, amounts: Amounts) {
        let holding = Holding { account: key.0.clone(), holder: key.1.clone(), open, amounts };
        self.holdings.insert(key, holding);
    }

    fn append(&mut self, append: Append, kept: Vec<Kept>) -> Result<u64, JournalError> {
        let Append { run, epoch, after, summary, .. } = append;
        if let Some((left, error)) = &mut self.fault {
            *left -= 1;
            if *left == 0 {
                let error = error.clone();
                self.fault = None;
                return Err(error);
            }
        }
        let entry = self.run(&run)?;
        if entry.epoch != epoch {
            return Err(JournalError::Fenced { run, epoch, current: entry.epoch });
        }
        let actual = entry.records.len() as u64;
        if actual != after {
            return Err(JournalError::Conflict { run, expected: after, actual });
        }
        if let Some(last) = kept.last() {
            entry.updated_ms = last.at_ms;
        }
        entry.records.extend(kept);
        if let Some(summary) = summary {
            entry.summary = summary;
        }
        Ok(entry.records.len() as u64)
    }
}

impl Journal for MemoryJournal {
    fn create<'a>(
        &'a self,
        run: &'a RunId,
        at_ms: i64,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Claim, JournalError>> {
        Box::pin(async move {
            chain::check_run_id(run, STORE)?;
            let mut state = self.lock();
            if state.by_id.contains_key(run) {
                return Err(JournalError::RunExists { run: run.clone(), store: STORE.to_owned() });
            }
            let entry = Run {
                created_ms: at_ms,
                updated_ms: at_ms,
                epoch: 0,
                records: Vec::new(),
                summary: "null".to_owned(),
                driver: None,
                signals: Vec::new(),
            };
            state.runs.push(run.clone());
            state.by_id.insert(run.clone(), entry);
            self.drive(&mut state, run, owner)
        })
    }

    fn claim<'a>(&'a self, run: &'a RunId, owner: &'a str) -> BoxFuture<'a, Result<Claim, JournalError>> {
        Box::pin(async move { self.drive(&mut self.lock(), run, owner) })
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<u64, JournalError>> {
        Box::pin(async move {
            // Before the lock: drivers encode side by side.
            let encode = |stamped: &Stamped| {
                let event = chain::encode(&stamped.event, STORE)?.into_boxed_str();
                Ok(Kept { epoch: append.epoch, at_ms: stamped.at_ms, event })
            };
            let kept = append.events.iter().map(encode).collect::<Result<_, JournalError>>()?;
            self.lock().append(append, kept)
        })
    }

    fn read<'a>(
        &'a self,
        run: &'a RunId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, JournalError>> {
        Box::pin(async move {
            let after = usize::try_from(after).unwrap_or(usize::MAX);
            let mut state = self.lock();
            let records = state.run(run)?.records.iter().zip(1..).skip(after).take(limit);
            records.map(|(kept, seq)| kept.record(run, seq)).collect()
        })
    }

    fn runs<'a>(&'a self, run: Option<&'a RunId>) -> BoxFuture<'a, Result<Vec<RunRow>, JournalError>> {
        Box::pin(async move {
            let mut state = self.lock();
            let ids = match run {
                Some(run) => vec![run.clone()],
                None => state.runs.iter().rev().cloned().collect(),
            };
            let mut rows = ids
                .into_iter()
                .map(|id| {
                    let entry = state.run(&id)?;
                    Ok(RunRow {
                        created_ms: entry.created_ms,
                        updated_ms: entry.updated_ms,
                        last_seq: entry.records.len() as u64,
                        epoch: entry.epoch,
                        driven: entry.driver.is_some(),
                        summary: serde_json::from_str(&entry.summary).map_err(|error| {
                            JournalError::Store {
                                store: STORE.to_owned(),
                                reason: format!("what it says of run {id} in listings is no JSON: {error}"),
                            }
                        })?,
                        id,
                    })
                })
                .collect::<Result<Vec<_>, JournalError>>()?;
            // Stable: of one moment, the one made last comes first.
            rows.sort_by_key(|row| std::cmp::Reverse(row.created_ms));
            Ok(rows)
        })
    }

    fn signal<'a>(&'a self, run: &'a RunId, word: &'a str) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            let mut state = self.lock();
            let signals = &mut state.run(run)?.signals;
            if signals.len() >= MAX_SIGNALS {
                return Err(too_many_signals(run, STORE));
            }
            signals.push(word.to_owned());
            Ok(())
        })
    }

    fn signals<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Vec<String>, JournalError>> {
        Box::pin(async move { Ok(std::mem::take(&mut self.lock().run(run)?.signals)) })
    }

    fn reserve<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        want: &'a Amounts,
        limit: &'a Amounts,
    ) -> BoxFuture<'a, Result<Amounts, JournalError>> {
        Box::pin(async move {
            let mut state = self.lock();
            let mut others = Amounts::new();
            for holding in state.holdings.values() {
                if holding.account == account && holding.holder != *holder {
                    for (name, amount) in &holding.amounts {
                        let sum = others.entry(name.clone()).or_default();
                        *sum = sum.saturating_add(*amount);
                    }
                }
            }
            let key = (account.to_owned(), holder.clone());
            let amounts = grant(state.holdings.get(&key), want, limit, &others);
            state.hold(key, true, amounts.clone());
            Ok(amounts)
        })
    }

    fn settle<'a>(
        &'a self,
        account: &'a str,
        holder: &'a RunId,
        spent: &'a Amounts,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            self.lock().hold((account.to_owned(), holder.clone()), false, spent.clone());
            Ok(())
        })
    }

    fn holdings(&self) -> BoxFuture<'_, Result<Vec<Holding>, JournalError>> {
        Box::pin(async move { Ok(self.lock().holdings.values().cloned().collect()) })
    }
}

/// Frees the run when dropped, unless another driver has it by then.
#[derive(Debug)]
struct Guard {
    journal: MemoryJournal,
    run: RunId,
    epoch: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(run) = self.journal.lock().run(&self.run)
            && run.driver.as_ref().is_some_and(|(epoch, _)| *epoch == self.epoch)
        {
            run.driver = None;
        }
    }
}
