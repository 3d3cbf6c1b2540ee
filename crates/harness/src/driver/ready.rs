//! Agents made ready: with the guardrails that this process brings along and instructions that ask for a typed
//! answer, or refused before anything is recorded.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::run::{AgentHost, AgentSpec, Member};
use crate::{Guardrail, GuardrailSpec, HarnessError};

/// A member as its run records it.
pub(super) fn prepared(mut member: Member, seat: &AgentHost) -> Member {
    member.agent = guarded(member.agent, seat);
    if let Some(output) = &member.agent.output {
        member.instructions = output.instruct(member.instructions);
    }
    member
}

/// Refuses an agent whose guardrails or output cannot be as they are written.
pub(super) fn refuse_agent(agent: &AgentSpec, seat: &AgentHost) -> Result<(), HarnessError> {
    match problem(&guarded(agent.clone(), seat), seat) {
        None => Ok(()),
        Some(reason) => Err(HarnessError::Agent { agent: agent.name.clone(), reason }),
    }
}

/// What checks each of an agent's guardrails, or why nothing can. Those that are agents have no use for it.
pub(super) fn guards(seat: &AgentHost, agent: &AgentSpec) -> Vec<Result<Arc<dyn Guardrail>, String>> {
    agent.guardrails.iter().map(|spec| spec.bind(&seat.guardrails)).collect()
}

/// An agent with the guardrails that are code.
fn guarded(mut agent: AgentSpec, seat: &AgentHost) -> AgentSpec {
    for code in &seat.guardrails {
        let same = |spec: &GuardrailSpec| spec.name == code.name() && spec.on == code.stage();
        if !agent.guardrails.iter().any(same) {
            agent.guardrails.push(GuardrailSpec::of_code(code.as_ref()));
        }
    }
    agent
}

fn problem(agent: &AgentSpec, seat: &AgentHost) -> Option<String> {
    let mut names = BTreeSet::new();
    for (spec, bound) in agent.guardrails.iter().zip(guards(seat, agent)) {
        if !names.insert(&spec.name) {
            return Some(format!("two of its guardrails are named '{}'. Give each its own name", spec.name));
        }
        let unbound = bound.err().filter(|_| spec.agent.is_none());
        let unbound = unbound.map(|reason| format!("guardrail '{}': {reason}", spec.name));
        if let Some(problem) = spec.problem().or(unbound) {
            return Some(problem);
        }
    }
    for handoff in &agent.handoffs {
        if let Err(reason) = handoff.filter.bind(&seat.filters) {
            return Some(format!("its handoff to '{}': {reason}", handoff.agent));
        }
    }
    let schema = agent.output.as_ref()?.usable().err()?;
    Some(format!("its output schema: {schema}"))
}
