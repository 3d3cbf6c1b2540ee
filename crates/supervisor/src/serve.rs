//! The loop: one thread that listens to the harness, to every command and to the clock.
//!
//! It ends with its last client (or some time after, see `clients`), and takes everything with it.

mod call;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use mooring_sandbox::{Outcome, Stream};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

use crate::channels::{self, Channels};
use crate::clients::{self, Clients};
use crate::config::{Level, Limits};
use crate::disk::Disk;
use crate::jobs::{Answer, Job, Task};
use crate::kill::{Processes, kill_all};
use crate::process::{Process, StartAnswer};
use crate::spawn::spawn;
use crate::wire::{self, Failure, Reply, Request};
use crate::world::World;

/// The most commands and jobs at one time, ended but unreleased ones included.
const MAX_PROCESSES: usize = 8192;

/// How long it can still be asked how commands ended, after the sandbox's time is up.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What an event is about. With the number of a process or a job it makes the kernel's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Client,
    Door,
    Signals,
    Stdout,
    Stderr,
    Status,
    Stdin,
    JobInput,
    JobOutput,
    Channel,
    Listener,
}

impl Source {
    const ALL: [Self; 11] = [
        Self::Client,
        Self::Door,
        Self::Signals,
        Self::Stdout,
        Self::Stderr,
        Self::Status,
        Self::Stdin,
        Self::JobInput,
        Self::JobOutput,
        Self::Channel,
        Self::Listener,
    ];

    fn token(self, number: u64) -> epoll::EventData {
        epoll::EventData::new_u64(number << 4 | self as u64)
    }

    /// `None`: no token of ours.
    fn from_token(token: u64) -> Option<(Self, u64)> {
        Some((*Self::ALL.get((token & 15) as usize)?, token >> 4))
    }

    fn of_channel(kind: channels::Kind, number: u64) -> epoll::EventData {
        let source = match kind {
            channels::Kind::Channel => Self::Channel,
            channels::Kind::Listener => Self::Listener,
        };
        source.token(number)
    }
}

pub(crate) struct Server {
    world: World,
    clients: Clients,
    epoll: OwnedFd,
    signals: SignalFd,
    processes: BTreeMap<u64, Process>,
    jobs: BTreeMap<u64, Job>,
    channels: Channels,
    next: u64,
    /// When its time is up. `None`: never.
    end: Option<Instant>,
    /// What keeps the workspace within its size, where that is limited.
    disk: Option<Disk>,
    /// A client asked for the end.
    ending: bool,
    /// What is being read, whoever from.
    buffer: Vec<u8>,
}

/// Blocks SIGCHLD, so that it is read from a descriptor. Before the first child.
pub(crate) fn child_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(NixSignal::SIGCHLD);
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

impl Server {
    /// Serves for as long as somebody wants it, and its limits allow.
    pub(crate) fn new(
        world: World,
        mut clients: Clients,
        signals: SignalFd,
        limits: &Limits,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let wall_clock = limits.wall_clock_ms.map(Duration::from_millis);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        clients.watch(&epoll, |number| Source::Client.token(number), Source::Door.token(0))?;
        epoll::add(&epoll, signals.as_fd(), Source::Signals.token(0), epoll::EventFlags::IN)?;
        let (processes, jobs) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            world,
            clients,
            epoll,
            signals,
            processes,
            jobs,
            channels: Channels::new(Source::of_channel),
            next: 1,
            // A time that no clock can tell never comes.
            end: wall_clock.and_then(|time| now.checked_add(time)),
            disk: limits.disk_bytes.map(|limit| Disk::new(limit, now)),
            ending: false,
            buffer: vec![0; 64 << 10],
        })
    }

    /// Serves until nobody wants it any more. Then nothing that it started runs any more.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let served = self.serve();
        self.end_all()?;
        served
    }

    fn serve(&mut self) -> io::Result<()> {
        // What came together with the configuration.
        self.take_requests();
        let mut events = Vec::with_capacity(256);
        loop {
            let wait = self.advance(Instant::now())?.into_iter().chain(self.watch_disk(Instant::now())).min();
            let now = Instant::now();
            for client in self.clients.take_lost(&self.epoll, now)? {
                self.forget_client(client)?;
            }
            let over = self.end_of_time();
            if self.ending || self.clients.end().into_iter().chain(over).any(|end| end <= now) {
                self.clients.flush();
                return Ok(());
            }
            self.clients.update(&self.epoll, |number| Source::Client.token(number))?;
            let wait = wait.into_iter().chain(self.clients.end()).chain(over).min();
            let timeout = wait.map(|until| {
                let left = until.saturating_duration_since(Instant::now());
                // Rounded up: never wake before the moment.
                let left = left + Duration::from_micros(100);
                rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
            });
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let now = Instant::now();
            for event in events.drain(..) {
                let Some((source, number)) = Source::from_token(event.data.u64()) else { continue };
                let flags = event.flags;
                match source {
                    Source::Client => {
                        self.clients.ready(number, flags, &mut self.buffer);
                        self.take_requests();
                    }
                    Source::Door => {
                        self.clients.admit(&self.epoll, |number| Source::Client.token(number))?;
                    }
                    Source::Signals => self.reap(now)?,
                    Source::JobInput | Source::JobOutput => {
                        let Some(job) = self.jobs.get_mut(&number) else { continue };
                        let answer = if source == Source::JobInput { job.write() } else { job.read() };
                        self.job_answer(number, answer)?;
                    }
                    Source::Channel | Source::Listener => {
                        let kind = if source == Source::Channel {
                            channels::Kind::Channel
                        } else {
                            channels::Kind::Listener
                        };
                        let answers =
                            self.channels.ready(&self.epoll, kind, number).map_err(io::Error::other)?;
                        self.answer_all(answers);
                    }
                    _ => self.process_event(source, number, now)?,
                }
            }
        }
    }

    /// When the sandbox ends because its time is up: its commands end at that moment, and how they did is told for a
    /// while, or until it is told.
    fn end_of_time(&self) -> Option<Instant> {
        let end = self.end?;
        let untold = self.processes.values().any(|process| !process.released);
        Some(if untold { end + LAST_WORDS } else { end })
    }

    fn process_event(&mut self, source: Source, number: u64, now: Instant) -> io::Result<()> {
        let Some(process) = self.processes.get_mut(&number) else { return Ok(()) };
        match source {
            Source::Stdout | Source::Stderr => {
                let stream = if source == Source::Stdout { Stream::Stdout } else { Stream::Stderr };
                process.drain(stream, &mut self.buffer, now);
                if process.is_held() {
                    self.watch_output(number)?;
                }
            }
            Source::Stdin => {
                process.feed();
                if let Some(stdin) = process.stdin.as_ref().filter(|stdin| stdin.queue.is_empty()) {
                    epoll::delete(&self.epoll, &stdin.fd)?;
                }
            }
            _ => {
                let answer = process.hear(now);
                self.start_answer(number, answer);
            }
        }
        Ok(())
    }

    fn take_requests(&mut self) {
        for client in self.clients.all() {
            while let Some(frame) = self.clients.next_request(client) {
                let Request { id, call } = frame.header;
                match self.call(id, call, frame.payload) {
                    Ok(None) => {}
                    Ok(Some((reply, payload))) => self.clients.answer(id, Ok(reply), payload),
                    Err(failure) => self.clients.answer(id, Err(failure), Vec::new()),
                }
            }
        }
    }

    /// Gives up what a client asked for and nobody else can use. Its commands go on: who comes next finds them.
    fn forget_client(&mut self, client: u64) -> io::Result<()> {
        if let Some(disk) = &mut self.disk {
            disk.waiting.retain(|(request, ..)| clients::owner(*request) != client);
        }
        let now = Instant::now();
        let mut resumed = Vec::new();
        for (number, process) in &mut self.processes {
            process.waiters.retain(|waiter| clients::owner(waiter.request) != client);
            if process.reader_gone(client, now) {
                resumed.push(*number);
            }
        }
        for number in resumed {
            self.watch_output(number)?;
        }
        for job in self.jobs.values_mut().filter(|job| job.client == client) {
            job.give_up();
        }
        self.jobs.retain(|_, job| !(job.given_up && job.child.is_none()));
        let answers = self.channels.forget_client(&self.epoll, client).map_err(io::Error::other)?;
        self.answer_all(answers);
        Ok(())
    }

    fn answer_all(&mut self, answers: Vec<channels::Answer>) {
        for (request, answer) in answers {
            match answer {
                Ok((reply, payload)) => self.clients.answer(request, Ok(reply), payload),
                Err(failure) => self.clients.answer(request, Err(failure), Vec::new()),
            }
        }
    }

    fn check_room(&self) -> Result<(), Failure> {
        if self.processes.len() + self.jobs.len() < MAX_PROCESSES {
            return Ok(());
        }
        Err(Failure::Invalid { reason: format!("{MAX_PROCESSES} commands are held already; release some") })
    }

    /// Measures the workspace where that is due. Gives the moment when it is next.
    fn watch_disk(&mut self, now: Instant) -> Option<Instant> {
        let busy = !self.jobs.is_empty() || self.processes.values().any(|process| process.reaper.is_some());
        let disk = self.disk.as_mut()?;
        let next = disk.advance(&self.world, busy, now);
        if disk.is_blind() {
            self.processes.values_mut().for_each(|process| process.stop(Outcome::OutOfDisk, now));
        }
        next
    }

    /// Ends what made the workspace larger than it may be, and starts what waited to know its size.
    fn disk_measured(&mut self, now: Instant) {
        let ending = self.processes.values().any(|process| process.reaper.is_some() && process.is_stopping());
        let Some(disk) = &mut self.disk else { return };
        if disk.measured(now, ending) {
            for process in self.processes.values_mut() {
                process.stop(Outcome::OutOfDisk, now);
            }
        }
        for (request, call, payload) in std::mem::take(&mut disk.waiting) {
            if let Err(failure) = self.start_process(request, &call, payload, now) {
                self.clients.answer(request, Err(failure), Vec::new());
            }
        }
    }

    /// Starts a command. Its answer comes when it runs.
    fn start_process(
        &mut self,
        request: u64,
        call: &wire::Spawn,
        payload: Vec<u8>,
        now: Instant,
    ) -> Result<(), Failure> {
        self.check_room()?;
        self.check_time(now)?;
        let file_size = self.disk.as_ref().map(Disk::file_size);
        let mut process = spawn(&self.world, call, payload, file_size, now)?;
        process.start_request = Some(request);
        process.paced_by = call.paced.then_some(clients::owner(request));
        process.deadline = process.deadline.into_iter().chain(self.end).min();
        self.add_process(process).map_err(|error| Failure::Invalid { reason: error.to_string() })?;
        Ok(())
    }

    fn check_time(&self, now: Instant) -> Result<(), Failure> {
        if self.end.is_none_or(|end| now < end) {
            return Ok(());
        }
        let reason =
            "the sandbox's time is up (resources.wall_clock), and it ends now; the next start begins anew";
        Err(Failure::Invalid { reason: reason.into() })
    }

    fn process(&mut self, number: u64) -> Result<&mut Process, Failure> {
        let unknown = || Failure::Invalid { reason: format!("no process {number}: it was released") };
        self.processes.get_mut(&number).filter(|process| !process.released).ok_or_else(unknown)
    }

    fn job(&mut self, number: u64) -> Result<&mut Job, Failure> {
        let unknown = || Failure::Invalid { reason: format!("no job {number}") };
        self.jobs.get_mut(&number).ok_or_else(unknown)
    }

    fn add_process(&mut self, process: Process) -> io::Result<u64> {
        let number = self.next;
        self.next += 1;
        let sources = [
            (&process.stdout, Source::Stdout),
            (&process.stderr, Source::Stderr),
            (&process.status, Source::Status),
        ];
        for (fd, source) in sources {
            if let Some(fd) = fd {
                epoll::add(&self.epoll, fd, source.token(number), epoll::EventFlags::IN)?;
            }
        }
        self.processes.insert(number, process);
        self.watch_stdin(number).map_err(io::Error::other)?;
        Ok(number)
    }

    /// Listens to what a command says, unless it waits for its reader.
    fn watch_output(&self, number: u64) -> rustix::io::Result<()> {
        let Some(process) = self.processes.get(&number) else { return Ok(()) };
        for (fd, source) in [(&process.stdout, Source::Stdout), (&process.stderr, Source::Stderr)] {
            let wanted = (!process.is_held()).then_some(epoll::EventFlags::IN);
            if let Some(fd) = fd {
                self.listen(fd, source, number, wanted)?;
            }
        }
        Ok(())
    }

    /// Listens to a descriptor, or not.
    fn listen(
        &self,
        fd: &OwnedFd,
        source: Source,
        number: u64,
        wanted: Option<epoll::EventFlags>,
    ) -> rustix::io::Result<()> {
        let done = match wanted {
            Some(flags) => epoll::add(&self.epoll, fd, source.token(number), flags),
            None => epoll::delete(&self.epoll, fd),
        };
        match done {
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Waits for standard input to take what could not be written at once.
    fn watch_stdin(&self, number: u64) -> Result<(), Failure> {
        let stdin = self.processes.get(&number).and_then(|process| process.stdin.as_ref());
        let Some(stdin) = stdin.filter(|stdin| !stdin.queue.is_empty()) else { return Ok(()) };
        match epoll::add(&self.epoll, &stdin.fd, Source::Stdin.token(number), epoll::EventFlags::OUT) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Failure::Invalid { reason: format!("standard input: {errno}") }),
        }
    }

    fn start_answer(&mut self, number: u64, answer: Option<StartAnswer>) {
        let Some((request, result)) = answer else { return };
        self.clients.answer(request, result.map(|()| Reply::Started { process: number }), Vec::new());
    }

    fn start_job(&mut self, request: u64, task: &Task) -> Result<u64, Failure> {
        self.check_room()?;
        let job = Job::start(&self.world, task, clients::owner(request))?;
        let number = self.next;
        self.next += 1;
        self.jobs.insert(number, job);
        Ok(number)
    }

    fn answer_job(&mut self, request: u64, task: &Task) -> Result<Option<(Reply, Vec<u8>)>, Failure> {
        let job = self.start_job(request, task)?;
        Ok(Some((Reply::Job { job }, Vec::new())))
    }

    /// An answer that a call got at once.
    fn job_reply(
        &mut self,
        number: u64,
        answer: Option<Answer>,
    ) -> Result<Option<(Reply, Vec<u8>)>, Failure> {
        self.watch_job(number).map_err(|errno| Failure::Invalid { reason: format!("job: {errno}") })?;
        match answer {
            None => Ok(None),
            Some((_, result, payload)) => {
                self.forget_job(number, payload.is_empty());
                result.map(|()| Some((Reply::Done, payload)))
            }
        }
    }

    /// An answer that became due later.
    fn job_answer(&mut self, number: u64, answer: Option<Answer>) -> io::Result<()> {
        self.watch_job(number)?;
        if let Some((request, result, payload)) = answer {
            self.forget_job(number, payload.is_empty());
            self.clients.answer(request, result.map(|()| Reply::Done), payload);
        }
        Ok(())
    }

    fn forget_job(&mut self, number: u64, last: bool) {
        if last && self.jobs.get(&number).is_some_and(|job| job.child.is_none()) {
            self.jobs.remove(&number);
        }
    }

    /// Listens to a job's pipes while somebody waits for them.
    fn watch_job(&self, number: u64) -> rustix::io::Result<()> {
        let Some(job) = self.jobs.get(&number) else { return Ok(()) };
        let pipes = [
            (&job.input, job.wants_to_write(), Source::JobInput, epoll::EventFlags::OUT),
            (&job.output, job.wants_to_read(), Source::JobOutput, epoll::EventFlags::IN),
        ];
        for (fd, wanted, source, flags) in pipes {
            let Some(fd) = fd else { continue };
            self.listen(fd, source, number, wanted.then_some(flags))?;
        }
        Ok(())
    }

    /// Takes leave of children that have ended.
    fn reap(&mut self, now: Instant) -> io::Result<()> {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut killed_reaper = false;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.disk.as_ref().is_some_and(|disk| disk.is_mine(pid)) {
                self.disk_measured(now);
                continue;
            }
            let job = self.jobs.iter_mut().find(|(_, job)| job.child == Some(pid));
            if let Some((number, job)) = job {
                let (number, answer, given_up) = (*number, job.ended(), job.given_up);
                if given_up {
                    self.jobs.remove(&number);
                    continue;
                }
                self.job_answer(number, answer)?;
                continue;
            }
            let process = self.processes.iter_mut().find(|(_, process)| process.reaper == Some(pid));
            if let Some((number, process)) = process {
                let (number, answer) = (*number, process.reaper_gone(now));
                killed_reaper |= status.signaled();
                self.start_answer(number, answer);
            }
        }
        if killed_reaper { self.kill_strays() } else { Ok(()) }
    }

    /// Ends what a killed reaper left behind: it would belong to nobody.
    fn kill_strays(&self) -> io::Result<()> {
        for _ in 0..1000 {
            let look = Processes::look()?;
            let strays = look.strays(|pid| self.is_mine(pid));
            if strays.is_empty() {
                return Ok(());
            }
            let below = strays.iter().flat_map(|stray| look.below(*stray));
            kill_all(&below.chain(strays.iter().copied()).collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::other("orphans cannot be killed"))
    }

    fn is_mine(&self, pid: Pid) -> bool {
        self.processes.values().any(|process| process.reaper == Some(pid))
            || self.jobs.values().any(|job| job.child == Some(pid))
            || self.disk.as_ref().is_some_and(|disk| disk.is_mine(pid))
    }

    /// Moves every process on with time, and answers who waits. Gives the moment to do it again.
    fn advance(&mut self, now: Instant) -> io::Result<Option<Instant>> {
        let mut next: Option<Instant> = None;
        let mut forget = Vec::new();
        for (number, process) in &mut self.processes {
            let world = &self.world;
            let due = process.advance(now, || world.killed_by_memory()).map_err(io::Error::other)?;
            let mut waiting = Vec::new();
            for waiter in std::mem::take(&mut process.waiters) {
                let held_up = self.clients.backlogged(waiter.request);
                let due =
                    process.log.end() > waiter.after || process.outcome.is_some() || waiter.until <= now;
                if !due || held_up {
                    // Held up, it is the socket that wakes the loop.
                    next = next.into_iter().chain((!held_up).then_some(waiter.until)).min();
                    waiting.push(waiter);
                    continue;
                }
                let (pieces, bytes, reached) = process.log.read(waiter.after, waiter.max);
                let outcome = process.outcome.filter(|_| reached >= process.log.end());
                let reply = Reply::Output { pieces, next: reached, outcome };
                self.clients.answer(waiter.request, Ok(reply), bytes);
            }
            process.waiters = waiting;
            if process.is_gone() {
                for request in process.stop_requests.drain(..) {
                    self.clients.answer(request, Ok(Reply::Done), Vec::new());
                }
                if process.released {
                    forget.push(*number);
                }
            }
            next = due.into_iter().chain(next).min();
        }
        for number in forget {
            self.processes.remove(&number);
        }
        Ok(next)
    }

    /// Kills everything that was started. In a pid namespace the kernel does that, at once, when this process ends.
    fn end_all(&self) -> io::Result<()> {
        if self.world.level == Level::Namespaces {
            return Ok(());
        }
        for _ in 0..2000 {
            let left = Processes::look()?.below(rustix::process::getpid());
            if left.is_empty() {
                return Ok(());
            }
            kill_all(&left);
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::other("some processes cannot be killed"))
    }
}
