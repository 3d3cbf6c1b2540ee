//! A server over its life: calls, and the restarts of one that died.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooring_capability::{Effect, ToolResult};
use rmcp::ServiceError;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, JsonObject, RequestMetaObject, RequestParamsMeta as _,
};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Launch;
use crate::connection::Connection;
use crate::failure::chain;
use crate::{McpConfig, result};

/// The waits before the restarts of a server that answered no call in between.
const BACKOFF: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
/// How much of a server's error message is passed on.
const LONGEST_ERROR: usize = 4096;
/// Where a call's stable key is, in `_meta`.
const KEY: &str = "io.mooring/key";

/// A server and, while it lives, the connection to it.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) config: McpConfig,
    launch: Launch,
    connection: Mutex<Option<Arc<Connection>>>,
    /// How often it was restarted since it last answered a call. Held while it is.
    restarts: tokio::sync::Mutex<usize>,
    stopped: CancellationToken,
}

impl Server {
    pub(crate) fn new(name: String, config: McpConfig, launch: Launch, connection: Connection) -> Self {
        let connection = Mutex::new(Some(Arc::new(connection)));
        Self {
            name,
            config,
            launch,
            connection,
            restarts: tokio::sync::Mutex::default(),
            stopped: CancellationToken::new(),
        }
    }

    /// Calls a tool by the server's own name for it.
    pub(crate) async fn call(
        &self,
        tool: &str,
        effect: Effect,
        arguments: JsonObject,
        key: &str,
    ) -> ToolResult {
        let connection = match self.live().await {
            Ok(connection) => connection,
            Err(why) => return self.failed(tool, &format!("{why} The call was not made."), false),
        };
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let mut meta = RequestMetaObject::new();
        meta.0.0.insert(KEY.into(), key.into());
        params.set_meta(meta);
        let doubt = match effect {
            Effect::Pure => "Calling it again is safe.",
            Effect::Idempotent | Effect::AtMostOnce | Effect::Compensatable => {
                "The call may have taken effect: find out before you repeat it."
            }
        };
        let Ok(answer) = timeout(self.config.timeout, connection.peer.call_tool_once(params)).await else {
            let seconds = self.config.timeout.as_secs();
            let text =
                format!("It gave no answer within {seconds} s and was asked to stop the call. {doubt}");
            return self.failed(tool, &text, true);
        };
        if !matches!(answer, Err(ServiceError::TransportClosed | ServiceError::TransportSend(_))) {
            // Whoever holds it is restarting, and counts on.
            if let Ok(mut restarts) = self.restarts.try_lock() {
                *restarts = 0;
            }
        }
        match answer {
            Ok(CallToolResponse::Complete(answer)) => {
                let (status, output) = result::convert(answer);
                let details = self.details(tool, false);
                ToolResult { status, output, details, session_lost: false }
            }
            Ok(CallToolResponse::InputRequired(_)) => {
                self.failed(tool, "It asks a person for input, which cannot be given here.", false)
            }
            Ok(_) => self.failed(
                tool,
                &format!("It went on with the call as a task, which cannot be followed here. {doubt}"),
                true,
            ),
            Err(ServiceError::McpError(error)) => {
                let message: String = error.message.chars().take(LONGEST_ERROR).collect();
                self.failed(tool, &format!("It refused the call: {message} ({})", error.code.0), false)
            }
            Err(ServiceError::TransportClosed) => self.died(&connection, tool, doubt, "").await,
            Err(error @ ServiceError::TransportSend(_)) => {
                self.died(&connection, tool, doubt, &format!(" ({})", chain(&error))).await
            }
            Err(error) => {
                self.failed(tool, &format!("Its answer cannot be used: {}. {doubt}", chain(&error)), true)
            }
        }
    }

    /// The connection, if there is one now.
    pub(crate) fn current(&self) -> Option<Arc<Connection>> {
        self.slot().clone()
    }

    /// Ends it, within a few seconds.
    pub(crate) async fn close(&self) {
        self.stopped.cancel();
        let connection = self.slot().take();
        if let Some(connection) = connection {
            connection.close().await;
        }
    }

    /// Ends it now.
    pub(crate) fn kill(&self) {
        self.stopped.cancel();
        if let Some(connection) = self.slot().take() {
            connection.kill();
        }
    }

    /// A connection that is open, made anew if need be.
    async fn live(&self) -> Result<Arc<Connection>, String> {
        // The wait is bounded: by the restarts and the time that each may take.
        let open = || self.current().filter(|connection| connection.is_open());
        if let Some(connection) = open() {
            return Ok(connection);
        }
        let mut restarts = self.restarts.lock().await;
        if let Some(connection) = open() {
            return Ok(connection);
        }
        let mut why = match self.current() {
            Some(connection) => connection.autopsy().await,
            None => "it ended".into(),
        };
        while let Some(wait) = BACKOFF.get(*restarts) {
            *restarts += 1;
            let made = async {
                sleep(*wait).await;
                Connection::open(&self.launch, self.config.connect_timeout).await
            };
            match self.stopped.run_until_cancelled(made).await {
                None => return Err("It is stopped, as the run is over.".into()),
                Some(Err(trouble)) => why = trouble.problem.to_string(),
                Some(Ok(connection)) => {
                    let connection = Arc::new(connection);
                    *self.slot() = Some(connection.clone());
                    // Whoever stops it sets the token first and looks into the slot then.
                    if self.stopped.is_cancelled() {
                        connection.kill();
                    }
                    return Ok(connection);
                }
            }
        }
        Err(format!("It is off for the rest of the run: after {} restarts, {why}.", BACKOFF.len()))
    }

    async fn died(&self, connection: &Arc<Connection>, tool: &str, doubt: &str, how: &str) -> ToolResult {
        // One that we reach by HTTP may have a broken session only: it is greeted anew, too.
        self.slot().take_if(|current| Arc::ptr_eq(current, connection));
        let why = connection.autopsy().await;
        let text = format!("The server was lost during the call: {why}{how}. {doubt}");
        self.failed(tool, &text, true)
    }

    fn failed(&self, tool: &str, why: &str, unknown: bool) -> ToolResult {
        let text = format!("MCP server `{}`, tool `{tool}`: {why}", self.name);
        ToolResult { details: self.details(tool, unknown), ..ToolResult::failed(text) }
    }

    fn details(&self, tool: &str, unknown: bool) -> serde_json::Value {
        json!({"mcp": {"server": self.name, "tool": tool, "outcome_unknown": unknown}})
    }

    /// What is in it is whole at any time.
    fn slot(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
