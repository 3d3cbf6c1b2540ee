//! What a tool may return.

use std::fmt::Display;

use mooring_capability::ToolResult;
use mooring_model::FunctionOutput;
use serde::Serialize;

/// What can be a tool's output.
pub trait IntoToolResult {
    /// The result that the model gets.
    fn into_tool_result(self) -> ToolResult;
}

/// Anything that `serde` writes, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl IntoToolResult for ToolResult {
    fn into_tool_result(self) -> ToolResult {
        self
    }
}

impl IntoToolResult for FunctionOutput {
    fn into_tool_result(self) -> ToolResult {
        ToolResult { output: self, ..ToolResult::text("") }
    }
}

impl IntoToolResult for () {
    fn into_tool_result(self) -> ToolResult {
        ToolResult::text("done")
    }
}

impl<T: Serialize> IntoToolResult for Json<T> {
    fn into_tool_result(self) -> ToolResult {
        match serde_json::to_string(&self.0) {
            Ok(text) => ToolResult::text(text),
            Err(error) => ToolResult::failed(format!("the output has no JSON form: {error}")),
        }
    }
}

impl<T: IntoToolResult, E: Display> IntoToolResult for Result<T, E> {
    fn into_tool_result(self) -> ToolResult {
        match self {
            Ok(output) => output.into_tool_result(),
            Err(error) => ToolResult::failed(error.to_string()),
        }
    }
}

macro_rules! as_text {
    ($($type:ty),+) => {
        $(impl IntoToolResult for $type {
            fn into_tool_result(self) -> ToolResult {
                ToolResult::text(self.to_string())
            }
        })+
    };
}

as_text!(String, &str, bool, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64, serde_json::Value);
