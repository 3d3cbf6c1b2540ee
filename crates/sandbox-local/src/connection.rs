//! A running supervisor: its process, its socket, and the calls under way.
//!
//! Dropping the connection closes the socket, which is what ends the sandbox.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::SandboxError;
use mooring_supervisor::wire::{Call, GENERATION, Reply, Request, Response};
use mooring_supervisor::{Check, Config, Decoder, Frame, Hello, Ready, Setup, Task, encode};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::errors::{gone, translate};

/// How long a sandbox may take to start, and to end.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(15);

/// How long a call may take that does not wait for anything inside.
pub(crate) const CALL: Duration = Duration::from_mins(1);

type Answer = (Result<Reply, mooring_supervisor::wire::Failure>, Bytes);
type Pending = Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>;

#[derive(Debug)]
pub(crate) struct Connection {
    session: String,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Calls under way; `None` once the supervisor is gone.
    pending: Arc<Pending>,
    next: AtomicU64,
    reader: JoinHandle<()>,
    child: tokio::sync::Mutex<Option<Child>>,
}

impl Connection {
    /// Starts a sandbox.
    pub(crate) async fn start(setup: Setup) -> Result<(Self, Ready), SandboxError> {
        let session = setup.session.clone();
        let config = Config { generation: GENERATION, task: Task::Start(setup) };
        let mut started = Started::new(&session, &config).await?;
        match started.hello().await? {
            Hello::Ready(ready) if ready.generation == GENERATION => Ok((started.connect(session), ready)),
            Hello::Failed(failure) => Err(translate("start", failure)),
            other => Err(gone(&session, format!("the supervisor said {other:?}"))),
        }
    }

    /// Asks a supervisor what this host can isolate.
    pub(crate) async fn probe(state_dir: PathBuf) -> Result<Vec<Check>, SandboxError> {
        let config = Config { generation: GENERATION, task: Task::Probe { state_dir } };
        let mut started = Started::new("probe", &config).await?;
        match started.hello().await? {
            Hello::Checks(checks) => Ok(checks),
            other => Err(gone("probe", format!("the supervisor said {other:?}"))),
        }
    }

    /// Makes a call and waits for its answer, no longer than `limit`.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        call: Call,
        payload: &[u8],
        limit: Duration,
    ) -> Result<(Reply, Bytes), SandboxError> {
        let answer = async {
            let receiver = self.send(call, payload).await?;
            receiver.await.map_err(|_| self.lost())
        };
        let (reply, payload) = tokio::time::timeout(limit, answer).await.map_err(|_| {
            SandboxError::Deadline { operation: operation.into(), seconds: limit.as_secs() }
        })??;
        reply.map(|reply| (reply, payload)).map_err(|failure| translate(operation, failure))
    }

    /// Makes a call whose answer nobody waits for.
    pub(crate) async fn send(
        &self,
        call: Call,
        payload: &[u8],
    ) -> Result<oneshot::Receiver<Answer>, SandboxError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let header = encode(&Request { id, call }, payload.len())
            .map_err(|error| SandboxError::Invalid { reason: error.to_string() })?;
        let (sender, receiver) = oneshot::channel();
        match &mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(pending) => drop(pending.insert(id, sender)),
            None => return Err(self.lost()),
        }
        let whole = if payload.len() <= 16 << 10 { [&header, payload].concat() } else { header };
        let rest = if payload.len() <= 16 << 10 { &[] } else { payload };
        let mut writer = self.writer.lock().await;
        let sent = async {
            writer.write_all(&whole).await?;
            writer.write_all(rest).await
        };
        sent.await.map_err(|_| {
            // Known here before the reader notices, so that a start right after this starts a new one.
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.lost()
        })?;
        Ok(receiver)
    }

    fn lost(&self) -> SandboxError {
        gone(&self.session, "its supervisor has ended; start the session again")
    }

    /// Whether the supervisor is still there.
    pub(crate) fn alive(&self) -> bool {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Ends the sandbox and waits until nothing of it is left.
    pub(crate) async fn stop(&self) -> Result<(), SandboxError> {
        // An error means that the other end is closed already.
        let _ = self.writer.lock().await.shutdown().await;
        let mut child = self.child.lock().await;
        let Some(mut ending) = child.take() else { return Ok(()) };
        match tokio::time::timeout(STOP, ending.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => {
                // Its death takes the first process inside with it, and that everything else.
                let _ = ending.kill().await;
                let (operation, seconds) = ("stop".into(), STOP.as_secs());
                Err(SandboxError::Deadline { operation, seconds })
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The reading half goes with its task, the writing half with this.
        self.reader.abort();
    }
}

/// A supervisor that has not said hello yet.
struct Started {
    session: String,
    child: Child,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    decoder: Decoder,
}

impl Started {
    async fn new(session: &str, config: &Config) -> Result<Self, SandboxError> {
        let fail = |what: &str, error: std::io::Error| gone(session, format!("cannot {what}: {error}"));
        let (ours, theirs) = StdUnixStream::pair().map_err(|error| fail("make a socket", error))?;
        ours.set_nonblocking(true).map_err(|error| fail("make a socket", error))?;
        let mut command = Command::from(mooring_supervisor::command());
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| fail("start the supervisor", error))?;
        // With `command` goes our copy of the supervisor's end: from here on its death is an end of file.
        drop(command);
        let stream = UnixStream::from_std(ours).map_err(|error| fail("make a socket", error))?;
        let (reader, mut writer) = stream.into_split();
        let bytes = encode(config, 0).map_err(|error| SandboxError::Invalid { reason: error.to_string() })?;
        writer.write_all(&bytes).await.map_err(|error| fail("configure the supervisor", error))?;
        Ok(Self { session: session.into(), child, reader, writer, decoder: Decoder::default() })
    }

    async fn hello(&mut self) -> Result<Hello, SandboxError> {
        let hello = tokio::time::timeout(START, read_frame(&mut self.reader, &mut self.decoder)).await;
        match hello {
            Ok(Ok(Some(Frame { header, .. }))) => Ok(header),
            Ok(Ok(None)) => {
                let mut said = String::new();
                if let Some(stderr) = self.child.stderr.take() {
                    // It is as good as dead; what it said is a help, not a need.
                    let mut stderr = stderr.take(4096);
                    let read = stderr.read_to_string(&mut said);
                    let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
                }
                Err(gone(&self.session, format!("the supervisor ended at its start: {}", said.trim())))
            }
            Ok(Err(reason)) => Err(gone(&self.session, reason)),
            Err(_) => {
                let _ = self.child.start_kill();
                Err(SandboxError::Deadline { operation: "start".into(), seconds: START.as_secs() })
            }
        }
    }

    fn connect(self, session: String) -> Connection {
        let pending: Arc<Pending> = Arc::new(Mutex::new(Some(HashMap::new())));
        let reader = tokio::spawn(read_answers(self.reader, self.decoder, Arc::clone(&pending)));
        Connection {
            session,
            writer: tokio::sync::Mutex::new(self.writer),
            pending,
            next: AtomicU64::new(1),
            reader,
            child: tokio::sync::Mutex::new(Some(self.child)),
        }
    }
}

/// Hands answers to whoever waits for them, until the supervisor is gone.
async fn read_answers(mut reader: OwnedReadHalf, mut decoder: Decoder, pending: Arc<Pending>) {
    // What is no frame ends the connection like a closed socket: there is nothing to be said to such a peer.
    while let Ok(Some(frame)) = read_frame::<Response>(&mut reader, &mut decoder).await {
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

async fn read_frame<H: DeserializeOwned>(
    reader: &mut OwnedReadHalf,
    decoder: &mut Decoder,
) -> Result<Option<Frame<H>>, String> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
            return Ok(Some(frame));
        }
        match reader.read(&mut buffer).await {
            Ok(0) => return Ok(None),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    }
}
