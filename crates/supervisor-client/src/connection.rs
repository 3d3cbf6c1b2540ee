//! A running supervisor: its stream and the calls under way.
//!
//! Dropping the connection closes the stream, which is what ends the sandbox. What works for a connection (a channel's
//! two directions, the way out) holds a [`Caller`], which keeps nothing alive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{BoxFuture, SandboxError};
use mooring_supervisor::wire::{Call, Failure, GENERATION, Reply, Request, Response};
use mooring_supervisor::{Config, Decoder, Frame, Hello, Ready, Setup, Task, encode};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::errors::{gone, translate};

/// How long a sandbox may take to start, and to end.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(15);

/// How long a call may take that does not wait for anything inside.
pub(crate) const CALL: Duration = Duration::from_mins(1);

/// How many frames may wait to be sent.
const FRAMES: usize = 16;

type Answer = (Result<Reply, Failure>, Bytes);
type Pending = Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A stream to a supervisor that has not been spoken to, and the end of whatever runs it.
pub struct Transport {
    /// What it says.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What it is told. Its shutdown must reach the supervisor as an end of file.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What is left to be done where the stream has ended.
    pub end: Box<dyn End>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

/// The end of what runs a supervisor.
pub trait End: Send + Sync {
    /// Waits until nothing of the sandbox is left. Its stream is closed already.
    fn wait(&mut self) -> BoxFuture<'_, ()>;

    /// Ends it by force: it did not end by itself.
    fn force(&mut self) -> BoxFuture<'_, ()>;

    /// What it wrote to standard error, where it ended without a word.
    fn last_words(&mut self) -> BoxFuture<'_, String>;
}

/// Makes calls. Keeps neither the connection nor the sandbox alive.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    session: Arc<str>,
    frames: mpsc::Sender<(Vec<u8>, Bytes)>,
    /// Calls under way; `None` once the supervisor is gone.
    pending: Arc<Pending>,
    next: Arc<AtomicU64>,
}

impl Caller {
    /// Makes a call and waits for its answer, no longer than `limit`.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        call: Call,
        payload: Bytes,
        limit: Duration,
    ) -> Result<(Reply, Bytes), SandboxError> {
        let answer = self.call_unlimited(operation, call, payload);
        let deadline = |_| SandboxError::Deadline { operation: operation.into(), seconds: limit.as_secs() };
        tokio::time::timeout(limit, answer).await.map_err(deadline)?
    }

    /// The same for as long as the sandbox lives: for what waits on somebody inside.
    pub(crate) async fn call_unlimited(
        &self,
        operation: &'static str,
        call: Call,
        payload: Bytes,
    ) -> Result<(Reply, Bytes), SandboxError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let header = encode(&Request { id, call }, payload.len())
            .map_err(|error| SandboxError::Invalid { reason: error.to_string() })?;
        let (sender, receiver) = oneshot::channel();
        match &mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(pending) => drop(pending.insert(id, sender)),
            None => return Err(self.lost()),
        }
        let mut waiting = Waiting { pending: &self.pending, id: Some(id) };
        // Whole or not at all: a caller that goes away in the middle must not leave half a frame.
        self.frames.send((header, payload)).await.map_err(|_| self.lost())?;
        let (reply, payload) = receiver.await.map_err(|_| self.lost())?;
        waiting.id = None;
        reply.map(|reply| (reply, payload)).map_err(|failure| translate(operation, failure))
    }

    fn lost(&self) -> SandboxError {
        gone(&self.session, "its supervisor has ended; start the session again")
    }
}

/// Forgets a call that nobody waits for any more.
struct Waiting<'a> {
    pending: &'a Pending,
    id: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if let Some(pending) = &mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner) {
            pending.remove(&id);
        }
    }
}

pub(crate) struct Connection {
    pub(crate) caller: Caller,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    /// It does not end with this connection.
    lingers: bool,
    end: tokio::sync::Mutex<Option<Box<dyn End>>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("session", &self.caller.session).finish_non_exhaustive()
    }
}

impl Connection {
    /// Has a supervisor set up a sandbox. `None`: the session has one already.
    pub(crate) async fn start(
        transport: Transport,
        setup: Setup,
    ) -> Result<Option<(Self, Ready)>, SandboxError> {
        let session = setup.session.clone();
        let lingers = setup.linger.is_some();
        let mut starting = Starting::new(&session, transport, Task::Start(Box::new(setup))).await?;
        match starting.hello().await? {
            Hello::Ready(ready) if ready.generation == GENERATION => {
                Ok(Some((starting.connect(&session, lingers), ready)))
            }
            Hello::Failed(Failure::Running) => Ok(None),
            Hello::Failed(failure) => Err(translate("start", failure)),
            other => Err(gone(&session, format!("the supervisor said {other:?}"))),
        }
    }

    /// Joins a supervisor that runs. `None`: it was about to end.
    pub(crate) async fn attach(
        session: &str,
        transport: Transport,
    ) -> Result<Option<(Self, Ready)>, SandboxError> {
        let mut starting = Starting { session: session.into(), transport, decoder: Decoder::default() };
        match starting.hello().await {
            Ok(Hello::Ready(ready)) if ready.generation == GENERATION => {
                Ok(Some((starting.connect(session, true), ready)))
            }
            Ok(Hello::Ready(ready)) => Err(SandboxError::Invalid {
                reason: format!(
                    "session {session} runs under another version of this program (generation {}, this is \
                     {GENERATION}); stop it with that one",
                    ready.generation
                ),
            }),
            Ok(Hello::Failed(failure)) => Err(translate("attach", failure)),
            Ok(other) => Err(gone(session, format!("the supervisor said {other:?}"))),
            Err(SandboxError::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the supervisor is still there.
    pub(crate) fn alive(&self) -> bool {
        self.caller.pending.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Ends the sandbox and waits until nothing of it is left.
    pub(crate) async fn stop(&self) -> Result<(), SandboxError> {
        if self.lingers {
            // Where this fails it has ended already.
            let _ = self.caller.call("stop", Call::End, Bytes::new(), STOP).await;
        }
        // With its task goes our half of the stream.
        self.writer.abort();
        let mut end = self.end.lock().await;
        let Some(mut ending) = end.take() else { return Ok(()) };
        if tokio::time::timeout(STOP, ending.wait()).await.is_ok() {
            return Ok(());
        }
        ending.force().await;
        Err(SandboxError::Deadline { operation: "stop".into(), seconds: STOP.as_secs() })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
        // Who still waits is told.
        self.caller.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Gives a supervisor another task than a sandbox, and waits for its one word.
///
/// # Errors
/// [`SandboxError::Gone`] where it ended without one.
pub async fn ask(session: &str, transport: Transport, task: Task) -> Result<Hello, SandboxError> {
    Starting::new(session, transport, task).await?.hello().await
}

/// A supervisor that has not said hello yet.
struct Starting {
    session: String,
    transport: Transport,
    decoder: Decoder,
}

impl Starting {
    async fn new(session: &str, mut transport: Transport, task: Task) -> Result<Self, SandboxError> {
        let config = Config { generation: GENERATION, task };
        let bytes =
            encode(&config, 0).map_err(|error| SandboxError::Invalid { reason: error.to_string() })?;
        let sent = async {
            transport.writer.write_all(&bytes).await?;
            transport.writer.flush().await
        };
        // One that has ended says why when it is asked.
        let _ = sent.await;
        Ok(Self { session: session.into(), transport, decoder: Decoder::default() })
    }

    async fn hello(&mut self) -> Result<Hello, SandboxError> {
        let mut buffer = vec![0; 4 << 10];
        let reading = read_frame(&mut self.transport.reader, &mut self.decoder, &mut buffer);
        match tokio::time::timeout(START, reading).await {
            Ok(Ok(Some(Frame { header, .. }))) => Ok(header),
            Ok(Ok(None)) => {
                let said = self.transport.end.last_words().await;
                Err(gone(&self.session, format!("the supervisor ended at its start: {}", said.trim())))
            }
            Ok(Err(reason)) => Err(gone(&self.session, reason)),
            Err(_) => {
                self.transport.end.force().await;
                Err(SandboxError::Deadline { operation: "start".into(), seconds: START.as_secs() })
            }
        }
    }

    fn connect(self, session: &str, lingers: bool) -> Connection {
        let pending: Arc<Pending> = Arc::new(Mutex::new(Some(HashMap::new())));
        let (frames, queue) = mpsc::channel(FRAMES);
        let Transport { reader, writer, end } = self.transport;
        let reader = tokio::spawn(read_answers(reader, self.decoder, Arc::clone(&pending)));
        let writer = tokio::spawn(write_frames(writer, queue, Arc::clone(&pending)));
        let next = Arc::new(AtomicU64::new(1));
        let caller = Caller { session: session.into(), frames, pending, next };
        Connection { caller, reader, writer, lingers, end: tokio::sync::Mutex::new(Some(end)) }
    }
}

/// Hands answers to whoever waits for them, until the supervisor is gone.
async fn read_answers(
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    mut decoder: Decoder,
    pending: Arc<Pending>,
) {
    let mut buffer = vec![0; 64 << 10];
    // What is no frame ends the connection like a closed stream: there is nothing to be said to such a peer.
    while let Ok(Some(frame)) = read_frame::<Response>(&mut reader, &mut decoder, &mut buffer).await {
        let Response { id, reply } = frame.header;
        let waiting = pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .and_then(|pending| pending.remove(&id));
        if let Some(waiting) = waiting {
            // Nobody waits any more: fine.
            let _ = waiting.send((reply, frame.payload.into()));
        }
    }
    // Dropping the senders tells everybody.
    pending.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Sends what is queued, until the supervisor is gone.
async fn write_frames(
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
    mut queue: mpsc::Receiver<(Vec<u8>, Bytes)>,
    pending: Arc<Pending>,
) {
    while let Some((mut header, payload)) = queue.recv().await {
        let small = payload.len() <= 16 << 10;
        if small {
            header.extend_from_slice(&payload);
        }
        let sent = async {
            writer.write_all(&header).await?;
            if !small {
                writer.write_all(&payload).await?;
            }
            writer.flush().await
        };
        if sent.await.is_err() {
            // Known here before the reader notices, so that a start right after this starts a new one.
            pending.lock().unwrap_or_else(PoisonError::into_inner).take();
            return;
        }
    }
}

async fn read_frame<H: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin + ?Sized),
    decoder: &mut Decoder,
    buffer: &mut [u8],
) -> Result<Option<Frame<H>>, String> {
    loop {
        if let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
            return Ok(Some(frame));
        }
        match reader.read(buffer).await {
            Ok(0) => return Ok(None),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    }
}
