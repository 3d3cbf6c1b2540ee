//! A command in a session, as the harness holds it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{BoxFuture, Cursor, OutputChunk, OutputPiece, Process, SandboxError, TtySize};
use mooring_supervisor::wire::{Call, Reply};

use crate::connection::{CALL, Connection};

#[derive(Debug)]
pub(crate) struct SupervisedProcess {
    pub(crate) number: u64,
    pub(crate) connection: Arc<Connection>,
}

impl SupervisedProcess {
    async fn call(&self, operation: &'static str, call: Call, payload: Bytes) -> Result<(), SandboxError> {
        self.connection.caller.call(operation, call, payload, CALL).await.map(drop)
    }
}

impl Process for SupervisedProcess {
    fn id(&self) -> u64 {
        self.number
    }

    fn output(
        &self,
        after: Cursor,
        max_bytes: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<OutputChunk, SandboxError>> {
        Box::pin(async move {
            let call = Call::Output {
                process: self.number,
                after: after.0,
                max_bytes: max_bytes as u64,
                wait_ms: wait.as_millis().try_into().unwrap_or(u64::MAX),
            };
            let limit = wait.saturating_add(CALL);
            let (reply, payload) = self.connection.caller.call("output", call, Bytes::new(), limit).await?;
            let Reply::Output { pieces, next, outcome } = reply else {
                return Err(SandboxError::Invalid { reason: "no output in the answer".into() });
            };
            let mut rest = payload;
            let mut cut = Vec::with_capacity(pieces.len());
            for piece in pieces {
                if piece.len > rest.len() as u64 {
                    return Err(SandboxError::Invalid { reason: "output shorter than announced".into() });
                }
                let data = rest.split_to(piece.len as usize);
                cut.push(OutputPiece { at: Cursor(piece.at), stream: piece.stream, data });
            }
            Ok(OutputChunk { pieces: cut, next: Cursor(next), outcome })
        })
    }

    fn write_stdin(&self, data: Bytes) -> BoxFuture<'_, Result<(), SandboxError>> {
        let call = Call::WriteStdin { process: self.number };
        Box::pin(async move { self.call("write to standard input", call, data).await })
    }

    fn close_stdin(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.call("close standard input", Call::CloseStdin { process: self.number }, Bytes::new()))
    }

    fn resize(&self, size: TtySize) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.call("resize", Call::Resize { process: self.number, size }, Bytes::new()))
    }

    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.call("signal", Call::Signal { process: self.number, signal }, Bytes::new()))
    }

    fn cancel(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.call("cancel", Call::Cancel { process: self.number }, Bytes::new()))
    }

    fn release(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(self.call("release", Call::Release { process: self.number }, Bytes::new()))
    }
}
