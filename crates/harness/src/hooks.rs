//! Hooks: code that is told of each step of a run, for what must be in order and may take a moment: an audit log, a
//! cache to warm, a notification.
//!
//! A hook is called when its event is recorded, in the order of the run, and the run waits for it; on a resume nothing
//! is told again that the driver before had recorded. It cannot change the run: what could would have to be in the
//! journal, and there are guardrails, the policy and handoff filters for it. One that fails, or takes longer than ten
//! seconds, is noted for whoever watches, and the run goes on. A crash may keep a hook from being told of events that
//! are recorded: what must not be missed is read from the journal.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use mooring_capability::BoxFuture;
use mooring_journal::event::{
    ApprovalAnswered, ApprovalRequested, BudgetGranted, CancelRequested, Compacted, CompactionFailed,
    CompactionRequested, ContextAdded, DeadlinePassed, DriverAttached, Egress, GuardrailChecked, HandedOff,
    ModelCompleted, ModelFailed, ModelRequested, MountFailed, OutputChecked, RunFinished, RunStarted,
    SandboxLost, SandboxReady, SandboxRequested, SnapshotFailed, SnapshotTaken, ToolCompleted, ToolRequested,
    ToolSuspended,
};
use mooring_journal::{Event, Record, RunId};

use crate::{Live, Observer};

/// How long one hook may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where in a run, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The run; that of a sub-agent has an id of its own.
    pub run: RunId,
    /// The event's place in it.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// What a hook gives.
pub type HookResult = Result<(), Box<dyn Error + Send + Sync>>;

/// Writes a trait for each subject, with a method for each event that does nothing by itself, and what calls them.
macro_rules! hooks {
    ($($(#[$doc:meta])* $hook:ident as $list:ident { $($(#[$told:meta])* $method:ident: $event:ident,)+ })+) => {
        $(
            $(#[$doc])*
            pub trait $hook: Send + Sync {
                $(
                    $(#[$told])*
                    fn $method<'a>(&'a self, at: &'a Moment, event: &'a $event) -> BoxFuture<'a, HookResult> {
                        let _ = (at, event);
                        Box::pin(async { Ok(()) })
                    }
                )+
            }
        )+

        /// The hooks of a host, by subject, each called in turn. One value may be in several lists.
        #[derive(Clone, Default)]
        pub struct Hooks {
            $(
                #[doc = concat!("Each a [`", stringify!($hook), "`].")]
                pub $list: Vec<Arc<dyn $hook>>,
            )+
        }

        impl Hooks {
            /// Tells the hooks of an event that is recorded.
            pub(crate) async fn tell(&self, record: &Record, observer: &dyn Observer) {
                let at = || Moment { run: record.run.clone(), seq: record.seq, at_ms: record.at_ms };
                match &record.event {
                    $($(
                        Event::$event(event) => {
                            for hook in &self.$list {
                                let name = concat!(stringify!($hook), "::", stringify!($method));
                                wait(hook.$method(&at(), event), name, observer).await;
                            }
                        }
                    )+)+
                    _ => {}
                }
            }
        }
    };
}

hooks! {
    /// Told of runs.
    RunHook as run {
        /// A run began.
        started: RunStarted,
        /// A driver took it: at its start, and at each resume.
        attached: DriverAttached,
        /// A tenant's account has set something aside for it.
        granted: BudgetGranted,
        /// Somebody asked to cancel it.
        cancelling: CancelRequested,
        /// It has used up its time.
        expired: DeadlinePassed,
        /// It is over, or waits for a person.
        finished: RunFinished,
    }
    /// Told of sandboxes.
    SandboxHook as sandbox {
        /// One is about to be made or started again.
        requested: SandboxRequested,
        /// It runs, with its workspace.
        ready: SandboxReady,
        /// It could not be made, or was lost.
        lost: SandboxLost,
        /// What the workspace says about itself joined the conversation.
        context: ContextAdded,
        /// Something in it asked for the network, and was let through or refused.
        egress: Egress,
        /// Storage that is mounted in it could not do something.
        mount_failed: MountFailed,
        /// A snapshot of the workspace was taken.
        snapshot: SnapshotTaken,
        /// One could not be taken.
        snapshot_failed: SnapshotFailed,
    }
    /// Told of calls of the model.
    ModelHook as model {
        /// It is about to be asked.
        requested: ModelRequested,
        /// It answered.
        completed: ModelCompleted,
        /// It could not be asked.
        failed: ModelFailed,
    }
    /// Told of conversations that are shortened.
    CompactionHook as compaction {
        /// A summary is about to be asked for.
        requested: CompactionRequested,
        /// It took the place of what it summarises.
        completed: Compacted,
        /// It could not be had, or was not worth it.
        failed: CompactionFailed,
    }
    /// Told of tool calls.
    ToolHook as tool {
        /// One is about to be made.
        requested: ToolRequested,
        /// It is over.
        completed: ToolCompleted,
        /// It waits for a person.
        suspended: ToolSuspended,
    }
    /// Told of questions to people.
    ApprovalHook as approval {
        /// Somebody is asked.
        requested: ApprovalRequested,
        /// Somebody answered, or the time to has passed. What another process recorded is told when the run is resumed.
        answered: ApprovalAnswered,
    }
    /// Told of agents that hand over.
    HandoffHook as handoff {
        /// Another agent goes on.
        handed_off: HandedOff,
    }
    /// Told of checks.
    CheckHook as check {
        /// A guardrail gave its verdict.
        guardrail: GuardrailChecked,
        /// An answer was held against its schema.
        output: OutputChecked,
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

async fn wait(hook: BoxFuture<'_, HookResult>, name: &str, observer: &dyn Observer) {
    let problem = match tokio::time::timeout(DEADLINE, hook).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("a hook failed, the run goes on: {name}: {error}"),
        Err(_) => format!("a hook took longer than {DEADLINE:?}, the run goes on: {name}"),
    };
    observer.live(Live::Note(problem));
}
