//! The control plane: a pure machine, and the driver that performs its effects.
//!
//! [`State`] folds a run's events and says what is due next; it knows no clock, no network, no disk. [`start`] and
//! [`resume`] drive it: they perform what is due and append what happened, in this order: the intent is in the
//! journal before an effect starts, and its outcome is there before the next effect starts. After a crash the fold
//! says exactly what is in doubt.
//!
//! This crate names no provider and no wire protocol: the journal, the clock, and each agent's model, sandbox and tools come in as a [`Host`].

mod answer;
mod budget;
mod compaction;
mod driver;
mod error;
mod fork;
mod guardrail;
mod hooks;
mod machine;
mod observer;
mod policy;
mod run;
mod team;
mod typed;

pub use answer::{Answer, Answered, answer};
pub use budget::{Budget, Resource, Seconds, Spent};
pub use compaction::Compaction;
pub use driver::{amounts, budget_of, finished, fold, resume, settle, start, summary};
pub use error::HarnessError;
pub use fork::{Fork, Forked, RestoredWorkspace, anew, fork, nearest_snapshot, restore_workspace};
pub use guardrail::{Guardrail, GuardrailAction, GuardrailSpec, Stage, Subject, Verdict};
pub use hooks::{
    ApprovalHook, CheckHook, CompactionHook, HandoffHook, HookResult, Hooks, ModelHook, Moment, RunHook,
    SandboxHook, ToolHook,
};
pub use machine::{
    Approval, Call, CallStatus, Check, FoldError, Next, SandboxState, Snapshots, State, Status,
};
pub use observer::{Live, Observer, Silent};
pub use policy::{Action, Asked, Decision, Policy, Rule, glob};
pub use run::{AgentHost, AgentSpec, Finished, Host, Limits, Member, NewRun, Terms};
pub use team::{Handoff, HandoffFilter, InputFilter, SubAgent, SubSandbox};
pub use typed::TypedOutput;
