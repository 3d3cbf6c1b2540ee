//! Asking the model.

use futures::StreamExt;
use mooring_journal::event::{ModelCompleted, ModelFailed, ModelRequested};
use mooring_journal::{Durability, Event};
use mooring_model::{ModelClient, ModelError, ModelEvent, ModelRequest, ModelResponse};

use super::{Driver, elapsed_ms, json};
use crate::{HarnessError, Live};

/// What came of one call of the model.
pub(super) enum Answer {
    Response(Box<ModelResponse>),
    Failed(ModelError),
    Cancelled,
}

/// How a call of the model went until it answered.
#[derive(Debug, Default)]
pub(super) struct Tries {
    pub(super) attempts: u32,
    pub(super) first_output: Option<i64>,
    /// Whether something of an answer came in this try.
    pub(super) begun: bool,
    /// Tries that failed once their answer had begun: they may be billed, and nobody says at what.
    pub(super) wasted: u64,
}

impl Driver<'_> {
    pub(super) async fn ask_model(&mut self) -> Result<(), HarnessError> {
        let turn = self.state.turns + 1;
        let ordinal = self.state.ordinal();
        let mut settings = self.state.agent.settings.clone();
        // Agents that judge work beside the model: each has a share of what is left.
        let due = self.state.checks_beside_model();
        let parts = self.judges(&due) + 1;
        if let Some(left) = self.state.answer_left() {
            settings.max_output_tokens =
                Some(settings.max_output_tokens.map_or(left, |asked| asked.min(left)));
        }
        let compaction = self.state.agent.compaction.as_ref();
        settings.compact_at =
            compaction.filter(|compaction| compaction.provider).map(|compaction| compaction.at_tokens);
        self.push(Event::ModelRequested(ModelRequested {
            turn,
            ordinal,
            model: self.state.agent.model.clone(),
            settings: json(&settings),
            items: self.state.items.len() as u64,
            compactions: self.state.compactions(),
        }))?;
        // Asking again after a crash costs tokens, not truth: the process must outlive it, the disk need not.
        self.flush(Durability::Process).await?;

        let began = self.now();
        let mut tries = Tries { attempts: 1, ..Tries::default() };
        let mut checks = self.begin_checks(&due, &self.share(parts));
        let request = ModelRequest {
            instructions: self.state.instructions(),
            items: &self.state.items,
            tools: &self.specs,
            settings: &settings,
            output: self.state.agent.output.as_ref().map(|typed| &typed.form),
            ordinal,
        };
        let asking = self.stream_answer(self.model.as_ref(), request, &mut tries, true);
        // Where a guardrail trips, nobody waits for the answer.
        let answer = checks.beside(asking).await.unwrap_or(Answer::Cancelled);
        let read = self.state.context_tokens();
        let duration_ms = elapsed_ms(began, self.now());
        if !matches!(answer, Answer::Response(_)) {
            checks.stop();
        }
        match answer {
            Answer::Cancelled => Ok(()),
            Answer::Failed(error) => self.push(Event::ModelFailed(ModelFailed {
                turn,
                kind: error.kind.as_str().into(),
                message: error.to_string(),
                retryable: error.retryable(),
                retried_tokens: read * (tries.wasted + u64::from(tries.begun)),
            })),
            Answer::Response(response) => {
                let retried_tokens = read * tries.wasted;
                let by = self.model.answered_by(&response);
                let cost = self.state.cost(by, &response.usage, retried_tokens);
                self.push(Event::ModelCompleted(Box::new(ModelCompleted {
                    turn,
                    ordinal,
                    response_id: response.id,
                    model: response.model,
                    items: response.items.iter().map(json).collect(),
                    usage: json(&response.usage),
                    stop_reason: json(&response.stop_reason),
                    capture: if response.capture == mooring_model::Capture::default() {
                        serde_json::Value::Null
                    } else {
                        json(&response.capture)
                    },
                    cost: cost.map(mooring_model::Cost::amount),
                    attempts: tries.attempts,
                    retried_tokens,
                    first_output_ms: tries.first_output.map(|at| elapsed_ms(began, at)),
                    duration_ms,
                })))
            }
        }?;
        self.end_checks(checks).await
    }

    /// Waits for an answer of a model. Only what the agent itself says is shown as it comes.
    pub(super) async fn stream_answer(
        &self,
        model: &dyn ModelClient,
        request: ModelRequest<'_>,
        tries: &mut Tries,
        show: bool,
    ) -> Answer {
        let observer = &self.host.observer;
        let mut stream = model.stream(request);
        loop {
            let event = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Answer::Cancelled,
                event = stream.next() => event,
            };
            match event {
                None => {
                    let message = "the answer ended before it was whole";
                    let kind = mooring_model::ModelErrorKind::Protocol;
                    return Answer::Failed(ModelError::new(kind, model.name(), message));
                }
                Some(Err(error)) => return Answer::Failed(error),
                Some(Ok(ModelEvent::Completed(response))) => return Answer::Response(response),
                Some(Ok(ModelEvent::Retrying { attempt, after, reason, begun })) => {
                    tries.attempts = attempt;
                    tries.wasted += u64::from(begun || tries.begun);
                    tries.begun = false;
                    observer.live(Live::Retrying { attempt, after, reason });
                }
                Some(Ok(event)) => {
                    tries.begun = true;
                    tries.first_output.get_or_insert_with(|| self.now());
                    match event {
                        _ if !show => {}
                        ModelEvent::TextDelta(text) => observer.live(Live::Text(text)),
                        ModelEvent::ReasoningDelta(text) => observer.live(Live::Reasoning(text)),
                        ModelEvent::ToolCallStarted { name } => {
                            observer.live(Live::ToolCallStarted { tool: name });
                        }
                        ModelEvent::Retrying { .. } | ModelEvent::Completed(_) => {}
                    }
                }
            }
        }
    }
}
