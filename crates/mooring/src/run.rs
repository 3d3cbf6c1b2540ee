//! Runs: started, gone on with, answered, cancelled, forked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mooring_capability::BoxFuture;
use mooring_harness::{
    Answer, Answered, Finished, Fork, HarnessError, Host, NewRun, Observer, Snapshots, Spent, State, Status,
    Terms, fold, nearest_snapshot, restore_workspace,
};
use mooring_journal::event::RunError;
use mooring_journal::{Event, Journal, JournalError, Record, RunId};
use mooring_model::{Cost, Item, Prices, Usage};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{Agent, Error, RunStream, Runtime};

/// How many events are read at a time.
const PAGE: usize = 1000;

/// How long [`Run::cancel`] waits for another driver, and how often it looks.
const CANCEL: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// A run that came to its end, or waits for a person.
#[derive(Debug, Clone)]
pub struct Run {
    runtime: Runtime,
    agent: Agent,
    finished: Finished,
}

/// A call that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Names it.
    pub id: String,
    /// The run that asks: the run itself, or one of a sub-agent.
    pub run: RunId,
    /// The tool.
    pub tool: String,
    /// Its input, as the model wrote it.
    pub input: String,
    /// Why it is asked.
    pub reason: String,
    /// After this moment, in milliseconds since the Unix epoch, the call counts as denied.
    pub expires_ms: i64,
}

impl Run {
    pub(crate) fn new(runtime: Runtime, agent: Agent, finished: Finished) -> Self {
        Self { runtime, agent, finished }
    }

    /// Starts a run and drives it until it is over or waits for a person.
    ///
    /// # Errors
    /// [`Error::Run`] where it is refused before anything starts, or must stop because it cannot be recorded. A run
    /// that fails by itself is no error: [`Run::status`] and [`Run::error`] tell.
    pub async fn start(runtime: &Runtime, agent: &Agent, input: impl Into<Item>) -> Result<Self, Error> {
        Self::stream(runtime, agent, input).finish().await
    }

    /// Starts a run that goes on while the stream is read.
    pub fn stream(runtime: &Runtime, agent: &Agent, input: impl Into<Item>) -> RunStream {
        begin(runtime, agent, vec![input.into()])
    }

    /// Goes on with a run that waits, failed, was cancelled, or lost its driver; from any process that has the same
    /// journal and the same agent.
    ///
    /// # Errors
    /// [`HarnessError::Completed`] where there is nothing to do; [`JournalError::Driven`] while another driver lives.
    pub async fn resume(runtime: &Runtime, agent: &Agent, run: &RunId) -> Result<Self, Error> {
        Self::resume_stream(runtime, agent, run).finish().await
    }

    /// Goes on with a run while the stream is read.
    pub fn resume_stream(runtime: &Runtime, agent: &Agent, run: &RunId) -> RunStream {
        let (runtime, agent) = (runtime.clone(), agent.clone());
        let run = run.clone();
        RunStream::new(&runtime.clone(), &agent.clone(), run.clone(), move |observer, cancel| {
            let host = host(&runtime, &agent, observer, cancel);
            Box::pin(async move { mooring_harness::resume(&host, &run).await })
        })
    }

    /// A run as it stands, without driving it.
    ///
    /// # Errors
    /// Where there is no such run.
    pub async fn find(runtime: &Runtime, agent: &Agent, run: &RunId) -> Result<Self, Error> {
        let state = fold(runtime.journal.as_ref(), run, |_| {}).await?;
        let finished = mooring_harness::finished(run, &state);
        Ok(Self::new(runtime.clone(), agent.clone(), finished))
    }

    /// Its id.
    pub fn id(&self) -> &RunId {
        &self.finished.run
    }

    /// How it ended.
    pub fn status(&self) -> Status {
        self.finished.status
    }

    /// The agent's last words.
    pub fn output(&self) -> Option<&str> {
        self.finished.output.as_deref()
    }

    /// The agent's last words as the type that [`crate::AgentBuilder::output`] asked for.
    ///
    /// # Errors
    /// [`Error::Output`] where there are none, or they are something else.
    pub fn output_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let run = self.id().clone();
        serde_json::from_str(self.output().unwrap_or_default())
            .map_err(|source| Error::Output { run, source })
    }

    /// Why it failed.
    pub fn error(&self) -> Option<&RunError> {
        self.finished.error.as_ref()
    }

    /// Tokens used, those of sub-agents included.
    pub fn usage(&self) -> Usage {
        self.finished.usage
    }

    /// All that was used, by sub-agents too.
    pub fn spent(&self) -> Spent {
        self.finished.spent
    }

    /// What the models cost by the runtime's prices, those of sub-agents included; `None` where one has no price.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub async fn cost(&self) -> Result<Option<Cost>, Error> {
        cost(&self.runtime, self.id()).await
    }

    /// All of its events.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub async fn events(&self) -> Result<Vec<Record>, Error> {
        events(self.runtime.journal.as_ref(), self.id()).await
    }

    /// What waits for a person, in this run and in those of its sub-agents.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub async fn approvals(&self) -> Result<Vec<Approval>, Error> {
        let mut found = Vec::new();
        approvals(self.runtime.journal.as_ref(), self.id(), &mut found).await?;
        Ok(found)
    }

    /// Answers an approval. Answering twice changes nothing; the run goes on once it is resumed.
    ///
    /// # Errors
    /// [`HarnessError::NoApproval`] where it was never asked; [`JournalError::Driven`] while a driver is at work.
    pub async fn answer(&self, approval: &Approval, answer: Answer) -> Result<Answered, Error> {
        let now = (self.runtime.now_ms)();
        let journal = self.runtime.journal.as_ref();
        Ok(mooring_harness::answer(journal, &approval.run, &approval.id, answer, now).await?)
    }

    /// Approves a call, in a person's name; the run goes on once it is resumed.
    ///
    /// # Errors
    /// Those of [`Run::answer`].
    pub async fn approve(&self, approval: &Approval, by: &str) -> Result<Answered, Error> {
        let answer = Answer {
            allow: true,
            always: false,
            by: by.into(),
            reason: None,
            input: serde_json::Value::Null,
        };
        self.answer(approval, answer).await
    }

    /// The same run, gone on with: after approvals, say. See [`Run::resume`].
    ///
    /// # Errors
    /// Those of [`Run::resume`].
    pub async fn go_on(&self) -> Result<Self, Error> {
        Self::resume(&self.runtime, &self.agent, self.id()).await
    }

    /// Goes on with the conversation: a new run whose input begins with all that was said in this one, in the same
    /// workspace.
    ///
    /// # Errors
    /// [`Error::Agent`] while this run waits or has a driver; those of [`Run::start`].
    pub async fn reply(&self, input: impl Into<Item>) -> Result<Self, Error> {
        // Held until the next run is over: two runs must not work in one workspace.
        let journal = self.runtime.journal.as_ref();
        let claim = journal.claim(self.id(), "the next run of the conversation").await?;
        let mut state = fold(journal, self.id(), |_| {}).await?;
        if matches!(state.status, Status::Running | Status::Waiting) {
            let reason = format!("run {} is not over: go on with it first", self.id());
            return Err(Error::Agent { agent: self.agent.name().to_owned(), reason });
        }
        let history = state.history(self.id());
        let mut items = std::mem::take(&mut state.items);
        items.push(input.into());
        // Whoever the conversation was handed over to goes on with it.
        let all = self.agent.all();
        let agent = all.get(state.agent.name.as_str()).copied().unwrap_or(&self.agent);
        let mut new = new_run(&self.runtime, agent, items);
        new.history = Some(history);
        if let Some(session) = state.sandbox.session {
            new.session_id = state.sandbox.session_id;
            new.sandbox_state = Some(session);
        }
        let run = start(&self.runtime, agent, new).finish().await;
        drop(claim);
        run
    }

    /// A new run that begins with this one's events up to `at` and goes on from there with what the user says now. What
    /// was done by then is not done again. Its workspace is that of the nearest snapshot, where one was taken and the
    /// runtime has the store; else it is made anew. The model is told which.
    ///
    /// # Errors
    /// [`HarnessError::NoEvent`]; those of [`Run::resume`].
    pub async fn fork(&self, at: u64, input: Option<&str>) -> Result<Self, Error> {
        let journal = self.runtime.journal.as_ref();
        let session_id = new_id();
        let taken = nearest_snapshot(journal, self.id(), at).await?;
        let workspace = match (taken, &self.runtime.snapshots, self.agent.place()) {
            (Some(taken), Some(store), Some((client, manifest))) => {
                Some(restore_workspace(store, client, manifest.clone(), &taken, &session_id).await?)
            }
            _ => None,
        };
        let fork = Fork { id: RunId(new_id()), session_id, at, input: input.map(str::to_owned), workspace };
        let now = (self.runtime.now_ms)();
        let forked = mooring_harness::fork(journal, self.id(), fork, "a fork", now).await?;
        Self::resume(&self.runtime, &self.agent, &forked.run).await
    }

    /// Cancels a run, whichever process drives it, and waits for its end. One that is over stays as it is.
    ///
    /// # Errors
    /// [`Error::StillDriven`] where another driver does not end it in time.
    pub async fn cancel(runtime: &Runtime, agent: &Agent, run: &RunId) -> Result<Self, Error> {
        let journal = runtime.journal.as_ref();
        let until = tokio::time::Instant::now() + CANCEL;
        loop {
            let row = journal.runs(Some(run)).await?.into_iter().next();
            let over = row.as_ref().is_some_and(|row| {
                !matches!(row.summary["status"].as_str(), Some("running" | "waiting") | None)
            });
            if over {
                return Self::find(runtime, agent, run).await;
            }
            if !row.is_some_and(|row| row.driven) {
                let stream = Self::resume_stream(runtime, agent, run);
                stream.cancel_token().cancel();
                return stream.finish().await;
            }
            if tokio::time::Instant::now() > until {
                return Err(Error::StillDriven { run: run.clone(), seconds: CANCEL.as_secs() });
            }
            journal.signal(run, "cancel").await?;
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A new run of an agent.
fn new_run(runtime: &Runtime, agent: &Agent, input: Vec<Item>) -> NewRun {
    let (entry, team) = agent.members();
    NewRun {
        id: RunId(new_id()),
        session_id: new_id(),
        entry,
        team,
        input,
        read: Vec::new(),
        history: None,
        sandbox_state: None,
        workspace: agent.workspace().cloned(),
        parent: None,
        depth: 0,
        terms: Terms { prices: Prices::clone(&runtime.prices), tenant: runtime.tenant.clone() },
        labels: BTreeMap::new(),
    }
}

fn begin(runtime: &Runtime, agent: &Agent, input: Vec<Item>) -> RunStream {
    start(runtime, agent, new_run(runtime, agent, input))
}

fn start(runtime: &Runtime, agent: &Agent, new: NewRun) -> RunStream {
    RunStream::new(runtime, agent, new.id.clone(), |observer, cancel| {
        let host = host(runtime, agent, observer, cancel);
        let unkept = agent.snapshots() != Snapshots::Never && host.snapshots.is_none();
        Box::pin(async move {
            if unkept {
                let what = "a store for its snapshots (`Runtime::with_snapshots`)".into();
                return Err(HarnessError::Missing { run: new.id, what });
            }
            mooring_harness::start(&host, new).await
        })
    })
}

fn host(runtime: &Runtime, agent: &Agent, observer: Arc<dyn Observer>, cancel: CancellationToken) -> Host {
    Host {
        journal: Arc::clone(&runtime.journal),
        agents: Arc::new(agent.hosts()),
        snapshots: runtime.snapshots.clone(),
        observer,
        hooks: runtime.hooks.clone(),
        now_ms: Arc::clone(&runtime.now_ms),
        cancel,
        pid: std::process::id(),
        runtime: concat!("mooring ", env!("CARGO_PKG_VERSION")).into(),
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

async fn events(journal: &dyn Journal, run: &RunId) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    loop {
        let page = journal.read(run, records.len() as u64, PAGE).await?;
        if page.is_empty() {
            return Ok(records);
        }
        records.extend(page);
    }
}

fn approvals<'a>(
    journal: &'a dyn Journal,
    run: &'a RunId,
    found: &'a mut Vec<Approval>,
) -> BoxFuture<'a, Result<(), Error>> {
    Box::pin(async move {
        let state: State = match fold(journal, run, |_| {}).await {
            // A sub-agent that was asked for and has not begun asks nothing.
            Err(HarnessError::Journal(JournalError::UnknownRun { .. }) | HarnessError::Empty { .. }) => {
                return Ok(());
            }
            state => state?,
        };
        found.extend(state.approvals().map(|(call, asked)| Approval {
            id: asked.approval_id.clone(),
            run: run.clone(),
            tool: call.tool.clone(),
            input: call.input.clone(),
            reason: asked.reason.clone(),
            expires_ms: asked.expires_ms,
        }));
        for child in state.open_calls().filter_map(|call| call.child.as_ref()) {
            approvals(journal, child, found).await?;
        }
        Ok(())
    })
}

fn cost<'a>(runtime: &'a Runtime, run: &'a RunId) -> BoxFuture<'a, Result<Option<Cost>, Error>> {
    Box::pin(async move {
        let mut sum = Cost::default();
        let mut asked = String::new();
        for record in events(runtime.journal.as_ref(), run).await? {
            let part = match record.event {
                Event::ModelRequested(requested) => {
                    asked = requested.model;
                    continue;
                }
                Event::ModelCompleted(answer) => {
                    let usage: Usage = serde_json::from_value(answer.usage).unwrap_or_default();
                    runtime.prices.cost(&asked, &usage)
                }
                Event::ToolRequested(requested) => match requested.child {
                    Some(child) => match cost(runtime, &child).await {
                        Err(Error::Journal(JournalError::UnknownRun { .. })) => continue,
                        part => part?,
                    },
                    None => continue,
                },
                _ => continue,
            };
            let Some(part) = part else { return Ok(None) };
            sum += part;
        }
        Ok(Some(sum))
    })
}
