//! What lies between a server's bytes and the protocol's SDK: a limit on one message, and patience with slow servers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rmcp::RoleClient;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::io::{AsyncRead, ReadBuf};

/// The longest message of a server, over stdio as over HTTP.
pub(crate) const LONGEST_MESSAGE: usize = 16 * 1024 * 1024;

/// Ends the stream at a line that is too long. The SDK would drop the line, and its request would wait in vain.
pub(crate) struct Lines<R> {
    inner: R,
    length: usize,
    /// Says so afterwards.
    too_long: Arc<AtomicBool>,
}

impl<R> Lines<R> {
    pub(crate) fn new(inner: R, too_long: Arc<AtomicBool>) -> Self {
        Self { inner, length: 0, too_long }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let fresh = &buffer.filled()[before..];
        let first = fresh.iter().position(|&byte| byte == b'\n');
        if self.length + first.unwrap_or(fresh.len()) >= LONGEST_MESSAGE {
            self.too_long.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(std::io::Error::other("a line is too long")));
        }
        self.length = match fresh.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => fresh.len() - last - 1,
            None => self.length + fresh.len(),
        };
        Poll::Ready(Ok(()))
    }
}

/// Overlooks an answer to `server/discover` that comes after `initialize` was sent.
///
/// The SDK waits ten seconds for the former and then goes on with the latter, of which a late answer to the former
/// would be the end. Servers that are still being fetched by `npx` or `uvx` are that late.
pub(crate) struct Patient<T> {
    inner: T,
    asked: Option<RequestId>,
    greeted: bool,
}

impl<T> Patient<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, asked: None, greeted: false }
    }
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Patient<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        message: ClientJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        if let JsonRpcMessage::Request(request) = &message {
            match request.request {
                ClientRequest::DiscoverRequest(_) => self.asked = Some(request.id.clone()),
                ClientRequest::InitializeRequest(_) => self.greeted = true,
                _ => {}
            }
        }
        self.inner.send(message)
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        loop {
            let message = self.inner.receive().await?;
            let answered = match &message {
                JsonRpcMessage::Response(response) => Some(&response.id),
                JsonRpcMessage::Error(error) => error.id.as_ref(),
                JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
            };
            if self.greeted && answered.is_some() && answered == self.asked.as_ref() {
                continue;
            }
            return Some(message);
        }
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ClientCapabilities, ClientConfig, Implementation, ProtocolVersion};
    use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _};
    use rmcp::transport::async_rw::AsyncRwTransport;
    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    use super::*;

    /// The SDK gave `server/discover` up before the server was there, which then answers all that it finds.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_long_to_start_is_greeted() {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_secs(30)).await;
            let (read, mut write) = tokio::io::split(theirs);
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let request: Value = serde_json::from_str(&line).unwrap_or_default();
                let result = json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "serverInfo": {"name": "slow", "version": "1"},
                });
                let answer = match (&request["method"], &request["id"]) {
                    (_, Value::Null) => continue,
                    (method, id) if method == "initialize" => {
                        json!({"jsonrpc": "2.0", "id": id, "result": result})
                    }
                    (_, id) => {
                        json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}})
                    }
                };
                if write.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        let (read, write) = tokio::io::split(ours);
        let lifecycle = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        };
        let config = ClientConfig::new(ClientCapabilities::default(), Implementation::new("test", "1"));
        let transport = Patient::new(AsyncRwTransport::new_client(read, write));
        let service = config.serve_with_lifecycle(transport, lifecycle).await;
        assert!(service.is_ok(), "{:?}", service.err());
    }
}
