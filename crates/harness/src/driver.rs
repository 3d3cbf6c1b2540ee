//! The driver: performs what the machine says is due, and appends what happened.
//!
//! Events gather in an outbox and are appended together, so that a turn costs two appends and one sync. The rule
//! that makes this safe: nothing is performed while the outbox holds an event. Intents of tool calls are synced to
//! the disk, since what follows them cannot be taken back; everything else must only outlive the process.

mod account;
mod ask;
mod call;
mod child;
mod compact;
mod guard;
mod outputs;
mod ready;
mod snapshot;
mod stage;
mod time;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mooring_capability::Tool;
use mooring_journal::event::{self, ApprovalRequested, DriverAttached, RunFinished, RunStarted};
use mooring_journal::{
    Append, Claim, Durability, Event, Journal, JournalError, Record, RunId, SCHEMA_VERSION, Stamped,
};
use mooring_model::{ModelClient, Prices, ToolSpec, Usage};
use mooring_sandbox::{ExposedPort, SandboxSession, refuse_literal_secrets};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::run::{AgentHost, AgentSpec, Finished, Host, Member, NewRun};
use crate::{Call, Guardrail, HarnessError, Live, Next, State, Status};

pub use account::{amounts, budget_of, settle};

/// How often a driver looks whether another process left word.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(250);

/// How many events are read at a time.
pub(crate) const PAGE: usize = 4096;

/// Starts a run and drives it to its end.
///
/// # Errors
/// [`HarnessError::Refused`] before anything is recorded, where the manifest or the workspace cannot be staged on
/// this sandbox; [`HarnessError::Journal`] where the run must stop because it cannot be recorded.
pub async fn start(host: &Host, new: NewRun) -> Result<Finished, HarnessError> {
    refuse(host, &new).await?;
    refuse_unpriced(&new)?;
    let claim = host.journal.create(&new.id, (host.now_ms)(), &owner(host)).await?;
    begin(host, new, claim)?.drive().await
}

/// Refuses a run whose cost is limited and cannot be told: a model that may be asked has no price.
fn refuse_unpriced(new: &NewRun) -> Result<(), HarnessError> {
    let tenant = new.terms.tenant.as_ref().map(|tenant| &tenant.limits["max_cost"]);
    let limited = tenant.is_some_and(|most| !most.is_null()) || new.entry.limits.max_cost.is_some();
    for member in std::iter::once(&new.entry).chain(new.team.values()) {
        if !limited && member.limits.max_cost.is_none() {
            continue;
        }
        if let Some(model) = member.agent.models().find(|model| new.terms.prices.find(model).is_none()) {
            let (agent, model) = (member.agent.name.clone(), model.to_owned());
            return Err(HarnessError::NoPrice { agent, model });
        }
    }
    Ok(())
}

/// Refuses what can be known not to work before anything is recorded.
async fn refuse(host: &Host, new: &NewRun) -> Result<(), HarnessError> {
    let entry = &new.entry;
    for member in std::iter::once(entry).chain(new.team.values()) {
        let seat = seat(host, &new.id, &member.agent.name)?;
        tool_specs(&member.agent, seat)?;
        ready::refuse_agent(&member.agent, seat)?;
        refuse_literal_secrets(&member.manifest)?;
    }
    if let Some(client) = &seat(host, &new.id, &entry.agent.name)?.sandbox {
        let plan = stage::plan(client.as_ref(), &entry.manifest, &entry.manifest_base).await?;
        if let Some(workspace) = &new.workspace {
            // A directory that the caller named is theirs: nothing in it is overwritten.
            plan.refuse_conflicts(workspace)?;
        }
    }
    Ok(())
}

fn owner(host: &Host) -> String {
    format!("process {}", host.pid)
}

/// What an agent of a run works with.
fn seat<'h>(host: &'h Host, run: &RunId, agent: &str) -> Result<&'h AgentHost, HarnessError> {
    host.agents
        .get(agent)
        .ok_or_else(|| HarnessError::Missing { run: run.clone(), what: format!("the agent '{agent}'") })
}

/// Takes up a run that its driver left, or that failed or was cancelled, and drives it to its end.
///
/// # Errors
/// [`HarnessError::Completed`] where there is nothing to do; [`JournalError::Driven`] while another driver lives.
pub async fn resume(host: &Host, run: &RunId) -> Result<Finished, HarnessError> {
    let claim = host.journal.claim(run, &owner(host)).await?;
    let Left { state, untold } = left(host, run).await?;
    if state.status == Status::Completed {
        return Err(HarnessError::Completed { run: run.clone() });
    }
    if let Some(parent) = &state.started.parent
        && parent.call_id.is_some()
    {
        return Err(HarnessError::Part { run: run.clone(), of: parent.run.clone() });
    }
    take_up(host, run, claim, Left { state, untold }).await?.drive().await
}

/// A run as its last driver left it.
struct Left {
    state: State,
    /// What others recorded since, and no hook was told of.
    untold: Vec<Record>,
}

async fn left(host: &Host, run: &RunId) -> Result<Left, HarnessError> {
    let (mut untold, mut driven) = (Vec::new(), 0);
    let state = fold(host.journal.as_ref(), run, |record| match &record.event {
        Event::DriverAttached(_) => {
            untold.clear();
            driven = record.epoch;
        }
        Event::ApprovalAnswered(_) if record.epoch != driven => untold.push(record.clone()),
        _ => {}
    })
    .await?;
    Ok(Left { state, untold })
}

/// The driver of a run that another driver left.
async fn take_up<'h>(
    host: &'h Host,
    run: &RunId,
    claim: Claim,
    Left { state, untold }: Left,
) -> Result<Driver<'h>, HarnessError> {
    for record in &untold {
        host.hooks.tell(record, host.observer.as_ref()).await;
    }
    // Words that were left for a driver that is gone are not meant for this one.
    host.journal.signals(run).await?;
    let mut driver = Driver::new(host, run.clone(), claim, state)?;
    driver.push(Event::DriverAttached(DriverAttached {
        pid: host.pid,
        runtime: host.runtime.clone(),
        resumed: true,
    }))?;
    Ok(driver)
}

/// The driver of a new run, with the run's first events. It takes all of `new`, so that a manifest with its files is
/// not held a second time for as long as the run goes.
fn begin(host: &Host, new: NewRun, claim: Claim) -> Result<Driver<'_>, HarnessError> {
    let everybody = std::iter::once(&new.entry).chain(new.team.values());
    let prices = new.terms.prices.of(everybody.flat_map(|member| member.agent.models()));
    let entry = seat(host, &new.id, &new.entry.agent.name)?;
    let Member { agent, limits, instructions, manifest, manifest_base, sandbox } =
        ready::prepared(new.entry, entry);
    let mut team = BTreeMap::new();
    for (name, member) in new.team {
        let seat = seat(host, &new.id, &name)?;
        let tools = tool_specs(&member.agent, seat)?;
        let member = ready::prepared(member, seat);
        team.insert(name, record(&member, &tools));
    }
    let started = RunStarted {
        runtime: host.runtime.clone(),
        input: new.input.iter().map(json).collect(),
        history: new.history,
        manifest: manifest.to_value(),
        manifest_digest: manifest.digest(),
        manifest_base: Some(manifest_base.to_string_lossy().into_owned()),
        sandbox: match &entry.sandbox {
            None => Value::Null,
            Some(client) => json!({
                "backend": client.backend_id(),
                "session_id": new.session_id,
                "workspace": new.workspace,
                "options": sandbox,
                "state": new.sandbox_state,
            }),
        },
        limits: json(&limits),
        prices: if prices == Prices::default() { Value::Null } else { json(&prices) },
        tenant: new.terms.tenant,
        instructions,
        tools: tool_specs(&agent, entry)?.iter().map(json).collect(),
        agent: json(&agent),
        team,
        read: new.read,
        parent: new.parent,
        depth: new.depth,
        labels: new.labels,
    };
    let state =
        State::begin(&started, 1).map_err(|source| HarnessError::Fold { run: new.id.clone(), source })?;
    let mut driver = Driver::new(host, new.id, claim, state)?;
    let at_ms = (host.now_ms)();
    let event = Event::RunStarted(Box::new(started));
    driver.state.pass(&event, at_ms);
    driver.outbox.push(Stamped { at_ms, event });
    driver.push(Event::DriverAttached(DriverAttached {
        pid: host.pid,
        runtime: host.runtime.clone(),
        resumed: false,
    }))?;
    Ok(driver)
}

/// The tools on offer to an agent: its own, and those by which it asks for other agents.
fn tool_specs(agent: &AgentSpec, seat: &AgentHost) -> Result<Vec<ToolSpec>, HarnessError> {
    let own = seat.tools.iter().map(|tool| tool.spec());
    let specs: Vec<ToolSpec> = own.chain(agent.team_tools()).collect();
    let mut names = BTreeSet::new();
    match specs.iter().find(|spec| !names.insert(spec.name.as_str())) {
        None => Ok(specs),
        Some(twice) => Err(HarnessError::SameName { agent: agent.name.clone(), tool: twice.name.clone() }),
    }
}

/// A member as the journal has it.
fn record(member: &Member, tools: &[ToolSpec]) -> event::Member {
    event::Member {
        agent: json(&member.agent),
        instructions: member.instructions.clone(),
        tools: tools.iter().map(json).collect(),
        limits: json(&member.limits),
        manifest: member.manifest.to_value(),
        manifest_base: Some(member.manifest_base.to_string_lossy().into_owned()),
        sandbox: member.sandbox.clone(),
    }
}

/// One driver of one run.
struct Driver<'h> {
    host: &'h Host,
    run: RunId,
    claim: Claim,
    state: State,
    /// The model of the agent at work.
    model: Arc<dyn ModelClient>,
    /// The tools on offer to it, as the model gets them.
    specs: Vec<ToolSpec>,
    /// Those of them that are no agents, by name.
    tools: HashMap<String, Arc<dyn Tool>>,
    /// What checks each of its guardrails, or why nothing can.
    guards: Vec<Result<Arc<dyn Guardrail>, String>>,
    session: Option<Arc<dyn SandboxSession>>,
    /// What of it is reached from outside.
    ports: Vec<ExposedPort>,
    /// The session whose workspace this run's begins with.
    fork_of: Option<Arc<dyn SandboxSession>>,
    /// Happened, folded, and not yet appended.
    outbox: Vec<Stamped>,
    cancel: CancellationToken,
    /// Ends the work when the run's time is up.
    alarm: Option<time::Alarm>,
    last_event_ms: Option<i64>,
}

impl<'h> Driver<'h> {
    fn new(host: &'h Host, run: RunId, claim: Claim, state: State) -> Result<Self, HarnessError> {
        let seat = seat(host, &run, &state.agent.name)?;
        let specs = state.tools();
        Ok(Self {
            host,
            run,
            claim,
            model: Arc::clone(&seat.model),
            tools: by_name(seat, &specs),
            guards: ready::guards(seat, &state.agent),
            specs,
            state,
            session: None,
            ports: Vec::new(),
            fork_of: None,
            outbox: Vec::new(),
            cancel: host.cancel.child_token(),
            alarm: None,
            last_event_ms: None,
        })
    }

    async fn drive(&mut self) -> Result<Finished, HarnessError> {
        let watch = watch_signals(Arc::clone(&self.host.journal), self.run.clone(), self.cancel.clone());
        let result = match self.open_account().await {
            Ok(()) => self.steps().await,
            Err(error) => Err(error),
        };
        drop(watch);
        self.alarm = None;
        self.close_ports().await;
        if let Some(session) = self.session.take() {
            self.stop(session.as_ref()).await;
        }
        result
    }

    async fn stop(&self, session: &dyn SandboxSession) {
        if let Err(error) = session.stop().await {
            // It dies with this process.
            self.host.observer.live(Live::Note(format!("the sandbox did not stop: {error}")));
        }
    }

    /// What a sandbox sent out or was refused, and what its mounts could not do, since it was asked last.
    fn note_sandbox(&mut self, session: &dyn SandboxSession) -> Result<(), HarnessError> {
        for access in session.accesses() {
            self.fold(stage::egress(session.id(), access))?;
        }
        for failure in session.mount_failures() {
            self.fold(stage::mount_failed(session.id(), failure))?;
        }
        Ok(())
    }

    async fn steps(&mut self) -> Result<Finished, HarnessError> {
        loop {
            self.set_alarm();
            self.record_end()?;
            self.expire_approvals()?;
            match self.state.next() {
                Next::Sandbox => self.start_sandbox().await?,
                Next::Guard => self.guard().await?,
                Next::CheckOutput => self.check_output()?,
                Next::Context => self.add_context().await?,
                Next::Compact(part) => self.compact(part).await?,
                Next::Model => self.ask_model().await?,
                Next::Tools => self.call_tools().await?,
                Next::Snapshot => self.take_snapshot().await?,
                Next::HandOff { to } => self.hand_off(&to).await?,
                Next::Abandon => self.abandon_calls().await?,
                Next::Finish(finished) => self.finish(finished).await?,
                Next::Done => return Ok(finished(&self.run, &self.state)),
            }
        }
    }

    /// Ends the run.
    async fn finish(&mut self, mut finished: Box<RunFinished>) -> Result<(), HarnessError> {
        self.require_outputs(&mut finished).await;
        if finished.status == Status::Cancelled.as_str() {
            self.cancel_judges().await?;
        }
        // What its open connections carried is known once they have ended.
        if let Some(session) = self.session.take() {
            self.stop(session.as_ref()).await;
            self.note_sandbox(session.as_ref())?;
        }
        self.push(Event::RunFinished(*finished))?;
        self.flush(Durability::Power).await?;
        self.close_account().await
    }

    fn now(&self) -> i64 {
        (self.host.now_ms)()
    }

    /// Folds an event, to be appended with the next flush, after what the sandbox did meanwhile.
    fn push(&mut self, event: Event) -> Result<(), HarnessError> {
        if let Some(session) = self.session.clone() {
            self.note_sandbox(session.as_ref())?;
        }
        self.fold(event)
    }

    fn fold(&mut self, event: Event) -> Result<(), HarnessError> {
        let at_ms = self.now();
        let applied = self.state.apply_at(&event, at_ms);
        applied.map_err(|source| HarnessError::Fold { run: self.run.clone(), source })?;
        self.last_event_ms = Some(at_ms);
        self.outbox.push(Stamped { at_ms, event });
        Ok(())
    }

    /// Appends what is in the outbox.
    async fn flush(&mut self, durability: Durability) -> Result<(), JournalError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let events = Arc::new(std::mem::take(&mut self.outbox));
        let after = self.claim.last_seq;
        let append = Append {
            run: self.run.clone(),
            epoch: self.claim.epoch,
            after,
            summary: events
                .iter()
                .any(|stamped| changes_summary(&stamped.event))
                .then(|| summary(&self.state)),
            events: Arc::clone(&events),
            durability,
        };
        self.claim.last_seq = self.host.journal.append(append).await?;
        for (seq, stamped) in (after + 1..).zip(Arc::unwrap_or_clone(events)) {
            let record = Record {
                run: self.run.clone(),
                seq,
                epoch: self.claim.epoch,
                at_ms: stamped.at_ms,
                v: SCHEMA_VERSION,
                event: stamped.event,
            };
            self.host.observer.recorded(&record);
            self.host.hooks.tell(&record, self.host.observer.as_ref()).await;
        }
        Ok(())
    }
}

/// How a run stands, or ended.
pub fn finished(run: &RunId, state: &State) -> Finished {
    let end = state.finished.clone().unwrap_or_default();
    Finished {
        run: run.clone(),
        status: state.status,
        output: end.output,
        error: end.error,
        usage: state.spent.usage,
        turns: state.turns,
        spent: state.spent,
    }
}

/// An agent's own tools that are on offer.
fn by_name(seat: &AgentHost, specs: &[ToolSpec]) -> HashMap<String, Arc<dyn Tool>> {
    let offered = |name: &str| specs.iter().any(|spec| spec.name == name);
    let named = seat.tools.iter().map(|tool| (tool.spec().name, Arc::clone(tool)));
    named.filter(|(name, _)| offered(name)).collect()
}

/// Folds a run from its journal, and shows each event on the way.
///
/// # Errors
/// [`HarnessError::Empty`] for a run without events; [`HarnessError::Fold`] where its events do not fit together.
pub async fn fold(
    journal: &dyn Journal,
    run: &RunId,
    mut see: impl FnMut(&Record),
) -> Result<State, HarnessError> {
    let wrong = |source| HarnessError::Fold { run: run.clone(), source };
    let mut state: Option<State> = None;
    let mut after = 0;
    loop {
        let records = journal.read(run, after, PAGE).await?;
        let Some(last) = records.last() else { break };
        after = last.seq;
        records.iter().for_each(&mut see);
        match &mut state {
            None => state = State::fold(&records).map_err(wrong)?,
            Some(state) => {
                let applied =
                    records.iter().try_for_each(|record| state.apply_at(&record.event, record.at_ms));
                applied.map_err(wrong)?;
            }
        }
    }
    state.ok_or_else(|| HarnessError::Empty { run: run.clone() })
}

/// What listings show of a run: [`mooring_journal::Append::summary`].
pub fn summary(state: &State) -> String {
    let waiting = |(call, asked): (&Call, &ApprovalRequested)| {
        json!({
            "id": asked.approval_id,
            "tool": call.tool,
            "input": call.input,
            "reason": asked.reason,
            "expires_ms": asked.expires_ms,
            "schema": asked.schema,
        })
    };
    let summary = Summary {
        status: state.status.as_str(),
        agent: &state.agent.name,
        model: &state.agent.model,
        turns: state.turns,
        usage: &state.spent.usage,
        input: &state.headline,
        parent: state.started.parent.as_ref().map(|parent| &parent.run),
        session: state.started.labels.get("session").map(String::as_str),
        approvals: state.approvals().map(waiting).collect(),
    };
    // It has no map whose keys are no strings.
    serde_json::to_string(&summary).unwrap_or_default()
}

/// Written straight from the state: each turn writes one.
#[derive(Serialize)]
struct Summary<'a> {
    status: &'a str,
    agent: &'a str,
    model: &'a str,
    turns: u64,
    usage: &'a Usage,
    input: &'a str,
    parent: Option<&'a RunId>,
    session: Option<&'a str>,
    approvals: Vec<Value>,
}

/// Cancels the run when another process asks for it.
fn watch_signals(journal: Arc<dyn Journal>, run: RunId, cancel: CancellationToken) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(SIGNAL_INTERVAL).await;
            // A journal that cannot be read fails the driver's own appends soon enough.
            let words = journal.signals(&run).await.unwrap_or_default();
            if words.iter().any(|word| word == "cancel") {
                cancel.cancel();
                return;
            }
        }
    }))
}

fn changes_summary(event: &Event) -> bool {
    matches!(
        event,
        Event::RunStarted(_)
            | Event::DriverAttached(_)
            | Event::ModelCompleted(_)
            | Event::Compacted(_)
            | Event::HandedOff(_)
            | Event::ApprovalRequested(_)
            | Event::ApprovalAnswered(_)
            | Event::RunFinished(_)
    )
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> Value {
    // Only maps with keys that are no strings cannot be written as JSON; there are none here.
    serde_json::to_value(value).unwrap_or_default()
}

/// Zero where the clock went back.
fn elapsed_ms(since: i64, now: i64) -> u64 {
    u64::try_from(now - since).unwrap_or(0)
}
