//! A server over its life: calls, and the restarts of one that died.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooring_capability::{Effect, ToolResult};
use rmcp::ServiceError;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, JsonObject, RequestMetaObject, RequestParamsMeta as _,
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Launch;
use crate::connection::{Connection, Loss, Trouble};
use crate::failure::{chain, transport_reason};
use crate::{McpConfig, input, result};

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
    state: Mutex<State>,
    /// How often it was restarted since it last answered a call. Held while it is.
    restarts: tokio::sync::Mutex<usize>,
    stopped: CancellationToken,
}

/// What is known of the connection. It is whole at any time.
struct State {
    connection: Option<Arc<Connection>>,
    /// How the last one was lost.
    lost: Loss,
}

impl Server {
    pub(crate) fn new(name: String, config: McpConfig, launch: Launch, connection: Connection) -> Self {
        let state = Mutex::new(State { connection: Some(Arc::new(connection)), lost: Loss::default() });
        Self {
            name,
            config,
            launch,
            state,
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
        prepared: &Value,
    ) -> ToolResult {
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let mut meta = RequestMetaObject::new();
        meta.0.0.insert(KEY.into(), key.into());
        params.set_meta(meta);
        let answer = match self.try_call(input::answer(params, prepared)).await {
            Ok(CallToolResponse::InputRequired(required)) => {
                match input::question(&self.name, tool, required) {
                    Ok(question) => return ToolResult::asks(question),
                    Err(why) => Err(Failure::refused(why)),
                }
            }
            Ok(CallToolResponse::Complete(answer)) => Ok(answer),
            Ok(_) => Err(Failure::in_doubt(
                "it went on with the call as a task, which cannot be followed here".into(),
            )),
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(answer) => {
                let (status, output) = result::convert(answer);
                let details = json!({"mcp": {"server": self.name, "tool": tool}});
                ToolResult { status, output, details, ..ToolResult::text("") }
            }
            Err(Failure { why, unknown, stderr }) => {
                let doubt = match effect {
                    _ if !unknown => "",
                    Effect::Pure => ". Calling it again is safe",
                    Effect::Idempotent | Effect::AtMostOnce | Effect::Compensatable => {
                        ". The call may have taken effect: find out before you repeat it"
                    }
                };
                let text = format!("MCP server `{}`, tool `{tool}`: {why}{doubt}.", self.name);
                let details = json!({"mcp": {
                    "server": self.name, "tool": tool, "outcome_unknown": unknown, "stderr": stderr,
                }});
                ToolResult { details, ..ToolResult::failed(text) }
            }
        }
    }

    async fn try_call(&self, params: CallToolRequestParams) -> Result<CallToolResponse, Failure> {
        let connection = self.live().await.map_err(|Loss { why, stderr }| {
            let why = format!("{why}. The call was not made");
            Failure { why, unknown: false, stderr }
        })?;
        let Ok(answer) = timeout(self.config.timeout, connection.peer.call_tool_once(params)).await else {
            let seconds = self.config.timeout.as_secs();
            let why = format!("it gave no answer within {seconds} s and was asked to stop the call");
            return Err(Failure::in_doubt(why));
        };
        let how = match &answer {
            Err(ServiceError::TransportClosed) => String::new(),
            Err(ServiceError::TransportSend(error)) => format!(" ({})", transport_reason(error)),
            _ => {
                // Whoever holds it is restarting, and counts on.
                if let Ok(mut restarts) = self.restarts.try_lock() {
                    *restarts = 0;
                }
                return answered(answer);
            }
        };
        // A server elsewhere may have lost the session only: it is greeted anew, too.
        let Loss { why, stderr } = self.bury(&connection).await;
        Err(Failure { why: format!("it was lost during the call: {why}{how}"), unknown: true, stderr })
    }

    /// The connection, if there is one now.
    pub(crate) fn current(&self) -> Option<Arc<Connection>> {
        self.state().connection.clone()
    }

    /// Ends it, within a few seconds.
    pub(crate) async fn close(&self) {
        self.stopped.cancel();
        let connection = self.state().connection.take();
        if let Some(connection) = connection {
            connection.close().await;
        }
    }

    /// Ends it now.
    pub(crate) fn kill(&self) {
        self.stopped.cancel();
        if let Some(connection) = self.state().connection.take() {
            connection.kill();
        }
    }

    /// A connection that is open, made anew if need be.
    async fn live(&self) -> Result<Arc<Connection>, Loss> {
        // The wait is bounded: by the restarts and the time that each may take.
        let open = || self.current().filter(|connection| connection.is_open());
        if let Some(connection) = open() {
            return Ok(connection);
        }
        let mut restarts = self.restarts.lock().await;
        if let Some(connection) = open() {
            return Ok(connection);
        }
        if let Some(connection) = self.current() {
            self.bury(&connection).await;
        }
        while let Some(wait) = BACKOFF.get(*restarts) {
            *restarts += 1;
            let made = async {
                sleep(*wait).await;
                Connection::open(&self.launch, self.config.connect_timeout).await
            };
            match self.stopped.run_until_cancelled(made).await {
                None => {
                    return Err(Loss { why: "it is stopped, as the run is over".into(), ..Loss::default() });
                }
                Some(Err(Trouble { problem, stderr })) => {
                    self.state().lost = Loss { why: problem.to_string(), stderr };
                }
                Some(Ok(connection)) => {
                    let connection = Arc::new(connection);
                    self.state().connection = Some(connection.clone());
                    // Whoever stops it sets the token first and takes the connection then.
                    if self.stopped.is_cancelled() {
                        connection.kill();
                    }
                    return Ok(connection);
                }
            }
        }
        let Loss { why, stderr } = self.state().lost.clone();
        let why = format!("it is off for the rest of the run, after {} restarts: {why}", BACKOFF.len());
        Err(Loss { why, stderr })
    }

    /// Takes a broken connection away, and says what became of it.
    async fn bury(&self, connection: &Arc<Connection>) -> Loss {
        self.state().connection.take_if(|current| Arc::ptr_eq(current, connection));
        let loss = connection.autopsy().await;
        self.state().lost = loss.clone();
        loss
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a call gave no result.
struct Failure {
    why: String,
    /// Whether it may have taken effect.
    unknown: bool,
    /// For people only: what a server writes there may hold its secrets.
    stderr: String,
}

impl Failure {
    fn in_doubt(why: String) -> Self {
        Self { why, unknown: true, stderr: String::new() }
    }

    fn refused(why: String) -> Self {
        Self { unknown: false, ..Self::in_doubt(why) }
    }
}

/// What a server that is well made of a call.
fn answered(answer: Result<CallToolResponse, ServiceError>) -> Result<CallToolResponse, Failure> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(ServiceError::McpError(error)) => {
            let message: String = error.message.chars().take(LONGEST_ERROR).collect();
            Err(Failure::refused(format!("it refused the call: {message} ({})", error.code.0)))
        }
        Err(error) => Err(Failure::in_doubt(format!("its answer cannot be used: {}", chain(&error)))),
    }
}
