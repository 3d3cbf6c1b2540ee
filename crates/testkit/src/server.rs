//! A model server whose faults are written down.
//!
//! It speaks HTTP/1.1 over a bare socket and not through a web framework, because a framework is made to not do what
//! is wanted here: to stall before the head, to cut a connection between two bytes, to say what no server should.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The largest request that is read.
const REQUEST_LIMIT: usize = 64 * 1024 * 1024;

/// What a reply does, in order. The head goes out just before the first [`Step::Send`], or at the end.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends these bytes of the body at once.
    Send(Bytes),
    /// Waits.
    Wait(Duration),
    /// Says nothing more, and keeps the connection open.
    Stall,
    /// Closes the connection where it is.
    Cut,
}

/// One scripted reply.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    steps: Vec<Step>,
}

impl Reply {
    /// A reply with this status and nothing else.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), steps: Vec::new() }
    }

    /// A whole event stream.
    pub fn stream(body: impl Into<Bytes>) -> Self {
        Self::new(200).header("content-type", "text/event-stream").send(body)
    }

    /// A JSON body with this status.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status).header("content-type", "application/json").send(body.to_string())
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds bytes of the body.
    pub fn send(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Send(bytes.into()))
    }

    /// Adds a step.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// `POST`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, if it is JSON; else null.
    pub body: Value,
}

impl Recorded {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

/// The server. It answers one request a connection, with the replies in their order, and stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    replies: VecDeque<Reply>,
    recorded: Vec<Recorded>,
}

impl Server {
    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Mutex::new(Shared { replies: replies.into_iter().collect(), recorded: Vec::new() }));
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            // Connections end with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = accepting.clone();
                // A client that goes away is part of the tests.
                connections.spawn(async move { drop(answer(stream, &shared).await) });
            }
        });
        Ok(Self { address, shared, task })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a reply after those that are left.
    pub fn reply(&self, reply: Reply) {
        lock(&self.shared).replies.push_back(reply);
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared).recorded.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(mut stream: TcpStream, shared: &Mutex<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(request) = read_request(&mut stream).await? else { return Ok(()) };
    let reply = {
        let mut shared = lock(shared);
        shared.recorded.push(request);
        shared.replies.pop_front()
    };
    let reply = reply.unwrap_or_else(|| Reply::new(418).send("the test has no reply for this request"));
    let mut head = Some(head(&reply));
    for step in reply.steps {
        match step {
            Step::Send(bytes) => {
                if let Some(head) = head.take() {
                    stream.write_all(head.as_bytes()).await?;
                }
                if !bytes.is_empty() {
                    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
                    stream.write_all(&bytes).await?;
                    stream.write_all(b"\r\n").await?;
                }
            }
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Stall => std::future::pending().await,
            Step::Cut => return Ok(()),
        }
    }
    if let Some(head) = head.take() {
        stream.write_all(head.as_bytes()).await?;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.shutdown().await
}

fn head(reply: &Reply) -> String {
    let mut head =
        format!("HTTP/1.1 {} Scripted\r\nconnection: close\r\ntransfer-encoding: chunked\r\n", reply.status);
    for (name, value) in &reply.headers {
        // Writing to a string cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// A whole request, or `None` where the client left before it was whole.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Recorded>> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > REQUEST_LIMIT {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut request_line = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or_default();
    let whole = head_end + 4 + length;
    while bytes.len() < whole {
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > REQUEST_LIMIT {
            return Ok(None);
        }
    }
    Ok(Some(Recorded {
        method: request_line.next().unwrap_or_default(),
        path: request_line.next().unwrap_or_default(),
        headers,
        body: serde_json::from_slice(&bytes[head_end + 4..whole]).unwrap_or_default(),
    }))
}
