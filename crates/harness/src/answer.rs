//! Answering an approval, from any process.
//!
//! A run that only waits for answers has no driver, so whoever answers claims it for a moment and appends the
//! answer. While a driver lives (other calls of the turn are still running) the answer has to wait for it; nothing
//! is kept in memory, so nothing can be lost.

use std::sync::Arc;

use mooring_journal::event::ApprovalAnswered;
use mooring_journal::{Append, Durability, Event, Journal, JournalError, RunId, Stamped};

use serde_json::Value;

use crate::HarnessError;
use crate::driver::{fold, summary};

/// A person's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether the call may take place.
    pub allow: bool,
    /// Whether the same rule need not ask again in this run for the same tool.
    pub always: bool,
    /// Who answers.
    pub by: String,
    /// Why; the model gets to read it.
    pub reason: Option<String>,
    /// The input that the call asks for; `Null` where it asks for none.
    pub input: Value,
}

/// What came of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// It was recorded.
    Recorded,
    /// The question had been answered before, with this decision; nothing changed.
    Before(String),
    /// The time to answer had passed: the call counts as denied.
    Expired,
}

/// Answers an approval. Answering twice changes nothing.
///
/// # Errors
/// [`HarnessError::NoApproval`] where the run never asked this; [`HarnessError::Input`] where input is asked for and
/// missing, or given and not asked for; [`JournalError::Driven`] while a driver is at work
/// on the run.
pub async fn answer(
    journal: &dyn Journal,
    run: &RunId,
    approval_id: &str,
    answer: Answer,
    now_ms: i64,
) -> Result<Answered, HarnessError> {
    let mut before = None;
    let state = fold(journal, run, |record| {
        if let Event::ApprovalAnswered(given) = &record.event
            && given.approval_id == approval_id
        {
            before = Some(given.decision.clone());
        }
    })
    .await?;
    if let Some(decision) = before {
        return Ok(Answered::Before(decision));
    }
    let Some(asked) =
        state.approvals().map(|(_, asked)| asked).find(|asked| asked.approval_id == approval_id)
    else {
        return Err(HarnessError::NoApproval { run: run.clone(), approval_id: approval_id.into() });
    };
    if answer.allow && answer.input.is_null() != asked.schema.is_null() {
        let (run, approval_id) = (run.clone(), approval_id.into());
        return Err(HarnessError::Input { run, approval_id, schema: asked.schema.clone() });
    }
    let expired = now_ms > asked.expires_ms;
    let claim = journal.claim(run, &format!("{}'s answer to {approval_id}", answer.by)).await?;
    if claim.last_seq != state.last_seq {
        // Somebody else was here between the look and the claim.
        let (run, expected, actual) = (run.clone(), state.last_seq, claim.last_seq);
        return Err(JournalError::Conflict { run, expected, actual }.into());
    }
    let decision = match (expired, answer.allow) {
        (true, _) => "expired",
        (false, true) => "allow",
        (false, false) => "deny",
    };
    let event = Event::ApprovalAnswered(ApprovalAnswered {
        approval_id: approval_id.into(),
        decision: decision.into(),
        always: answer.always && decision == "allow",
        by: answer.by,
        reason: answer.reason,
        input: if decision == "allow" { answer.input } else { Value::Null },
    });
    let mut after = state;
    after.apply_at(&event, now_ms).map_err(|source| HarnessError::Fold { run: run.clone(), source })?;
    let append = Append {
        run: run.clone(),
        epoch: claim.epoch,
        after: claim.last_seq,
        events: Arc::new(vec![Stamped { at_ms: now_ms, event }]),
        // The run still says that it waits: it goes on when it is resumed.
        summary: Some(summary(&after)),
        durability: Durability::Power,
    };
    journal.append(append).await?;
    Ok(if expired { Answered::Expired } else { Answered::Recorded })
}
