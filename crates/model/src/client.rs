//! The trait that every wire client implements.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;

use crate::{ModelError, ModelRequest, ModelResponse};

/// A boxed future, for the object-safe trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What comes while a model answers. Everything before `Completed` is for showing; only `Completed` counts.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelEvent {
    /// More text of the answer.
    TextDelta(String),
    /// More of what the model shows of its reasoning.
    ReasoningDelta(String),
    /// The model began to call this tool.
    ToolCallStarted {
        /// The tool.
        name: String,
    },
    /// The call failed in a way that another try may mend. What was shown of this answer is void.
    Retrying {
        /// Which try comes next, from 2.
        attempt: u32,
        /// How long until then.
        after: Duration,
        /// What failed.
        reason: String,
        /// Whether an answer had begun to come, or was waited for in vain: the provider may bill that try.
        begun: bool,
    },
    /// The whole answer. The stream ends with it, or with an error.
    Completed(Box<ModelResponse>),
}

/// A model's answer as it comes.
pub type ModelStream<'a> = Pin<Box<dyn Stream<Item = Result<ModelEvent, ModelError>> + Send + 'a>>;

/// A model behind some wire protocol.
pub trait ModelClient: Send + Sync + std::fmt::Debug {
    /// The model as it was asked for: `openai/gpt-5`, `script:/x/y.jsonl`.
    fn name(&self) -> &str;

    /// Asks the model. The stream ends with exactly one [`ModelEvent::Completed`] or one error; dropping it cancels
    /// the call. Retries happen inside.
    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a>;

    /// The model that gave this response, as it was asked for, and so as a table of prices knows it: this client's
    /// name, but of a chain the model that answered.
    fn answered_by<'a>(&'a self, response: &'a ModelResponse) -> &'a str {
        let _ = response;
        self.name()
    }
}
