//! One connection to a server: opened within a deadline, and closed within one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::redirect;
use rmcp::RoleClient;
use rmcp::model::{
    ClientCapabilities, ClientConfig, ElicitationCapability, FormElicitationCapability, Implementation,
    PaginatedRequestParams, ProtocolVersion, Tool, UrlElicitationCapability,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, Peer, RunningService,
};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, Transport};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use crate::McpProblem;
use crate::config::Launch;
use crate::failure::{chain, greeting_reason};
use crate::process::Process;
use crate::transport::{LONGEST_MESSAGE, Lines, Patient};

/// How many tools a server may have, and how many pages its list.
const MOST_TOOLS: usize = 512;
const MOST_PAGES: usize = 64;
/// How long a server that closed its output may take to end, and one that is told goodbye to answer.
const MOMENT: Duration = Duration::from_millis(500);

/// A server that answered.
pub(crate) struct Connection {
    /// Sends requests.
    pub(crate) peer: Peer<RoleClient>,
    service: Mutex<RunningService<RoleClient, ClientConfig>>,
    process: Option<Process>,
    too_long: Arc<AtomicBool>,
}

/// How a connection was lost.
#[derive(Clone, Default)]
pub(crate) struct Loss {
    pub(crate) why: String,
    /// The end of the server's standard error.
    pub(crate) stderr: String,
}

/// Why there is no connection.
pub(crate) struct Trouble {
    pub(crate) problem: McpProblem,
    /// The end of the server's standard error.
    pub(crate) stderr: String,
}

impl From<McpProblem> for Trouble {
    fn from(problem: McpProblem) -> Self {
        Self { problem, stderr: String::new() }
    }
}

impl Connection {
    /// Starts or reaches the server and greets it. Nothing is left of it where that fails.
    pub(crate) async fn open(launch: &Launch, time: Duration) -> Result<Self, Trouble> {
        let until = Instant::now() + time;
        let too_long = Arc::<AtomicBool>::default();
        let (process, greeted) = match launch {
            Launch::Stdio { command, args, env, cwd } => {
                let mut program = Command::new(command);
                program.args(args).env_clear().envs(env);
                if let Some(cwd) = cwd {
                    program.current_dir(cwd);
                }
                let (process, stdout, stdin) = Process::start(program)?;
                let lines = Lines::new(stdout, too_long.clone());
                let transport = AsyncRwTransport::new_client(lines, stdin);
                // `Lines` is the limit.
                let transport = transport.with_max_line_length(usize::MAX);
                (Some(process), timeout_at(until, greet(transport)).await)
            }
            Launch::Http { url, headers } => {
                if rustls::crypto::CryptoProvider::get_default().is_none() {
                    return Err(McpProblem::NoTlsProvider.into());
                }
                let client = reqwest::Client::builder()
                    .redirect(redirect::Policy::none())
                    .no_proxy()
                    .connect_timeout(time)
                    // A connection whose answer was not read to its end is slow to be used again.
                    .pool_max_idle_per_host(0)
                    .build()
                    .map_err(|error| McpProblem::Protocol { reason: chain(&error) })?;
                let mut retry = ExponentialBackoff::default();
                retry.max_times = Some(3);
                let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
                config.retry_config = Arc::new(retry);
                config.max_sse_event_size = LONGEST_MESSAGE;
                config.max_json_response_size = LONGEST_MESSAGE;
                config.custom_headers =
                    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                let transport = StreamableHttpClientTransport::with_client(client, config);
                (None, timeout_at(until, greet(transport)).await)
            }
        };
        match greeted {
            Ok(Ok(service)) => {
                Ok(Self { peer: service.peer().clone(), service: Mutex::new(service), process, too_long })
            }
            Ok(Err(error)) => Err(explain(&error, process).await),
            Err(_) => {
                let stderr = process.as_ref().map(Process::last_lines).unwrap_or_default();
                Err(Trouble { problem: McpProblem::NoAnswer { seconds: time.as_secs() }, stderr })
            }
        }
    }

    /// All of its tools, in its order.
    pub(crate) async fn list(&self, time: Duration) -> Result<Vec<Tool>, McpProblem> {
        let mut tools = Vec::new();
        let mut cursor = None;
        let all = async {
            for _ in 0..MOST_PAGES {
                let page = PaginatedRequestParams::default().with_cursor(cursor);
                let page = self.peer.list_tools(Some(page)).await;
                let page = page.map_err(|error| McpProblem::Protocol { reason: chain(&error) })?;
                tools.extend(page.tools);
                cursor = page.next_cursor;
                if tools.len() > MOST_TOOLS {
                    break;
                }
                if cursor.is_none() {
                    return Ok(tools);
                }
            }
            let reason = format!("it has more than {MOST_TOOLS} tools or {MOST_PAGES} pages");
            Err(McpProblem::Tools { reason })
        };
        timeout(time, all).await.unwrap_or(Err(McpProblem::NoAnswer { seconds: time.as_secs() }))
    }

    /// Whether requests can be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.peer.is_transport_closed()
    }

    /// What became of a server that does not answer any more. Its processes are gone afterwards.
    pub(crate) async fn autopsy(&self) -> Loss {
        let Some(process) = &self.process else {
            return Loss { why: "the connection broke".into(), stderr: String::new() };
        };
        let why = match process.end(MOMENT).await {
            _ if self.too_long.load(Ordering::Relaxed) => {
                format!("it sent a message of more than {} MiB and was ended", LONGEST_MESSAGE >> 20)
            }
            Some(status) => format!("it ended ({status})"),
            None => "it closed its output".into(),
        };
        Loss { why, stderr: process.last_lines() }
    }

    /// The end of what it wrote on standard error.
    pub(crate) fn last_lines(&self) -> String {
        self.process.as_ref().map(Process::last_lines).unwrap_or_default()
    }

    /// Says goodbye and ends the server's processes, within a few seconds whatever they do.
    pub(crate) async fn close(&self) {
        // It fails only where the service's task did, and then nothing is left to be closed.
        let _ = self.service.lock().await.close_with_timeout(MOMENT).await;
        if let Some(process) = &self.process {
            process.stop().await;
        }
    }

    /// Ends the server's processes at once.
    pub(crate) fn kill(&self) {
        if let Some(process) = &self.process {
            process.kill();
        }
    }
}

async fn greet<T>(transport: T) -> Result<RunningService<RoleClient, ClientConfig>, ClientInitializeError>
where
    T: Transport<RoleClient> + 'static,
{
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    };
    client().serve_with_lifecycle(Patient::new(transport), lifecycle).await
}

async fn explain(error: &ClientInitializeError, process: Option<Process>) -> Trouble {
    if error.is_authorization_required() {
        let challenge = error.auth_challenge().unwrap_or("it asks for an authorisation");
        let reason = challenge.chars().filter(|character| !character.is_control()).take(200).collect();
        return McpProblem::Unauthorised { reason }.into();
    }
    let failed = McpProblem::Protocol { reason: greeting_reason(error) };
    let Some(process) = process else { return failed.into() };
    let closed = process.end(MOMENT).await;
    let problem = match (closed, error) {
        (None, ClientInitializeError::ConnectionClosed(_)) => McpProblem::Ended { status: None },
        (None, _) => failed,
        (status, _) => McpProblem::Ended { status },
    };
    Trouble { problem, stderr: process.last_lines() }
}

/// What servers see of us: no roots, no sampling; people answer questions, by `input_required`. A server of the older
/// protocol that asks in the middle of a call is told "declined": nobody can be asked while it waits.
fn client() -> ClientConfig {
    let name = Implementation::new("mooring", env!("CARGO_PKG_VERSION"));
    let mut asks = ElicitationCapability::default();
    asks.form = Some(FormElicitationCapability::default());
    asks.url = Some(UrlElicitationCapability::default());
    let mut capabilities = ClientCapabilities::default();
    capabilities.elicitation = Some(asks);
    ClientConfig::new(capabilities, name)
}
