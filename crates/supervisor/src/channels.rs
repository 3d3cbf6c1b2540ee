//! Connections into and out of a sandbox: exposed ports, and the way out.
//!
//! The supervisor lives in the sandbox's network, whose loopback interface is all there is. It connects to what
//! listens there, and where the harness asks for it, it listens there itself. Either way a connection is a channel:
//! its bytes go to the harness as they are asked for and come from it as the peer takes them, so that neither side
//! can make this process hold more than one piece of each direction.
//!
//! Clients that listen at one port share it, and each has an address of the loopback network of its own there: what
//! connects to that is that client's, for as long as it is here, and what connects to any other is anybody's. So a
//! connection that a client's own command made does not end with another client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, bind, connect, getpeername, getsockname,
    listen, shutdown, socket_with, sockopt,
};

use crate::clients::owner;
use crate::wire::{Failure, Reply};

/// The most channels at one time. With [`PIECE`] this bounds what can wait for a harness that does not read.
const MAX_CHANNELS: usize = 512;
/// The most bytes in one answer to [`crate::wire::Call::Receive`].
const PIECE: usize = 64 << 10;
/// The most listeners.
const MAX_LISTENERS: usize = 8;
/// How many connections may wait to be accepted, and how many may be waited for.
const QUEUE: usize = 256;
/// How many connections may be held for clients that do not ask for them at this moment.
const MAX_HELD: usize = 64;

/// An answer that has become due.
pub(crate) type Answer = (u64, Result<(Reply, Vec<u8>), Failure>);

/// Which of the two kinds an event of `epoll` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Listener,
}

/// All channels and listeners of a sandbox.
pub(crate) struct Channels {
    open: BTreeMap<u64, Channel>,
    listeners: BTreeMap<u64, Listener>,
    next: u64,
    /// Makes the kernel's token for an event.
    token: fn(Kind, u64) -> epoll::EventData,
}

struct Channel {
    /// Whose it is.
    client: u64,
    socket: OwnedFd,
    /// Not connected yet: for whom, to which port, and the address that comes next.
    connecting: Option<(u64, u16, Option<SocketAddr>)>,
    receiving: Option<u64>,
    /// Bytes that still have to go in, for the request that brought them.
    transmitting: Option<(u64, Vec<u8>, usize)>,
}

struct Listener {
    port: u16,
    /// Who listens: clients that share it.
    clients: BTreeSet<u64>,
    socket: OwnedFd,
    waiting: VecDeque<u64>,
    /// Connections that were accepted, with the client whose address was connected to.
    held: VecDeque<(Option<u64>, OwnedFd)>,
}

/// The address of the loopback network that is this client's own.
fn own_address(client: u64) -> Ipv4Addr {
    // Neither the network's own address nor that of all.
    let host = client.saturating_sub(1) % 0x00ff_fffe + 1;
    Ipv4Addr::from(0x7f00_0000 | host as u32)
}

impl Channels {
    pub(crate) fn new(token: fn(Kind, u64) -> epoll::EventData) -> Self {
        Self { open: BTreeMap::new(), listeners: BTreeMap::new(), next: 1, token }
    }

    pub(crate) fn connect(
        &mut self,
        epoll: &OwnedFd,
        request: u64,
        port: u16,
    ) -> Result<Option<Answer>, Failure> {
        self.check_room()?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let then = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let (socket, connected, then) = start(loopback, Some(then)).map_err(|errno| refused(port, errno))?;
        let connecting = (!connected).then_some((request, port, then));
        let number = self.add(Channel {
            client: owner(request),
            socket,
            connecting,
            receiving: None,
            transmitting: None,
        });
        if !connected {
            self.arm(epoll, number).map_err(|errno| refused(port, errno))?;
            return Ok(None);
        }
        Ok(Some(self.connected(number, request, port)))
    }

    pub(crate) fn listen(&mut self, request: u64, port: u16) -> Result<Reply, Failure> {
        if let Some((number, shared)) = self.listeners.iter_mut().find(|(_, other)| other.port == port) {
            shared.clients.insert(owner(request));
            return Ok(Reply::Listening { listener: *number, address: own_address(owner(request)) });
        }
        if self.listeners.len() >= MAX_LISTENERS {
            return Err(invalid(format!("{MAX_LISTENERS} listeners are open already")));
        }
        let open = || -> Result<OwnedFd, Errno> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            // Whatever is connected to, only what came to the loopback network is accepted.
            bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
            listen(&socket, QUEUE as i32)?;
            Ok(socket)
        };
        let socket = open().map_err(|errno| refused(port, errno))?;
        let number = self.number();
        let clients = BTreeSet::from([owner(request)]);
        let (waiting, held) = (VecDeque::new(), VecDeque::new());
        self.listeners.insert(number, Listener { port, clients, socket, waiting, held });
        Ok(Reply::Listening { listener: number, address: own_address(owner(request)) })
    }

    pub(crate) fn accept(
        &mut self,
        epoll: &OwnedFd,
        request: u64,
        listener: u64,
    ) -> Result<Vec<Answer>, Failure> {
        let unknown = || invalid(format!("no listener {listener}"));
        let waiting = &mut self.listeners.get_mut(&listener).ok_or_else(unknown)?.waiting;
        if waiting.len() >= QUEUE {
            return Err(invalid(format!("{QUEUE} connections are waited for already")));
        }
        waiting.push_back(request);
        self.accept_more(epoll, listener)
    }

    pub(crate) fn receive(
        &mut self,
        epoll: &OwnedFd,
        request: u64,
        number: u64,
    ) -> Result<Option<Answer>, Failure> {
        let channel = self.open_channel(number)?;
        if channel.receiving.is_some() {
            return Err(invalid(format!("channel {number} is being read already")));
        }
        channel.receiving = Some(request);
        let answer = channel.read();
        self.arm(epoll, number).map_err(|errno| invalid(format!("channel {number}: {errno}")))?;
        Ok(answer)
    }

    pub(crate) fn transmit(
        &mut self,
        epoll: &OwnedFd,
        request: u64,
        number: u64,
        bytes: Vec<u8>,
    ) -> Result<Option<Answer>, Failure> {
        let channel = self.open_channel(number)?;
        if channel.transmitting.is_some() {
            return Err(invalid(format!("channel {number} is being written to already")));
        }
        if bytes.is_empty() {
            // Where the peer is gone already there is nobody to be told.
            let _ = shutdown(&channel.socket, Shutdown::Write);
            return Ok(Some((request, Ok((Reply::Done, Vec::new())))));
        }
        channel.transmitting = Some((request, bytes, 0));
        let answer = channel.write();
        self.arm(epoll, number).map_err(|errno| invalid(format!("channel {number}: {errno}")))?;
        Ok(answer)
    }

    /// Forgets a channel, and answers who waits for it.
    pub(crate) fn hang_up(&mut self, number: u64) -> Vec<Answer> {
        let Some(channel) = self.open.remove(&number) else { return Vec::new() };
        let waiting = channel.receiving.into_iter().chain(channel.transmitting.map(|(request, ..)| request));
        waiting.map(|request| (request, Err(invalid(format!("channel {number} was closed"))))).collect()
    }

    /// Forgets what only a client that is gone had. What was to be its own is another's now, who is told of it.
    pub(crate) fn forget_client(&mut self, epoll: &OwnedFd, client: u64) -> Result<Vec<Answer>, Failure> {
        self.open.retain(|_, channel| channel.client != client);
        self.listeners.retain(|_, listener| {
            listener.clients.remove(&client);
            listener.waiting.retain(|request| owner(*request) != client);
            !listener.clients.is_empty()
        });
        let mut answers = Vec::new();
        for number in self.listeners.keys().copied().collect::<Vec<_>>() {
            answers.extend(self.accept_more(epoll, number)?);
        }
        Ok(answers)
    }

    /// Does what has become possible.
    pub(crate) fn ready(&mut self, epoll: &OwnedFd, kind: Kind, number: u64) -> Result<Vec<Answer>, Failure> {
        if kind == Kind::Listener {
            return self.accept_more(epoll, number);
        }
        let mut answers = Vec::new();
        if let Some(channel) = self.open.get_mut(&number) {
            if let Some((request, port, then)) = channel.connecting.take() {
                answers.extend(self.finish_connecting(number, request, port, then));
            } else {
                answers.extend(channel.read());
                answers.extend(channel.write());
            }
        }
        self.arm(epoll, number).map_err(|errno| invalid(format!("channel {number}: {errno}")))?;
        Ok(answers)
    }

    fn finish_connecting(
        &mut self,
        number: u64,
        request: u64,
        port: u16,
        then: Option<SocketAddr>,
    ) -> Option<Answer> {
        let channel = self.open.get_mut(&number)?;
        let errno = match sockopt::socket_error(&channel.socket) {
            Ok(Ok(())) => return Some(self.connected(number, request, port)),
            Ok(Err(errno)) | Err(errno) => errno,
        };
        match then.map(|address| start(address, None)) {
            Some(Ok((socket, connected, _))) => {
                channel.socket = socket;
                if connected {
                    return Some(self.connected(number, request, port));
                }
                channel.connecting = Some((request, port, None));
                None
            }
            // The first address is the one to tell of.
            Some(Err(_)) | None => {
                self.open.remove(&number);
                Some((request, Err(refused(port, errno))))
            }
        }
    }

    fn connected(&mut self, number: u64, request: u64, port: u16) -> Answer {
        let socket = self.open.get(&number).map(|channel| &channel.socket);
        // A port that nobody listens at may be picked for the near end, and then connects to itself.
        let itself =
            socket.is_some_and(|socket| getsockname(socket).ok() == getpeername(socket).ok().flatten());
        if itself {
            self.open.remove(&number);
            return (request, Err(refused(port, Errno::CONNREFUSED)));
        }
        (request, Ok((Reply::Channel { channel: number }, Vec::new())))
    }

    /// Hands out connections for as long as there are some and somebody waits for them.
    fn accept_more(&mut self, epoll: &OwnedFd, number: u64) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::new();
        loop {
            let room = self.check_room();
            let Some(listener) = self.listeners.get_mut(&number) else { return Ok(answers) };
            if let Err(failure) = room {
                answers.extend(listener.waiting.drain(..).map(|request| (request, Err(failure.clone()))));
                return Ok(answers);
            }
            if let Some((request, socket)) = listener.next_pair() {
                let client = owner(request);
                let channel =
                    Channel { client, socket, connecting: None, receiving: None, transmitting: None };
                let channel = self.add(channel);
                answers.push((request, Ok((Reply::Channel { channel }, Vec::new()))));
                continue;
            }
            if listener.waiting.is_empty() || listener.held.len() >= MAX_HELD {
                return Ok(answers);
            }
            match listener.accept() {
                // ECONNABORTED: whoever came has left again.
                Ok(()) | Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let token = (self.token)(Kind::Listener, number);
                    arm(epoll, &listener.socket, token, epoll::EventFlags::IN)
                        .map_err(|errno| invalid(format!("listener {number}: {errno}")))?;
                    return Ok(answers);
                }
                Err(errno) => {
                    let request = listener.waiting.pop_front();
                    answers
                        .extend(request.map(|request| (request, Err(invalid(format!("accept: {errno}"))))));
                }
            }
        }
    }

    /// Listens to a channel's socket for what somebody waits for, once.
    fn arm(&self, epoll: &OwnedFd, number: u64) -> Result<(), Errno> {
        let Some(channel) = self.open.get(&number) else { return Ok(()) };
        let mut flags = epoll::EventFlags::empty();
        if channel.receiving.is_some() {
            flags |= epoll::EventFlags::IN;
        }
        if channel.transmitting.is_some() || channel.connecting.is_some() {
            flags |= epoll::EventFlags::OUT;
        }
        if flags.is_empty() {
            return Ok(());
        }
        arm(epoll, &channel.socket, (self.token)(Kind::Channel, number), flags)
    }

    fn open_channel(&mut self, number: u64) -> Result<&mut Channel, Failure> {
        let channel = self.open.get_mut(&number).filter(|channel| channel.connecting.is_none());
        channel.ok_or_else(|| invalid(format!("no channel {number}")))
    }

    fn check_room(&self) -> Result<(), Failure> {
        if self.open.len() < MAX_CHANNELS {
            return Ok(());
        }
        Err(invalid(format!("{MAX_CHANNELS} connections of this sandbox are open already")))
    }

    fn add(&mut self, channel: Channel) -> u64 {
        let number = self.number();
        self.open.insert(number, channel);
        number
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Listener {
    /// A request with a connection for it: a client's own, or one whose client is not here any more. The client that
    /// has been here for longest is likely to stay for longest.
    fn next_pair(&mut self) -> Option<(u64, OwnedFd)> {
        let Self { clients, waiting, held, .. } = self;
        for at in 0..held.len() {
            let own = held.get(at)?.0.filter(|client| clients.contains(client));
            let fit = waiting.iter().filter(|request| own.is_none_or(|client| owner(**request) == client));
            if let Some(request) = fit.min().copied() {
                waiting.retain(|other| *other != request);
                return held.remove(at).map(|(_, socket)| (request, socket));
            }
        }
        None
    }

    /// Takes the next connection, and holds it.
    fn accept(&mut self) -> Result<(), Errno> {
        let socket = accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let to = getsockname(&socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
        let Some(to) = to.map(|to| to.ip()).filter(IpAddr::is_loopback) else { return Ok(()) };
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let own = self.clients.iter().copied().find(|client| own_address(*client) == to);
        self.held.push_back((own, socket));
        Ok(())
    }
}

impl Channel {
    fn read(&mut self) -> Option<Answer> {
        let request = self.receiving?;
        let mut buffer = vec![0; PIECE];
        let answer = match rustix::io::read(&self.socket, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Ok(count) => {
                buffer.truncate(count);
                buffer.shrink_to_fit();
                Ok((Reply::Done, buffer))
            }
            Err(errno) => Err(lost(errno)),
        };
        self.receiving = None;
        Some((request, answer))
    }

    fn write(&mut self) -> Option<Answer> {
        let (request, bytes, sent) = self.transmitting.as_mut()?;
        let request = *request;
        let answer = loop {
            match rustix::io::write(&self.socket, &bytes[*sent..]) {
                Ok(count) => {
                    *sent += count;
                    if *sent == bytes.len() {
                        break Ok((Reply::Done, Vec::new()));
                    }
                }
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Err(errno) => break Err(lost(errno)),
            }
        };
        self.transmitting = None;
        Some((request, answer))
    }
}

/// Begins to connect to an address, or where that is refused at once, to the one after it. Gives the socket, whether
/// it is connected, and the address that may still be tried.
fn start(
    address: SocketAddr,
    then: Option<SocketAddr>,
) -> Result<(OwnedFd, bool, Option<SocketAddr>), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let attempt = socket_with(family, SocketType::STREAM, flags, None).and_then(|socket| {
        sockopt::set_tcp_nodelay(&socket, true)?;
        match connect(&socket, &address) {
            Ok(()) => Ok((socket, true)),
            Err(Errno::INPROGRESS) => Ok((socket, false)),
            Err(errno) => Err(errno),
        }
    });
    match (attempt, then) {
        (Ok((socket, connected)), then) => Ok((socket, connected, then)),
        (Err(errno), Some(then)) => start(then, None).map_err(|_| errno),
        (Err(errno), None) => Err(errno),
    }
}

fn arm(
    epoll: &OwnedFd,
    socket: &OwnedFd,
    token: epoll::EventData,
    flags: epoll::EventFlags,
) -> Result<(), Errno> {
    // Once: a peer that is gone would be reported for ever.
    let flags = flags | epoll::EventFlags::ONESHOT;
    match epoll::modify(epoll, socket, token, flags) {
        Err(Errno::NOENT) => epoll::add(epoll, socket, token, flags),
        other => other,
    }
}

fn refused(port: u16, errno: Errno) -> Failure {
    let reason = match errno {
        Errno::CONNREFUSED => "nothing listens there".into(),
        Errno::ADDRINUSE => "something listens there already".into(),
        errno => std::io::Error::from(errno).to_string(),
    };
    Failure::Port { port, reason }
}

fn lost(errno: Errno) -> Failure {
    invalid(format!("the connection was lost: {}", std::io::Error::from(errno)))
}

fn invalid(reason: String) -> Failure {
    Failure::Invalid { reason }
}
