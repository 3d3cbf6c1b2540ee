//! A tool of a server as a tool of an agent.

use std::sync::Arc;

use mooring_capability::{BoxFuture, Effect, Tool, ToolContext, ToolInput, ToolResult};
use mooring_model::{ToolKind, ToolSpec};
use rmcp::model::{JsonObject, Tool as Listed};
use serde_json::{Value, json};

use crate::McpConfig;
use crate::name::tool_name;
use crate::server::Server;

/// The longest description that is passed on to the model, in bytes.
const LONGEST_DESCRIPTION: usize = 8 * 1024;

/// What providers do not take at the top of a schema. The server checks it all the same.
const REFUSED: [&str; 5] = ["oneOf", "anyOf", "allOf", "enum", "not"];

/// What the model sees of a tool, and what the server knows it by.
pub(crate) struct Offer {
    pub(crate) spec: ToolSpec,
    effect: Effect,
    name: String,
}

impl Offer {
    pub(crate) fn new(server: &str, config: &McpConfig, listed: Listed) -> Self {
        let mut parameters = JsonObject::clone(&listed.input_schema);
        // Some providers refuse a schema without these, and most refuse those at its top.
        parameters.entry("type").or_insert_with(|| "object".into());
        parameters.entry("properties").or_insert_with(|| json!({}));
        let refused = REFUSED.into_iter();
        let moved: JsonObject =
            refused.filter_map(|key| Some((key.to_owned(), parameters.remove(key)?))).collect();
        let mut description =
            listed.description.or(listed.title.map(Into::into)).unwrap_or_default().into_owned();
        if !moved.is_empty() {
            description += &format!("\nThe arguments must also satisfy {}", Value::Object(moved));
        }
        description.truncate(description.floor_char_boundary(LONGEST_DESCRIPTION));
        let claimed =
            listed.annotations.and_then(|hints| match (hints.read_only_hint, hints.idempotent_hint) {
                (Some(true), _) => Some(Effect::Pure),
                (_, Some(true)) => Some(Effect::Idempotent),
                _ => None,
            });
        let kind = ToolKind::Function { parameters: Value::Object(parameters), strict: false };
        Self {
            effect: config.effect_of(&listed.name, claimed),
            spec: ToolSpec { name: tool_name(server, &listed.name), description, kind },
            name: listed.name.into_owned(),
        }
    }
}

/// A tool of a server.
pub(crate) struct McpTool {
    pub(crate) offer: Arc<Offer>,
    pub(crate) server: Arc<Server>,
}

impl Tool for McpTool {
    fn spec(&self) -> ToolSpec {
        self.offer.spec.clone()
    }

    fn effect(&self) -> Effect {
        self.offer.effect
    }

    /// A server is a program of its own, on this host or elsewhere.
    fn leaves_sandbox(&self) -> bool {
        true
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
        prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async move {
            let ToolInput::Json(Value::Object(arguments)) = input else {
                return ToolResult::failed("The arguments of this tool are a JSON object.");
            };
            let (name, effect) = (&self.offer.name, self.offer.effect);
            self.server.call(name, effect, arguments.clone(), &context.key, prepared).await
        })
    }
}

impl std::fmt::Debug for McpTool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("McpTool").field(&self.offer.spec.name).finish()
    }
}
