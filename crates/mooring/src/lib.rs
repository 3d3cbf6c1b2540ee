//! An open, model-neutral runtime for agents, as a library.
//!
//! An [`Agent`] is a model with instructions, tools and rules. A [`Run`] is its work on one question: every step is in
//! the journal of a [`Runtime`], so that a run can be watched, answered, cancelled and gone on with from any process.
//!
//! ```
//! use mooring::{Agent, Run, Runtime, ScriptModel, tool};
//!
//! /// Says how the weather is.
//! #[tool(effect = "pure")]
//! async fn weather(
//!     /// The city's name.
//!     city: String,
//! ) -> String {
//!     format!("rain in {city}")
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A model whose answers are written down, so that this example runs anywhere. `Model::new("anthropic/NAME")` with a
//! // key in its place is all that changes for a real one.
//! let model = ScriptModel::parse("script", r#"
//!     [{"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{\"city\": \"Oslo\"}"}]
//!     [{"type": "message", "role": "assistant", "content": "Take an umbrella."}]
//! "#)?;
//! let agent = Agent::builder("forecaster").instructions("Advise on the weather.").model(model).tool(weather).build()?;
//!
//! let run = Run::start(&Runtime::in_memory(), &agent, "What do I need in Oslo?").await?;
//! assert_eq!(run.output(), Some("Take an umbrella."));
//! # Ok(())
//! # }
//! ```
//!
//! The library reads no environment and prints nothing: keys, directories and clocks are handed in. It keeps no
//! threads of its own and needs Tokio. The features `local` (the sandbox of this machine), `mcp` (tools of MCP servers)
//! and `sqlite` (runs that outlive the process) are on by default and each leave out what is heavy when off.
//!
//! What is below it stays open to use: [`harness`] drives runs, [`journal`] keeps them, [`sandbox`] is what a backend
//! implements, [`capability`] what a tool implements.

mod agent;
mod error;
mod model;
mod output;
mod run;
mod runtime;
mod stream;

#[doc(hidden)]
pub mod __private;

pub use agent::{Agent, AgentBuilder};
pub use error::Error;
pub use model::Model;
pub use mooring_capability::{
    ALL_CAPABILITIES, CAPABILITIES, Effect, Reconciled, Tool, ToolContext, ToolInput, ToolResult, ToolStatus,
};
pub use mooring_harness::{
    Action, Answer, Answered, Budget, Compaction, Guardrail, GuardrailAction, GuardrailSpec, HandoffFilter,
    Hooks, InputFilter, Limits, Live, Policy, Rule, Snapshots, Spent, Stage, Status, SubSandbox, Subject,
    Verdict,
};
pub use mooring_journal::event::RunError;
pub use mooring_journal::{Event, Record, RunId};
pub use mooring_manifest::Manifest;
pub use mooring_model::{Item, ModelClient, Prices, ScriptModel, Secret, Settings, ToolSpec, Usage};
pub use output::{IntoToolResult, Json};
pub use run::{Approval, Run};
pub use runtime::Runtime;
pub use stream::{RunEvent, RunStream};

pub use mooring_capability as capability;
pub use mooring_harness as harness;
pub use mooring_journal as journal;
pub use mooring_manifest as manifest;
#[cfg(feature = "mcp")]
pub use mooring_mcp as mcp;
pub use mooring_model as models;
pub use mooring_sandbox as sandbox;
#[cfg(feature = "local")]
pub use mooring_sandbox_local as local;
pub use mooring_snapshot as snapshot;
pub use mooring_snapshot::SnapshotStore;
pub use mooring_transfer as transfer;

/// Makes a function a tool: `.tool(weather)` gives it to an agent.
///
/// The function's doc comment tells the model what the tool is for, those of its arguments what they are; the types of
/// the arguments become the schema (`schemars` describes them and `serde` reads them, so structures and enumerations
/// of yours that derive both can be arguments too; what is an `Option` may be left out). An argument of the type
/// `&ToolContext` is not the model's: it holds the sandbox session, the key that stays the same however often the call
/// is tried, and a way to show progress. What is returned becomes the output: text, numbers, [`Json`], or a `Result`
/// of these, whose error the model reads. A function that is not `async` must not block.
///
/// `effect` says what may happen if a call is repeated: `pure`, `idempotent`, `at_most_once` (where nothing is said)
/// or `compensatable`. A pure tool may be called at any time; every other one acts outside of the sandbox, and a
/// person is asked, unless the agent's rules allow it ([`AgentBuilder::allow`]). `name` is the tool's name where the
/// function's will not do.
///
/// ```
/// use mooring::{Json, Tool, ToolContext, tool};
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Receipt {
///     id: String,
/// }
///
/// /// Pays a refund.
/// #[tool(name = "pay_refund", effect = "idempotent")]
/// async fn refund(
///     context: &ToolContext,
///     /// The order's number.
///     order: u64,
///     /// In cents; all of it where it is left out.
///     amount: Option<u64>,
/// ) -> Result<Json<Receipt>, std::io::Error> {
///     (context.progress)("asking the bank");
///     // The bank takes the key, and pays once however often it is asked with it.
///     Ok(Json(Receipt { id: format!("{order}-{amount:?}-{}", context.key) }))
/// }
///
/// assert_eq!(refund.spec().name, "pay_refund");
/// ```
///
/// What cannot be a tool does not compile:
///
/// ```compile_fail
/// # use mooring::tool;
/// #[tool] // no doc comment: the model would not know what it is for
/// fn silent() -> String { String::new() }
/// ```
/// ```compile_fail
/// # use mooring::tool;
/// /// Asks for anything.
/// #[tool] // nobody can say how its argument looks
/// fn generic<T: serde::de::DeserializeOwned>(anything: T) -> String { String::new() }
/// ```
/// ```compile_fail
/// # use mooring::tool;
/// /// Has an effect that is none.
/// #[tool(effect = "sometimes")]
/// fn fickle() -> String { String::new() }
/// ```
/// ```compile_fail
/// # use mooring::tool;
/// /// Borrows what a model would have to own.
/// #[tool]
/// fn borrowed(text: &str) -> String { text.to_owned() }
/// ```
pub use mooring_macros::tool;

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
