//! Who speaks to the supervisor: one client that the sandbox lives and dies with, or, where it is to live on between
//! clients, whoever comes through the door.
//!
//! The door is a socket in a directory that nobody else on the host can enter. Each client numbers its own requests;
//! in here a request's number says whose it is, so that nothing else needs to know that there are several.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::config::{Hello, Ready};
use crate::frame::{Decoder, Frame};
use crate::link::Link;
use crate::wire::{Failure, Reply, Request};

/// The most clients at one time.
const MAX_CLIENTS: usize = 64;

/// A request's number is the client's own below this bit, the client's number from it on.
const OWN_BITS: u32 = 40;

/// Whose request this is.
pub(crate) fn owner(request: u64) -> u64 {
    request >> OWN_BITS
}

/// What lets a sandbox live on without a client.
pub(crate) struct Door {
    pub(crate) listener: OwnedFd,
    /// How long it waits for the next client.
    pub(crate) grace: Duration,
}

pub(crate) struct Clients {
    links: BTreeMap<u64, (Link, epoll::EventFlags)>,
    door: Option<Door>,
    ready: Ready,
    next: u64,
    /// Since when there is no client.
    alone_since: Option<Instant>,
    /// Whose stream failed.
    lost: Vec<(u64, io::Error)>,
}

impl Clients {
    /// The first client's `link`, which is told that the sandbox is `ready`.
    pub(crate) fn new(mut link: Link, door: Option<Door>, ready: Ready) -> io::Result<Self> {
        link.send(&Hello::Ready(ready.clone()), Vec::new())?;
        let links = BTreeMap::from([(1, (link, epoll::EventFlags::empty()))]);
        Ok(Self { links, door, ready, next: 2, alone_since: None, lost: Vec::new() })
    }

    /// Has `epoll` tell of clients with `token`, and of new ones with `door`.
    pub(crate) fn watch(
        &mut self,
        epoll: &OwnedFd,
        token: impl Fn(u64) -> epoll::EventData,
        door: epoll::EventData,
    ) -> io::Result<()> {
        for (number, (link, interest)) in &mut self.links {
            *interest = epoll::EventFlags::IN;
            epoll::add(epoll, link.fd(), token(*number), *interest)?;
        }
        if let Some(own) = &self.door {
            epoll::add(epoll, &own.listener, door, epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    pub(crate) fn all(&self) -> Vec<u64> {
        self.links.keys().copied().collect()
    }

    /// Lets in who waits at the door.
    pub(crate) fn admit(
        &mut self,
        epoll: &OwnedFd,
        token: impl Fn(u64) -> epoll::EventData,
    ) -> io::Result<()> {
        let Some(door) = &self.door else { return Ok(()) };
        loop {
            let socket = match accept_with(&door.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let full = self.links.len() >= MAX_CLIENTS;
            let hello = if full {
                let reason = format!("{MAX_CLIENTS} clients are connected already");
                Hello::Failed(Failure::Invalid { reason })
            } else {
                Hello::Ready(self.ready.clone())
            };
            let mut link = Link::new(socket, Decoder::default());
            // One that has gone again need not be told.
            if link.send(&hello, Vec::new()).is_err() || full {
                continue;
            }
            let number = self.next;
            self.next += 1;
            let interest = epoll::EventFlags::IN;
            epoll::add(epoll, link.fd(), token(number), interest)?;
            self.links.insert(number, (link, interest));
            self.alone_since = None;
        }
    }

    /// Does what a client's socket is ready for.
    pub(crate) fn ready(&mut self, number: u64, flags: epoll::EventFlags, buffer: &mut [u8]) {
        let Some((link, _)) = self.links.get_mut(&number) else { return };
        if flags.contains(epoll::EventFlags::OUT)
            && let Err(error) = link.flush()
        {
            self.lost.push((number, error));
            return;
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            match link.fill(buffer) {
                Ok(true) => {}
                Ok(false) => self.lost.push((number, io::ErrorKind::UnexpectedEof.into())),
                Err(error) => self.lost.push((number, error)),
            }
        }
    }

    /// A client's next request that has come whole, unless it has too much to read already.
    pub(crate) fn next_request(&mut self, number: u64) -> Option<Frame<Request>> {
        let (link, _) = self.links.get_mut(&number)?;
        if link.backlogged() {
            return None;
        }
        let next = link.next_request().and_then(|frame| match frame {
            Some(frame) if frame.header.id >> OWN_BITS != 0 => {
                Err(io::Error::other(format!("request number {} is too large", frame.header.id)))
            }
            other => Ok(other),
        });
        match next {
            Ok(frame) => frame.map(|mut frame| {
                frame.header.id |= number << OWN_BITS;
                frame
            }),
            Err(error) => {
                self.lost.push((number, error));
                None
            }
        }
    }

    /// Answers a request. Who asked may be gone; then nobody wants to know.
    pub(crate) fn answer(&mut self, request: u64, reply: Result<Reply, Failure>, payload: Vec<u8>) {
        let (number, id) = (owner(request), request & ((1 << OWN_BITS) - 1));
        let Some((link, _)) = self.links.get_mut(&number) else { return };
        if let Err(error) = link.answer(id, reply, payload) {
            self.lost.push((number, error));
        }
    }

    /// Whether an answer would only add to what its client has not read.
    pub(crate) fn backlogged(&self, request: u64) -> bool {
        self.links.get(&owner(request)).is_some_and(|(link, _)| link.backlogged())
    }

    /// Asks for what each socket is ready to do and we are ready to take.
    pub(crate) fn update(
        &mut self,
        epoll: &OwnedFd,
        token: impl Fn(u64) -> epoll::EventData,
    ) -> io::Result<()> {
        for (number, (link, current)) in &mut self.links {
            let mut interest = epoll::EventFlags::empty();
            if !link.backlogged() {
                interest |= epoll::EventFlags::IN;
            }
            if link.has_unsent() {
                interest |= epoll::EventFlags::OUT;
            }
            if interest != *current {
                epoll::modify(epoll, link.fd(), token(*number), interest)?;
                *current = interest;
            }
        }
        Ok(())
    }

    /// Parts with clients that are gone, and says which. An error where the sandbox goes with the one that it has.
    pub(crate) fn take_lost(&mut self, epoll: &OwnedFd, now: Instant) -> io::Result<Vec<u64>> {
        let mut gone = Vec::new();
        for (number, error) in std::mem::take(&mut self.lost) {
            let Some((link, _)) = self.links.remove(&number) else { continue };
            // Closing it is not enough: others may hold the same socket, and `epoll` would tell of it for ever.
            epoll::delete(epoll, link.fd())?;
            gone.push(number);
            if self.door.is_none() && error.kind() != io::ErrorKind::UnexpectedEof {
                return Err(error);
            }
        }
        if self.links.is_empty() {
            self.alone_since.get_or_insert(now);
        }
        Ok(gone)
    }

    /// When the sandbox ends for want of a client; `None` while it has one.
    pub(crate) fn end(&self) -> Option<Instant> {
        let grace = self.door.as_ref().map_or(Duration::ZERO, |door| door.grace);
        self.alone_since.map(|since| since + grace)
    }

    /// Sends what can be sent before the end.
    pub(crate) fn flush(&mut self) {
        for (link, _) in self.links.values_mut() {
            // It is the end for a client that is gone, too.
            let _ = link.flush();
        }
    }
}
