//! The supervisor's end of the socket: requests in, responses out, neither ever blocking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::Serialize;

use crate::frame::{Decoder, Frame, FrameError, encode};
use crate::wire::{Failure, Reply, Request, Response};

/// With more than this still to be sent, the supervisor takes no further request and answers no waiting reader:
/// a harness that does not read must not cost memory here.
const BACKLOG: usize = 32 << 20;

pub(crate) struct Link {
    socket: OwnedFd,
    decoder: Decoder,
    out: VecDeque<Vec<u8>>,
    /// How much of the first is sent.
    sent: usize,
    queued: usize,
}

impl Link {
    /// Takes over a non-blocking socket, with what was read from it before.
    pub(crate) fn new(socket: OwnedFd, decoder: Decoder) -> Self {
        Self { socket, decoder, out: VecDeque::new(), sent: 0, queued: 0 }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn backlogged(&self) -> bool {
        self.queued > BACKLOG
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.queued > 0
    }

    /// Reads what is there. `false`: the other end is closed.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match rustix::io::read(&self.socket, &mut *buffer) {
            Ok(0) | Err(Errno::CONNRESET) => Ok(false),
            Ok(count) => {
                self.decoder.push(&buffer[..count]);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next request that has come whole.
    pub(crate) fn next_request(&mut self) -> io::Result<Option<Frame<Request>>> {
        self.decoder.next_frame().map_err(io::Error::other)
    }

    pub(crate) fn answer(
        &mut self,
        id: u64,
        reply: Result<Reply, Failure>,
        payload: Vec<u8>,
    ) -> io::Result<()> {
        match self.send(&Response { id, reply }, payload) {
            Err(error) if is_too_long(&error) => {
                // A directory of very many entries, say: one call's trouble, not everybody's.
                let reply = Err(Failure::Invalid { reason: format!("the answer is too long: {error}") });
                self.send(&Response { id, reply }, Vec::new())
            }
            other => other,
        }
    }

    pub(crate) fn send<H: Serialize>(&mut self, header: &H, mut payload: Vec<u8>) -> io::Result<()> {
        let mut bytes = encode(header, payload.len()).map_err(io::Error::other)?;
        self.queued += bytes.len() + payload.len();
        if payload.len() <= 16 << 10 {
            bytes.append(&mut payload);
        }
        self.out.push_back(bytes);
        if !payload.is_empty() {
            self.out.push_back(payload);
        }
        self.flush()
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.out.front() {
            match rustix::io::write(&self.socket, &bytes[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.queued -= count;
                    if self.sent == bytes.len() {
                        self.sent = 0;
                        self.out.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<FrameError>()).is_some()
}
