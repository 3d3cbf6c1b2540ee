//! One neutral model request, response and stream, and each wire protocol behind it.
//!
//! The neutral form is that of [Open Responses](https://openresponses.org/specification): a request carries items,
//! a response gives items. Each wire client translates at its edge. What a provider sends and we do not know is
//! kept and sent back verbatim ([`Item::Other`], `extra` fields), since reasoning and signatures must return as
//! they came. A client can stand behind limits ([`Limited`]) and in a chain ([`Route`]). Nothing here knows tools'
//! meanings or sandboxes.
//!
//! ```
//! use futures::StreamExt as _;
//! use mooring_model::{Item, ModelEvent, ModelOptions, ModelRequest, ModelSpec, Settings, connect};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let file = folder.path().join("hello.jsonl");
//! // One line, one answer. `openai/gpt-5` in its place, and a key in the options, is all that changes for a real one.
//! std::fs::write(&file, r#"[{"type": "message", "role": "assistant", "content": "Hello."}]"#).unwrap();
//! let model = connect(&ModelSpec::parse(&format!("script:{}", file.display()))?, &ModelOptions::default())?;
//!
//! let request = ModelRequest {
//!     instructions: "Be brief.",
//!     items: &[Item::user("Say hello.")],
//!     tools: &[],
//!     settings: &Settings::default(),
//!     output: None,
//!     ordinal: 0,
//! };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let mut answer = model.stream(request);
//! while let Some(event) = answer.next().await {
//!     match event? {
//!         ModelEvent::TextDelta(text) => print!("{text}"),
//!         ModelEvent::Completed(response) => assert_eq!(response.items[0].text(), "Hello."),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), mooring_model::ModelError>(())
//! # })?;
//! # Ok::<(), mooring_model::ModelError>(())
//! ```

mod anthropic;
mod chat;
mod client;
mod error;
mod fault;
mod http;
mod item;
mod limit;
mod price;
#[cfg(test)]
mod recorded;
mod registry;
mod request;
mod response;
mod responses;
mod retry;
mod route;
mod script;
mod secret;
mod spec;
mod sse;
mod strict;
mod wire;
mod wire_calls;
#[cfg(test)]
mod written;

pub use client::{BoxFuture, ModelClient, ModelEvent, ModelStream};
pub use error::{ModelError, ModelErrorKind};
pub use item::{Content, FunctionOutput, Item, Role};
pub use limit::{Limited, Limiter, RateLimits};
pub use price::{Cost, Price, Prices, Rate};
pub use registry::{ModelOptions, connect, connect_all};
pub use request::{ModelRequest, ReasoningEffort, Settings, ToolKind, ToolSpec};
pub use response::{Capture, ModelResponse, StopReason, TokenLogprob, Usage};
pub use route::Route;
pub use script::ScriptModel;
pub use secret::Secret;
pub use spec::{ModelSpec, PROVIDERS, Provider};
#[cfg(fuzzing)]
pub use sse::fuzz_sse;
pub use strict::OutputSchema;
