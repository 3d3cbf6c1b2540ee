//! Agents together: handing the conversation over, and runs that belong to a call.
//!
//! A sub-agent's run is named after the call that starts it. Whoever performs the call again after a crash finds the
//! run and goes on with it, so that the call is idempotent whatever the sub-agent does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use mooring_capability::{BoxFuture, ToolInput};
use mooring_journal::event::{self, HandedOff, Parent};
use mooring_journal::{Event, JournalError, Record, RunId};
use mooring_manifest::Manifest;
use mooring_model::Item;
use mooring_sandbox::SandboxSession;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::ready::guards;
use super::{Driver, begin, by_name, finished, json, left, owner, refuse, seat, take_up};
use crate::run::{Finished, Host, Limits, Member, NewRun, Terms, session_of};
use crate::team::MAX_DEPTH;
use crate::{AgentSpec, Budget, Call, HarnessError, Live, Observer, Spent, Status, SubAgent, SubSandbox};

/// A run that a call starts, or goes on with.
pub(super) struct ChildRun {
    pub(super) host: Host,
    pub(super) new: NewRun,
    fork_of: Option<Arc<dyn SandboxSession>>,
}

impl Driver<'_> {
    /// Lets another agent go on. Where what it gets cannot be made, the run ends, and a resumption tries again.
    pub(super) async fn hand_off(&mut self, to: &str) -> Result<(), HarnessError> {
        let handoff = self.state.agent.handoffs.iter().find(|handoff| handoff.agent == to);
        let filter = handoff.map(|handoff| handoff.filter.clone()).unwrap_or_default();
        let filters = &seat(self.host, &self.run, &self.state.agent.name)?.filters;
        let items = match filter.apply(&self.state.items, filters) {
            Ok(items) => items,
            Err(reason) => {
                let message = format!("the handoff to '{to}' was not made: {reason}");
                return self.finish(self.state.failed("handoff_filter", message)).await;
            }
        };
        self.push(Event::HandedOff(Box::new(HandedOff {
            turn: self.state.turns,
            from: self.state.agent.name.clone(),
            to: to.into(),
            items: items.map(|items| items.iter().map(json).collect()),
            filter: filter.as_str().into(),
        })))?;
        let seat = seat(self.host, &self.run, to)?;
        self.specs = self.state.tools();
        self.tools = by_name(seat, &self.specs);
        self.guards = guards(seat, &self.state.agent);
        self.model = Arc::clone(&seat.model);
        Ok(())
    }

    /// What each of so many gets that begin now and have no limits of their own.
    pub(super) fn share(&self, runs: u64) -> Budget {
        Budget::left(&self.state.limits, &self.state.spent, &self.set_aside()).part(runs)
    }

    /// What is set aside for the runs of calls.
    fn set_aside(&self) -> Vec<Budget> {
        self.state.open_calls().map(|call| call.reserved).collect()
    }

    /// What is set aside for the runs of these agents, which begin now.
    pub(super) fn shares(&self, agents: &[&str]) -> Vec<Budget> {
        // An agent that cannot be read is told of when its run is made.
        let limits = |agent: &&str| self.member(agent).map(|member| member.limits).unwrap_or_default();
        let limits: Vec<Limits> = agents.iter().map(limits).collect();
        Budget::left(&self.state.limits, &self.state.spent, &self.set_aside()).shares(&limits)
    }

    /// The run of a call to a sub-agent, or what to tell the model.
    pub(super) fn child(
        &self,
        call: &Call,
        agent: &SubAgent,
        input: &ToolInput,
        id: RunId,
        reserved: &Budget,
    ) -> Result<ChildRun, String> {
        let started = &self.state.started;
        let depth = started.depth + 1;
        if depth > MAX_DEPTH {
            return Err(format!(
                "Agents may give work to agents {MAX_DEPTH} deep at most. Do this yourself."
            ));
        }
        let text = match input {
            ToolInput::Json(arguments) => arguments["input"].as_str().map(str::to_owned),
            ToolInput::Text(text) => Some(text.clone()),
        };
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
            return Err(format!(
                "{} needs its task as the string 'input'. Call it again with one.",
                call.tool
            ));
        };
        let unusable = |reason: String| format!("{} cannot be started: {reason}", call.tool);
        let mut entry = self.member(&agent.agent).map_err(unusable)?;
        entry.limits = entry.limits.within(reserved);
        let mut fork_of = None;
        if agent.sandbox == SubSandbox::Fork {
            let Some(session) = &self.session else {
                return Err(unusable("this agent has no sandbox whose workspace it could work on".into()));
            };
            fork_of = Some(Arc::clone(session));
            entry.manifest =
                Manifest::from_value(&started.manifest).map_err(|error| unusable(error.to_string()))?;
            entry.manifest_base = started.manifest_base.clone().unwrap_or_default().into();
        }
        let mut host = self.host.clone();
        host.cancel = self.cancel.child_token();
        host.observer = Arc::new(Nested(Arc::clone(&self.host.observer)));
        let mut labels = started.labels.clone();
        // A conversation goes on with its own runs, not with those of its sub-agents.
        labels.remove("session");
        let new = NewRun {
            session_id: session_of(&id),
            id,
            team: self.reachable(&entry.agent).map_err(unusable)?,
            entry,
            input: vec![Item::user(text)],
            read: self.state.read.iter().cloned().collect(),
            history: None,
            sandbox_state: None,
            workspace: None,
            parent: Some(Parent { run: self.run.clone(), call_id: Some(call.call_id.clone()), seq: None }),
            depth,
            // What models cost is recorded with this run; what it may use is a share of this run's.
            terms: Terms { prices: self.state.prices().clone(), tenant: None },
            labels,
        };
        Ok(ChildRun { host, new, fork_of })
    }

    /// Cancels a run that belongs to this one, if there is one of that id and it is not over; gives what it used.
    pub(super) fn cancel_child<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Spent, HarnessError>> {
        Box::pin(async move {
            let claim = match self.host.journal.claim(id, &owner(self.host)).await {
                Err(JournalError::UnknownRun { .. }) => return Ok(Spent::default()),
                claim => claim?,
            };
            if claim.last_seq == 0 {
                return Ok(Spent::default());
            }
            let left = left(self.host, id).await?;
            if !matches!(left.state.status, Status::Running | Status::Waiting) {
                return Ok(left.state.spent);
            }
            let mut host = self.host.clone();
            host.cancel = CancellationToken::new();
            host.cancel.cancel();
            host.observer = Arc::new(Nested(Arc::clone(&self.host.observer)));
            take_up(&host, id, claim, left).await?.drive().await.map(|ended| ended.spent)
        })
    }

    /// The run's record of an agent, with all that a run of its own needs.
    fn member(&self, name: &str) -> Result<Member, String> {
        let started = &self.state.started;
        let own;
        let member = match started.team.get(name) {
            Some(member) => member,
            None if started.agent["name"] == name => {
                own = event::Member {
                    agent: started.agent.clone(),
                    instructions: started.instructions.clone(),
                    tools: Vec::new(),
                    limits: started.limits.clone(),
                    manifest: started.manifest.clone(),
                    manifest_base: started.manifest_base.clone(),
                    sandbox: started.sandbox["options"].clone(),
                };
                &own
            }
            None => return Err(format!("the run has no agent '{name}'")),
        };
        let unreadable =
            |what: &str, error: &dyn std::fmt::Display| format!("its {what} cannot be read: {error}");
        Ok(Member {
            agent: Deserialize::deserialize(&member.agent).map_err(|error| unreadable("agent", &error))?,
            limits: Deserialize::deserialize(&member.limits).map_err(|error| unreadable("limits", &error))?,
            instructions: member.instructions.clone(),
            manifest: Manifest::from_value(&member.manifest)
                .map_err(|error| unreadable("manifest", &error))?,
            manifest_base: PathBuf::from(member.manifest_base.clone().unwrap_or_default()),
            sandbox: member.sandbox.clone(),
        })
    }

    /// The agents that this one may hand over to or give work to, and those that they may, and so on.
    fn reachable(&self, from: &AgentSpec) -> Result<BTreeMap<String, Member>, String> {
        let mut team: BTreeMap<String, Member> = BTreeMap::new();
        let mut due: Vec<String> = from.mates().map(str::to_owned).collect();
        while let Some(name) = due.pop() {
            if name != from.name && !team.contains_key(&name) {
                let member = self.member(&name)?;
                due.extend(member.agent.mates().map(str::to_owned));
                team.insert(name, member);
            }
        }
        Ok(team)
    }
}

impl ChildRun {
    /// Drives the run to its end, from wherever it stands.
    pub(super) fn drive(self) -> BoxFuture<'static, Result<Finished, HarnessError>> {
        Box::pin(async move {
            let Self { host, new, fork_of } = self;
            let id = new.id.clone();
            let mut driver = match host.journal.claim(&id, &owner(&host)).await {
                Err(JournalError::UnknownRun { .. }) => {
                    refuse(&host, &new).await?;
                    let claim = host.journal.create(&id, (host.now_ms)(), &owner(&host)).await?;
                    begin(&host, new, claim)?
                }
                Err(error) => return Err(error.into()),
                // Its first driver died before it recorded how the run begins.
                Ok(claim) if claim.last_seq == 0 => begin(&host, new, claim)?,
                Ok(claim) => {
                    let left = left(&host, &id).await?;
                    if !matches!(left.state.status, Status::Running | Status::Waiting) {
                        return Ok(finished(&id, &left.state));
                    }
                    take_up(&host, &id, claim, left).await?
                }
            };
            driver.fork_of = fork_of;
            driver.drive().await
        })
    }
}

/// Watches a sub-agent's run: its events are shown, its words as they come are not, since they would mix with those
/// of others.
struct Nested(Arc<dyn Observer>);

impl Observer for Nested {
    fn recorded(&self, record: &Record) {
        self.0.recorded(record);
    }

    fn live(&self, live: Live) {
        if matches!(live, Live::Note(_)) {
            self.0.live(live);
        }
    }
}
