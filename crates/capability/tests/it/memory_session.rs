//! A sandbox session in memory: files, and commands that say what a test scripted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mooring_capability::{ToolContext, ToolInput, ToolResult, capability};
use mooring_sandbox::{
    ArchiveReader, ArchiveWriter, BoxFuture, Cursor, ExecRequest, FileKind, FileStat, Isolation, Outcome,
    OutputChunk, OutputPiece, Process, SandboxError, SandboxSession, SessionState, Stream, TtySize,
    WriteOptions,
};
use serde_json::Value;

/// What a test finds at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File { data: Bytes, mode: u32 },
    Link(String),
    Directory,
}

/// The text of a file with the usual mode.
pub(crate) fn text(content: &str) -> Node {
    Node::File { data: Bytes::copy_from_slice(content.as_bytes()), mode: 0o644 }
}

/// Which mutation fails, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The sandbox goes away just before the nth mutation, counted from 0.
    GoneBefore(u64),
    /// It goes away just after it.
    GoneAfter(u64),
    /// The nth mutation is refused and the sandbox stays.
    Refused(u64),
}

#[derive(Debug, Default)]
pub(crate) struct MemorySession {
    pub(crate) nodes: Mutex<BTreeMap<String, Node>>,
    pub(crate) fault: Option<Fault>,
    /// A link to a directory: what starts with the first is found at the second.
    pub(crate) linked: Option<(&'static str, &'static str)>,
    mutations: AtomicU64,
    /// The number of the mutation that wrote a file, as its time.
    written: Mutex<BTreeMap<String, i64>>,
    /// The next commands to be spawned.
    pub(crate) scripts: Mutex<VecDeque<Arc<Script>>>,
    /// What was asked for.
    pub(crate) requests: Mutex<Vec<ExecRequest>>,
    spawned: AtomicU64,
}

impl MemorySession {
    pub(crate) fn with(files: impl IntoIterator<Item = (&'static str, Node)>) -> Self {
        let nodes = files.into_iter().map(|(path, node)| (path.to_owned(), node)).collect();
        Self { nodes: Mutex::new(nodes), ..Self::default() }
    }

    /// The same with a link to a directory, which the session follows.
    pub(crate) fn linked(mut self, link: &'static str, to: &'static str) -> Self {
        self.nodes.get_mut().unwrap().insert(link.to_owned(), Node::Link(to.to_owned()));
        self.linked = Some((link, to));
        self
    }

    /// The same with a mutation that fails.
    pub(crate) fn failing(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    pub(crate) fn tree(&self) -> BTreeMap<String, Node> {
        self.nodes.lock().unwrap().clone()
    }

    fn resolve(&self, path: &str) -> String {
        let through = self.linked.and_then(|(link, to)| Some(format!("{to}{}", path.strip_prefix(link)?)));
        through.unwrap_or_else(|| path.to_owned())
    }

    pub(crate) fn mutations(&self) -> u64 {
        self.mutations.load(Ordering::SeqCst)
    }

    fn mutate<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, Node>) -> Result<T, SandboxError>,
    ) -> Result<T, SandboxError> {
        let nth = self.mutations.fetch_add(1, Ordering::SeqCst);
        let gone = || SandboxError::Gone { session: "memory".into(), reason: "the test ended it".into() };
        match self.fault {
            Some(Fault::GoneBefore(at)) if nth >= at => Err(gone()),
            Some(Fault::GoneAfter(at)) if nth > at => Err(gone()),
            Some(Fault::GoneAfter(at)) if nth == at => {
                change(&mut self.nodes.lock().unwrap()).and(Err(gone()))
            }
            Some(Fault::Refused(at)) if nth == at => Err(SandboxError::File {
                operation: "write",
                path: "it".into(),
                reason: "no space left".into(),
            }),
            _ => change(&mut self.nodes.lock().unwrap()),
        }
    }
}

fn not_found(path: &str) -> SandboxError {
    SandboxError::NotFound { path: path.to_owned() }
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

impl SandboxSession for MemorySession {
    fn id(&self) -> &'static str {
        "memory"
    }

    fn root(&self) -> &'static str {
        "/ws"
    }

    fn state(&self) -> SessionState {
        unreachable!("no tool asks")
    }

    fn isolation(&self) -> Option<Isolation> {
        None
    }

    fn start(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async { Ok(()) })
    }

    fn spawn(&self, request: ExecRequest) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        Box::pin(async move {
            let command = format!("{:?}", request.command);
            self.requests.lock().unwrap().push(request);
            let Some(script) = self.scripts.lock().unwrap().pop_front() else {
                return Err(SandboxError::Start { command, reason: "no such program".into() });
            };
            let id = self.spawned.fetch_add(1, Ordering::SeqCst) + 1;
            let process: Arc<dyn Process> = Arc::new(ScriptedProcess { id, script });
            Ok(process)
        })
    }

    fn read<'a>(&'a self, path: &'a str, max_bytes: u64) -> BoxFuture<'a, Result<Bytes, SandboxError>> {
        Box::pin(async move {
            match self.nodes.lock().unwrap().get(&self.resolve(path)) {
                Some(Node::File { data, .. }) if data.len() as u64 <= max_bytes => Ok(data.clone()),
                Some(Node::Link(target)) => {
                    Err(SandboxError::PathEscape { path: path.into(), reason: format!("a link to {target}") })
                }
                Some(_) => Err(SandboxError::File {
                    operation: "read",
                    path: path.into(),
                    reason: "too large".into(),
                }),
                None => Err(not_found(path)),
            }
        })
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: Bytes,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async move {
            self.mutate(|nodes| {
                let path = &self.resolve(path);
                let old = match nodes.get(path) {
                    Some(_) if options.create_new => {
                        return Err(SandboxError::AlreadyExists { path: path.to_owned() });
                    }
                    Some(Node::File { mode, .. }) => *mode,
                    _ => 0o644,
                };
                nodes.insert(path.to_owned(), Node::File { data, mode: options.mode.unwrap_or(old) });
                self.written.lock().unwrap().insert(path.to_owned(), self.mutations() as i64);
                Ok(())
            })
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async move {
            self.mutate(|nodes| {
                let node = nodes.remove(from).ok_or_else(|| not_found(from))?;
                nodes.insert(to.to_owned(), node);
                Ok(())
            })
        })
    }

    fn list<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        Box::pin(async move {
            let directory = if path == "." { String::new() } else { self.resolve(path) + "/" };
            let below = |node: &String| {
                node.strip_prefix(&directory).map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            };
            let names: BTreeSet<String> = self.nodes.lock().unwrap().keys().filter_map(below).collect();
            if names.is_empty() && path != "." {
                return Err(not_found(path));
            }
            let mut entries = Vec::new();
            for name in names {
                let stat = self.stat(&format!("{directory}{name}")).await?;
                entries.push(FileStat { name, ..stat });
            }
            Ok(entries)
        })
    }

    fn mkdir<'a>(&'a self, _path: &'a str, _parents: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        unreachable!("no tool asks")
    }

    fn remove<'a>(&'a self, path: &'a str, _recursive: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async move {
            self.mutate(|nodes| nodes.remove(&self.resolve(path)).map(|_| ()).ok_or_else(|| not_found(path)))
        })
    }

    fn stat<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileStat, SandboxError>> {
        Box::pin(async move {
            let nodes = self.nodes.lock().unwrap();
            let itself = nodes.get(path).filter(|node| matches!(node, Node::Link(_)));
            let (kind, size, mode, target) = match itself.or_else(|| nodes.get(&self.resolve(path))) {
                Some(Node::File { data, mode }) => (FileKind::File, data.len() as u64, *mode, None),
                Some(Node::Link(target)) => (FileKind::Symlink, 0, 0o777, Some(target.clone())),
                Some(Node::Directory) => (FileKind::Directory, 0, 0o755, None),
                None if nodes.keys().any(|other| is_below(other, &self.resolve(path))) => {
                    (FileKind::Directory, 0, 0o755, None)
                }
                None => return Err(not_found(path)),
            };
            let modified_ns = self.written.lock().unwrap().get(path).copied().unwrap_or(0);
            let (user, group) = (String::new(), String::new());
            Ok(FileStat {
                name: path.to_owned(),
                kind,
                size,
                mode,
                uid: 0,
                gid: 0,
                user,
                group,
                modified_ns,
                target,
            })
        })
    }

    fn unpack<'a>(&'a self, _: &'a str, _: ArchiveReader) -> BoxFuture<'a, Result<(), SandboxError>> {
        unreachable!("no tool asks")
    }

    fn persist<'a>(&'a self, _: ArchiveWriter, _: &'a [String]) -> BoxFuture<'a, Result<(), SandboxError>> {
        unreachable!("no tool asks")
    }

    fn restore(&self, _: ArchiveReader) -> BoxFuture<'_, Result<(), SandboxError>> {
        unreachable!("no tool asks")
    }
}

/// What a command writes and when, and how it ends. Time is virtual in these tests.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Milliseconds since the test's start, the stream, the bytes.
    pub(crate) output: Vec<(u64, Stream, Vec<u8>)>,
    /// So many bytes at the start were dropped before anybody read.
    pub(crate) dropped: u64,
    /// When it ends, and how.
    pub(crate) end: Option<(u64, Outcome)>,
    /// Reading fails from then on.
    pub(crate) gone: bool,
    /// What was typed.
    pub(crate) typed: Mutex<Vec<u8>>,
    pub(crate) stdin_closed: bool,
    pub(crate) released: std::sync::atomic::AtomicBool,
}

impl Script {
    pub(crate) fn new(output: impl IntoIterator<Item = (u64, Stream, &'static [u8])>) -> Self {
        let output = output.into_iter().map(|(at, stream, data)| (at, stream, data.to_vec())).collect();
        Self { output, ..Self::default() }
    }

    pub(crate) fn ends(mut self, at: u64, outcome: Outcome) -> Self {
        self.end = Some((at, outcome));
        self
    }
}

#[derive(Debug)]
struct ScriptedProcess {
    id: u64,
    script: Arc<Script>,
}

/// Virtual milliseconds since the first call in this thread.
fn now() -> u64 {
    thread_local!(static START: tokio::time::Instant = tokio::time::Instant::now());
    START.with(tokio::time::Instant::elapsed).as_millis() as u64
}

impl Process for ScriptedProcess {
    fn id(&self) -> u64 {
        self.id
    }

    fn output(
        &self,
        after: Cursor,
        max_bytes: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<OutputChunk, SandboxError>> {
        Box::pin(async move {
            if self.script.gone {
                return Err(SandboxError::Gone {
                    session: "memory".into(),
                    reason: "the test ended it".into(),
                });
            }
            let until = now() + wait.as_millis() as u64;
            loop {
                let mut at = self.script.dropped;
                let mut pieces = Vec::new();
                let (mut room, mut all) = (max_bytes, true);
                for (when, stream, data) in &self.script.output {
                    let from = after.0.saturating_sub(at).min(data.len() as u64) as usize;
                    let data = &data[from..];
                    at += from as u64;
                    if *when > now() {
                        break;
                    }
                    let taken = &data[..data.len().min(room)];
                    all &= taken.len() == data.len();
                    room -= taken.len();
                    if !taken.is_empty() {
                        pieces.push(OutputPiece {
                            at: Cursor(at),
                            stream: *stream,
                            data: Bytes::copy_from_slice(taken),
                        });
                    }
                    at += data.len() as u64;
                }
                let next = pieces.last().map_or(after, |piece| Cursor(piece.at.0 + piece.data.len() as u64));
                let outcome =
                    self.script.end.filter(|(when, _)| *when <= now() && all).map(|(_, outcome)| outcome);
                if !pieces.is_empty() || outcome.is_some() || now() >= until {
                    return Ok(OutputChunk { pieces, next, outcome });
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }

    fn write_stdin(&self, data: Bytes) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async move {
            if self.script.stdin_closed {
                return Err(SandboxError::Invalid { reason: "standard input is not open".into() });
            }
            self.script.typed.lock().unwrap().extend_from_slice(&data);
            Ok(())
        })
    }

    fn close_stdin(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        unreachable!("no tool asks")
    }

    fn resize(&self, _: TtySize) -> BoxFuture<'_, Result<(), SandboxError>> {
        unreachable!("no tool asks")
    }

    fn signal(&self, _: i32) -> BoxFuture<'_, Result<(), SandboxError>> {
        unreachable!("no tool asks")
    }

    fn cancel(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        unreachable!("no tool asks")
    }

    fn release(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        self.script.released.store(true, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

/// A context for one call.
pub(crate) fn context(session: &Arc<MemorySession>, key: &str) -> ToolContext {
    let session = Arc::clone(session);
    ToolContext { session, key: key.to_owned(), progress: Arc::new(|_| {}) }
}

/// `prepare` and `call` of a tool of a new capability, as the harness does them.
pub(crate) async fn run(session: &Arc<MemorySession>, name: &str, input: ToolInput) -> (Value, ToolResult) {
    let capability = capability("filesystem").unwrap();
    let tool = capability.tools.iter().find(|tool| tool.spec().name == name).unwrap();
    let context = context(session, "call_1");
    match tool.prepare(&context, &input).await {
        Ok(prepared) => {
            let result = tool.call(&context, &input, &prepared).await;
            (prepared, result)
        }
        Err(refusal) => (Value::Null, refusal),
    }
}

/// A patch in a session, and the text that the model gets.
pub(crate) async fn patch(session: &Arc<MemorySession>, patch: &str) -> ToolResult {
    run(session, "apply_patch", ToolInput::Text(patch.to_owned())).await.1
}
