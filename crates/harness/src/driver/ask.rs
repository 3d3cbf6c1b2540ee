//! Asking the model.

use futures::StreamExt;
use mooring_journal::event::{ModelCompleted, ModelFailed, ModelRequested};
use mooring_journal::{Durability, Event};
use mooring_model::{ModelError, ModelEvent, ModelRequest, ModelResponse, Settings};

use super::{Driver, elapsed_ms, json};
use crate::{HarnessError, Live};

/// What came of one call of the model.
enum Answer {
    Response(Box<ModelResponse>),
    Failed(ModelError),
    Cancelled,
}

impl Driver<'_> {
    pub(super) async fn ask_model(&mut self) -> Result<(), HarnessError> {
        let turn = self.state.turns + 1;
        let ordinal = self.state.ordinal();
        let mut settings = self.state.agent.settings.clone();
        // Agents that judge work beside the model: each has a share of what is left.
        let due = self.state.checks_beside_model();
        let parts = self.judges(&due) + 1;
        if let Some(left) = self.state.tokens_left().map(|left| left / parts) {
            settings.max_output_tokens =
                Some(settings.max_output_tokens.map_or(left, |asked| asked.min(left)));
        }
        self.push(Event::ModelRequested(ModelRequested {
            turn,
            ordinal,
            model: self.state.agent.model.clone(),
            settings: json(&settings),
            items: self.state.items.len() as u64,
        }))?;
        // Asking again after a crash costs tokens, not truth: the process must outlive it, the disk need not.
        self.flush(Durability::Process).await?;

        let began = self.now();
        let mut first_output = None;
        let mut attempts = 1;
        let mut checks = self.begin_checks(&due, &self.share(parts));
        let asking = self.stream_answer(ordinal, &settings, &mut first_output, &mut attempts);
        // Where a guardrail trips, nobody waits for the answer.
        let answer = checks.beside(asking).await.unwrap_or(Answer::Cancelled);
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
            })),
            Answer::Response(response) => self.push(Event::ModelCompleted(Box::new(ModelCompleted {
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
                attempts,
                first_output_ms: first_output.map(|at| elapsed_ms(began, at)),
                duration_ms,
            }))),
        }?;
        self.end_checks(checks).await
    }

    async fn stream_answer(
        &self,
        ordinal: u64,
        settings: &Settings,
        first_output: &mut Option<i64>,
        attempts: &mut u32,
    ) -> Answer {
        let request = ModelRequest {
            instructions: self.state.instructions(),
            items: &self.state.items,
            tools: &self.specs,
            settings,
            output: self.state.agent.output.as_ref().map(|typed| &typed.form),
            ordinal,
        };
        let observer = &self.host.observer;
        let mut stream = self.model.stream(request);
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
                    return Answer::Failed(ModelError::new(kind, self.model.name(), message));
                }
                Some(Err(error)) => return Answer::Failed(error),
                Some(Ok(ModelEvent::Completed(response))) => return Answer::Response(response),
                Some(Ok(ModelEvent::Retrying { attempt, after, reason })) => {
                    *attempts = attempt;
                    observer.live(Live::Retrying { attempt, after, reason });
                }
                Some(Ok(event)) => {
                    first_output.get_or_insert_with(|| self.now());
                    match event {
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
