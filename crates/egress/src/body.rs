//! Bodies on their way through the proxy: counted, searched for phantoms on the way out, and cleaned of secrets on the
//! way back. Piece by piece; nothing is collected.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::record::{Entry, Meter, Refusal, Stop};
use crate::secret::Vault;

/// What can end a body early.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// One type for all of them.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, BodyError>;

/// A body of text, for answers of the proxy itself.
pub(crate) fn text(text: String) -> AnyBody {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

/// What leaves the sandbox. Trailers do not pass.
pub(crate) struct Outgoing {
    inner: Incoming,
    meter: Arc<Meter>,
    vault: Arc<Vault>,
    /// The end of the piece before, where a phantom may begin.
    tail: Vec<u8>,
    refused: Arc<OnceLock<Refusal>>,
}

impl Outgoing {
    /// `refused` is set before the body fails for a phantom in it.
    pub(crate) fn new(
        inner: Incoming,
        meter: Arc<Meter>,
        vault: Arc<Vault>,
        refused: Arc<OnceLock<Refusal>>,
    ) -> Self {
        Self { inner, meter, vault, tail: Vec::new(), refused }
    }

    fn screen(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let Some(overlap) = self.vault.overlap() else { return Ok(()) };
        self.tail.extend_from_slice(data);
        if let Some(secret) = self.vault.find(&self.tail) {
            return Err(Refusal::Misplaced { secret: secret.into(), place: "the body of a request" });
        }
        let keep = self.tail.len().saturating_sub(overlap);
        self.tail.drain(..keep);
        Ok(())
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            let Ok(data) = frame?.into_data() else { continue };
            self.meter.up.fetch_add(data.len() as u64, Ordering::Relaxed);
            if let Err(refusal) = self.screen(&data) {
                let _ = self.refused.set(refusal.clone());
                return Poll::Ready(Some(Err(refusal.into())));
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What comes back. Trailers do not pass. It carries the record of its request, which is complete when it is.
pub(crate) struct Returning {
    inner: Incoming,
    vault: Arc<Vault>,
    held: BytesMut,
    ended: bool,
    entry: Entry,
    refused: Arc<OnceLock<Refusal>>,
}

impl Returning {
    pub(crate) fn new(
        inner: Incoming,
        vault: Arc<Vault>,
        entry: Entry,
        refused: Arc<OnceLock<Refusal>>,
    ) -> Self {
        Self { inner, vault, held: BytesMut::new(), ended: false, entry, refused }
    }

    /// Takes the next piece, or the end of all, and gives what may be passed on.
    fn scrub(&mut self, piece: Option<Bytes>) -> Bytes {
        match &self.vault.scrubber {
            Some(scrubber) => {
                let last = piece.is_none();
                scrubber.push(&mut self.held, &piece.unwrap_or_default(), last)
            }
            None => piece.unwrap_or_default(),
        }
    }
}

impl Body for Returning {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.ended {
            let piece = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(data),
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    self.ended = true;
                    let stop = match self.refused.get() {
                        Some(refusal) => Stop::Refused(refusal.clone()),
                        None => Stop::Failed(format!("the response broke off: {error}")),
                    };
                    self.entry.stop(stop);
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    self.ended = true;
                    None
                }
            };
            let out = self.scrub(piece);
            if !out.is_empty() {
                self.entry.meter.down.fetch_add(out.len() as u64, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.held.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // What is replaced changes the length.
        if self.vault.scrubber.is_some() && !self.inner.is_end_stream() {
            SizeHint::default()
        } else {
            self.inner.size_hint()
        }
    }
}
