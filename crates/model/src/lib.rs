//! One neutral model request, response and stream, and each wire protocol behind it.
//!
//! The neutral form is that of [Open Responses](https://openresponses.org/specification): a request carries items,
//! a response gives items. Each wire client translates at its edge. What a provider sends and we do not know is
//! kept and sent back verbatim ([`Item::Other`], `extra` fields), since reasoning and signatures must return as
//! they came. Nothing here knows tools' meanings or sandboxes.

mod client;
mod error;
mod item;
mod request;
mod response;

pub use client::{BoxFuture, ModelClient, ModelEvent, ModelStream};
pub use error::{ModelError, ModelErrorKind};
pub use item::{Content, FunctionOutput, Item, Role};
pub use request::{ModelRequest, ReasoningEffort, Settings, ToolKind, ToolSpec};
pub use response::{Capture, ModelResponse, StopReason, TokenLogprob, Usage};
