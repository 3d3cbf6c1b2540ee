//! The session of a run without a sandbox: every operation says that there is none.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    ArchiveReader, ArchiveWriter, BoxFuture, ExecRequest, FileStat, Isolation, Process, SandboxError,
    SandboxSession, SessionState, WriteOptions,
};

/// No sandbox. For runs whose tools need none.
#[derive(Debug, Clone, Copy)]
pub struct NoSandbox;

fn refuse<'a, T: Send + 'a>(operation: &str) -> BoxFuture<'a, Result<T, SandboxError>> {
    let error = SandboxError::Unsupported {
        operation: operation.into(),
        backend: "none".into(),
        reason: "this run has no sandbox; give the agent a capability that needs one".into(),
    };
    Box::pin(std::future::ready(Err(error)))
}

impl SandboxSession for NoSandbox {
    fn id(&self) -> &'static str {
        "none"
    }

    fn root(&self) -> &'static str {
        "/"
    }

    fn state(&self) -> SessionState {
        SessionState { backend: "none".into(), session_id: "none".into(), data: serde_json::Value::Null }
    }

    fn isolation(&self) -> Option<Isolation> {
        None
    }

    fn start(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        refuse("start")
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn spawn(&self, _request: ExecRequest) -> BoxFuture<'_, Result<Arc<dyn Process>, SandboxError>> {
        refuse("running a command")
    }

    fn read<'a>(&'a self, _path: &'a str, _max_bytes: u64) -> BoxFuture<'a, Result<Bytes, SandboxError>> {
        refuse("reading a file")
    }

    fn write<'a>(
        &'a self,
        _path: &'a str,
        _data: Bytes,
        _options: WriteOptions,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        refuse("writing a file")
    }

    fn rename<'a>(&'a self, _from: &'a str, _to: &'a str) -> BoxFuture<'a, Result<(), SandboxError>> {
        refuse("renaming a file")
    }

    fn list<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, Result<Vec<FileStat>, SandboxError>> {
        refuse("listing a directory")
    }

    fn mkdir<'a>(&'a self, _path: &'a str, _parents: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        refuse("making a directory")
    }

    fn remove<'a>(&'a self, _path: &'a str, _recursive: bool) -> BoxFuture<'a, Result<(), SandboxError>> {
        refuse("removing a file")
    }

    fn stat<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, Result<FileStat, SandboxError>> {
        refuse("reading metadata")
    }

    fn unpack<'a>(
        &'a self,
        _path: &'a str,
        _archive: ArchiveReader,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        refuse("unpacking an archive")
    }

    fn persist<'a>(
        &'a self,
        _archive: ArchiveWriter,
        _without: &'a [String],
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        refuse("saving the workspace")
    }

    fn restore(&self, _archive: ArchiveReader) -> BoxFuture<'_, Result<(), SandboxError>> {
        refuse("restoring the workspace")
    }
}
