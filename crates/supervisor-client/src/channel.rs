//! One connection through a supervisor, as a stream.
//!
//! A task carries the bytes: it asks for the next ones when the last have been taken, and so passes on how fast
//! either end is. A stream that is dropped still delivers what was written to it, for a while.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{ByteStream, SandboxError};
use mooring_supervisor::wire::{Call, Reply};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
    duplex, split,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::{CALL, Caller};

/// How much of each direction is on its way in this process.
const PIECE: usize = 64 << 10;

/// How long what was written is still delivered after the stream was dropped.
const LINGER: Duration = Duration::from_secs(30);

/// Connects to a port inside.
pub(crate) async fn connect(caller: &Caller, port: u16) -> Result<ByteStream, SandboxError> {
    match caller.call("connect", Call::Connect { port }, Bytes::new(), CALL).await? {
        (Reply::Channel { channel }, _) => Ok(open(caller.clone(), channel)),
        (other, _) => Err(SandboxError::Invalid { reason: format!("unexpected answer {other:?}") }),
    }
}

/// A channel as a stream.
pub(crate) fn open(caller: Caller, channel: u64) -> ByteStream {
    let (near, far) = duplex(PIECE);
    let failed = Failed::default();
    let dropped = CancellationToken::new();
    tokio::spawn(carry(caller, channel, far, Arc::clone(&failed), dropped.clone()));
    Box::new(Stream { near, failed, _dropped: dropped.drop_guard() })
}

/// Why a stream ended, where it did not end by itself.
type Failed = Arc<Mutex<Option<SandboxError>>>;

struct Stream {
    near: DuplexStream,
    failed: Failed,
    _dropped: DropGuard,
}

async fn carry(caller: Caller, channel: u64, far: DuplexStream, failed: Failed, dropped: CancellationToken) {
    let fail = |error| {
        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    {
        let (from_near, to_near) = split(far);
        let out = transmit(&caller, channel, from_near);
        let back = receive(&caller, channel, to_near);
        tokio::pin!(out, back);
        let mut sending = true;
        let broken = loop {
            tokio::select! {
                // A peer that takes no more may still have something to say.
                sent = &mut out, if sending => {
                    sending = false;
                    let _ = sent.map_err(fail);
                }
                received = &mut back => break received.map_err(fail).is_err(),
                () = dropped.cancelled() => break false,
            }
        };
        if sending && !broken {
            let too_long = async {
                dropped.cancelled().await;
                tokio::time::sleep(LINGER).await;
            };
            tokio::select! {
                sent = out => drop(sent.map_err(fail)),
                () = too_long => {}
            }
        }
    }
    // With the sandbox its channels are gone, too.
    let _ = caller.call("hang up", Call::Hangup { channel }, Bytes::new(), CALL).await;
}

async fn transmit(
    caller: &Caller,
    channel: u64,
    mut from_near: ReadHalf<DuplexStream>,
) -> Result<(), SandboxError> {
    let mut buffer = vec![0; PIECE];
    loop {
        // The near end of a pipe in memory: it ends, but does not fail.
        let count = from_near.read(&mut buffer).await.unwrap_or(0);
        let bytes = Bytes::copy_from_slice(&buffer[..count]);
        caller.call_unlimited("transmit", Call::Transmit { channel }, bytes).await?;
        if count == 0 {
            return Ok(());
        }
    }
}

async fn receive(
    caller: &Caller,
    channel: u64,
    mut to_near: WriteHalf<DuplexStream>,
) -> Result<(), SandboxError> {
    loop {
        let (_, bytes) = caller.call_unlimited("receive", Call::Receive { channel }, Bytes::new()).await?;
        // Nobody to take it: the stream was dropped.
        let taken = if bytes.is_empty() { to_near.shutdown().await } else { to_near.write_all(&bytes).await };
        if bytes.is_empty() || taken.is_err() {
            return Ok(());
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.near).poll_read(context, buffer);
        let ended = matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if ended
            && buffer.remaining() > 0
            && let Some(error) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, error)));
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.near).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.near).poll_shutdown(context)
    }
}
