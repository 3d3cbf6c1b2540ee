//! Shortening the conversation: asks a model for a summary, and swaps it in.

use std::ops::Range;
use std::sync::Arc;

use mooring_journal::event::{Compacted, CompactionFailed, CompactionRequested};
use mooring_journal::{Durability, Event};
use mooring_model::{Item, ModelRequest, Settings, StopReason};

use super::ask::{Answer, Tries};
use super::{Driver, elapsed_ms, json, seat};
use crate::HarnessError;
use crate::compaction::{ask, digest_of, replacement};

/// The longest summary, in tokens; a model that thinks first needs room for that too.
const SUMMARY: u64 = 8_000;

impl Driver<'_> {
    pub(super) async fn compact(&mut self, part: Range<usize>) -> Result<(), HarnessError> {
        let Some(settings) = self.state.agent.compaction.clone() else { return Ok(()) };
        let seat = seat(self.host, &self.run, &self.state.agent.name)?;
        let model = Arc::clone(seat.summariser.as_ref().unwrap_or(&seat.model));
        let name = self.state.summariser().to_owned();
        let ordinal = self.state.answers.get(&name).copied().unwrap_or(0);
        let most = self.state.answer_left().unwrap_or(SUMMARY).min(SUMMARY);
        // The agent's own settings are for another kind of work.
        let sampling = Settings { max_output_tokens: Some(most), ..Settings::default() };
        let digest = digest_of(&self.state.items[part.clone()]);
        let (from, to) = (part.start as u64, part.end as u64);
        let turn = self.state.turns + 1;
        self.push(Event::CompactionRequested(CompactionRequested {
            turn,
            attempt: self.state.compaction_try(),
            from,
            to,
            digest: digest.clone(),
            ordinal,
            model: name,
            settings: json(&sampling),
        }))?;
        self.flush(Durability::Process).await?;

        let began = self.now();
        // Of the size that the agent's own prompts have at most.
        let most_bytes =
            usize::try_from(settings.at_tokens.saturating_mul(2)).unwrap_or(usize::MAX).max(4_096);
        let (instructions, message) = ask(&settings, &self.state.items[part.clone()], most_bytes);
        let read = self.state.context_tokens();
        let mut tries = Tries::default();
        let items = [message];
        let request = ModelRequest {
            instructions: &instructions,
            items: &items,
            tools: &[],
            settings: &sampling,
            output: None,
            ordinal,
        };
        let answer = self.stream_answer(model.as_ref(), request, &mut tries, false).await;
        let duration_ms = elapsed_ms(began, self.now());
        let response = match answer {
            Answer::Cancelled => return Ok(()),
            Answer::Failed(error) => {
                return self.push(Event::CompactionFailed(CompactionFailed {
                    turn,
                    reason: error.to_string(),
                    retried_tokens: read * (tries.wasted + u64::from(tries.begun)),
                    ..CompactionFailed::default()
                }));
            }
            Answer::Response(response) => response,
        };
        let retried_tokens = read * tries.wasted;
        let cost = self.state.cost(model.answered_by(&response), &response.usage, retried_tokens);
        let cost = cost.map(mooring_model::Cost::amount);
        let usage = json(&response.usage);
        let text = response.items.iter().map(Item::text).filter(|text| !text.trim().is_empty());
        let text = text.collect::<Vec<_>>().join("\n\n");
        let new = replacement(
            &self.state.items,
            &part,
            self.state.summary_at(),
            &text,
            &self.run.0,
            self.state.running_commands(),
        );
        let reason = match &response.stop_reason {
            _ if text.is_empty() => Some("the summary is empty"),
            StopReason::MaxOutputTokens => Some("the summary was cut"),
            StopReason::Refusal => Some("the model declined to write a summary"),
            _ if !self.state.is_worth(&part, &new) => {
                Some("the summary is hardly shorter than what it stands for")
            }
            _ => None,
        };
        self.push(match reason {
            Some(reason) => Event::CompactionFailed(CompactionFailed {
                turn,
                reason: reason.into(),
                usage,
                cost,
                retried_tokens,
            }),
            None => Event::Compacted(Box::new(Compacted {
                turn,
                from,
                to,
                digest,
                items: new.iter().map(json).collect(),
                ordinal,
                model: response.model,
                usage,
                cost,
                retried_tokens,
                duration_ms,
            })),
        })
    }
}
