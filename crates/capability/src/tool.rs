//! The trait of a tool, and what the harness must know to call it safely.

use std::pin::Pin;
use std::sync::Arc;

use mooring_model::{FunctionOutput, ToolSpec};
use mooring_sandbox::SandboxSession;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A boxed future, for the object-safe trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What may happen if a call is repeated. Decides what becomes of a call that a crash left in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It changes nothing: it is simply run again.
    Pure,
    /// Repeating it with the same key changes nothing more: it is run again with that key.
    Idempotent,
    /// It must not be repeated: unless [`Tool::reconcile`] finds out, the model is told `outcome_unknown`.
    AtMostOnce,
    /// It must not be repeated, but can be undone.
    Compensatable,
}

/// What the model gave a tool.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolInput {
    /// Arguments of a function tool, parsed.
    Json(Value),
    /// Text of a custom tool.
    Text(String),
}

/// What a tool works with.
#[derive(Clone)]
pub struct ToolContext {
    /// The sandbox.
    pub session: Arc<dyn SandboxSession>,
    /// Stays the same however often this call is tried.
    pub key: String,
    /// Takes output as it comes, for people who watch. Must not block.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for ToolContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToolContext")
            .field("session", &self.session)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// How a call went, as the journal records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// The tool did its work. A command that exits with 1 counts as done: the exit code is in the output.
    Completed,
    /// The tool refused or could not do its work; the output says why.
    Failed,
}

/// What a call must know from a person before it can go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What is asked, in words, and who asks.
    pub message: String,
    /// The JSON Schema of the answer; `Null` where a plain yes or no is asked for.
    pub schema: Value,
    /// What the tool needs to go on with the call. It comes back to `call` as `prepared`:
    /// `{"state": …, "answer": {"action": "accept" | "decline" | "cancel", "content": …}}`.
    pub state: Value,
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// How it went.
    pub status: ToolStatus,
    /// What the model gets.
    pub output: FunctionOutput,
    /// For viewers and training: how a command ended, which files changed. `Null` where there is nothing to say.
    pub details: Value,
    /// The sandbox was lost: the harness makes it anew before it goes on.
    pub session_lost: bool,
    /// The call is not over: it is made again, with the answer, once a person has given it. The rest means nothing
    /// then.
    pub question: Option<Box<Question>>,
}

impl ToolResult {
    /// Done, with text.
    pub fn text(output: impl Into<String>) -> Self {
        Self {
            status: ToolStatus::Completed,
            output: FunctionOutput::Text(output.into()),
            details: Value::Null,
            session_lost: false,
            question: None,
        }
    }

    /// Not over yet.
    pub fn asks(question: Question) -> Self {
        Self { question: Some(Box::new(question)), ..Self::text("") }
    }

    /// Refused or failed, with the reason.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { status: ToolStatus::Failed, ..Self::text(reason) }
    }
}

/// What a tool finds out about a call that a crash left in doubt.
#[derive(Debug, Clone, PartialEq)]
pub enum Reconciled {
    /// It had happened, or has been brought to its end now. This is its result.
    Done(ToolResult),
    /// It had not begun: calling it is safe.
    NotStarted,
    /// Nobody can tell.
    Unknown,
}

/// A tool that the model may call.
pub trait Tool: Send + Sync + std::fmt::Debug {
    /// Its name, description and parameters.
    fn spec(&self) -> ToolSpec;

    /// What may happen if a call is repeated.
    fn effect(&self) -> Effect;

    /// Whether it acts outside of the sandbox: then a person is asked, unless a rule of the policy says otherwise.
    fn leaves_sandbox(&self) -> bool {
        false
    }

    /// Looks before the call, changing nothing. What it returns is in the journal before the call begins, and comes
    /// back to `call` and `reconcile`. A failure is given to the model, and the call does not take place.
    fn prepare<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
    ) -> BoxFuture<'a, Result<Value, ToolResult>> {
        let _ = (context, input);
        Box::pin(async { Ok(Value::Null) })
    }

    /// Does the work. Dropping the future must leave nothing running that the session's stop would not end.
    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
        prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult>;

    /// Finds out what became of a call that was begun and whose outcome was not recorded.
    fn reconcile<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
        prepared: &'a Value,
    ) -> BoxFuture<'a, Reconciled> {
        let _ = (context, input, prepared);
        Box::pin(async { Reconciled::Unknown })
    }
}
