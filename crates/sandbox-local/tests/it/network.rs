//! Exposed ports, and the one way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mooring_manifest::Manifest;
use mooring_sandbox::{
    BoxFuture, ByteStream, Cursor, EgressHandler, ExecRequest, Process, SandboxError, SandboxSession,
};
use mooring_sandbox_local::IsolationLevel;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::setup::{SOON, Sandbox, exited};

/// A server in the sandbox that serves one connection as `serve(c)` says, and says its port first.
async fn server(sandbox: &Sandbox, address: &str, serve: &str) -> (Arc<dyn Process>, u16) {
    let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
    let program = format!(
        "import socket,sys,hashlib\ns = socket.create_server(('{address}', 0), family=socket.{family})\n\
         print(s.getsockname()[1], flush=True)\nc, _ = s.accept()\n{serve}"
    );
    let process =
        sandbox.session.spawn(ExecRequest::argv(["/usr/bin/python3", "-c", &program])).await.unwrap();
    let first = process.output(Cursor(0), 100, SOON).await.unwrap();
    let text = String::from_utf8_lossy(&first.pieces[0].data).into_owned();
    (process, text.trim().parse().unwrap())
}

async fn connect(session: &dyn SandboxSession, port: u16) -> Result<ByteStream, SandboxError> {
    tokio::time::timeout(SOON, session.ports().unwrap().connect(port)).await.unwrap()
}

async fn read_all(stream: &mut ByteStream) -> Result<Vec<u8>, std::io::Error> {
    let mut bytes = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap().map(|_| bytes)
}

#[tokio::test]
async fn a_server_inside_is_reached_and_each_direction_ends_by_itself() {
    let sandbox = Sandbox::new().await;
    for address in ["127.0.0.1", "::1", "0.0.0.0"] {
        let serve = "data = b''\nwhile True:\n  b = c.recv(9)\n  if not b: break\n  data += b\nc.sendall(b'heard ' + data)";
        let (_server, port) = server(&sandbox, address, serve).await;
        let mut stream = connect(sandbox.session.as_ref(), port).await.unwrap();
        stream.write_all(b"one ").await.unwrap();
        stream.write_all(b"two").await.unwrap();
        // Only now does the server answer.
        stream.shutdown().await.unwrap();
        assert_eq!(read_all(&mut stream).await.unwrap(), b"heard one two", "{address}");
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_at_is_refused_by_name() {
    let sandbox = Sandbox::new().await;
    // The host's own servers are not the sandbox's.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = connect(sandbox.session.as_ref(), port).await.err().unwrap();
    assert_eq!(refused.to_string(), format!("port {port} in the sandbox: nothing listens there"));
}

#[tokio::test]
async fn much_data_arrives_whole_at_a_slow_readers_pace() {
    let sandbox = Sandbox::new().await;
    let size = 24 << 20;
    let serve = format!(
        "import threading\nh = hashlib.sha256()\ndef read():\n  while True:\n    b = c.recv(1 << 16)\n    if not b: break\n    \
         h.update(b)\nt = threading.Thread(target=read)\nt.start()\nc.sendall(b'0123456789abcdef' * {})\n\
         print('sent', flush=True)\nc.shutdown(socket.SHUT_WR)\nt.join()\nprint(h.hexdigest(), flush=True)",
        size / 16
    );
    let (server, port) = server(&sandbox, "127.0.0.1", &serve).await;
    let stream = connect(sandbox.session.as_ref(), port).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    // Nothing is read yet, so most of it must still be with the server; what goes the other way is not held up.
    let chunk = b"fedcba9876543210".repeat(4096);
    for _ in 0..(size / chunk.len()) {
        tokio::time::timeout(SOON, write.write_all(&chunk)).await.unwrap().unwrap();
    }
    write.shutdown().await.unwrap();
    let said = server.output(Cursor(0), 1000, Duration::ZERO).await.unwrap();
    assert!(!said.pieces.iter().any(|piece| piece.data.windows(4).any(|part| part == b"sent")), "{said:?}");
    let mut received = Vec::new();
    tokio::time::timeout(SOON, read.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received == b"0123456789abcdef".repeat(size / 16), "{} bytes", received.len());
    let result = mooring_sandbox::collect(server.as_ref(), Some(SOON)).await.unwrap();
    let expected = sandbox
        .out(&format!(
            "python3 -c \"import hashlib; print(hashlib.sha256(b'fedcba9876543210' * {}).hexdigest())\"",
            size / 16
        ))
        .await;
    assert!(result.stdout.text().ends_with(&expected), "{}", result.stdout.text());
}

#[tokio::test]
async fn a_dropped_stream_delivers_what_was_written_and_ends_the_connection() {
    let sandbox = Sandbox::new().await;
    let serve = "data = b''\nwhile len(data) < 200000:\n  b = c.recv(999)\n  if not b: break\n  data += b\nprint(len(data))\n\
                 print(c.recv(1))";
    let (server, port) = server(&sandbox, "127.0.0.1", serve).await;
    let mut stream = connect(sandbox.session.as_ref(), port).await.unwrap();
    stream.write_all(&vec![7; 200_000]).await.unwrap();
    drop(stream);
    let result = mooring_sandbox::collect(server.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(result.outcome, exited(0), "{}", result.stderr.text());
    assert!(result.stdout.text().ends_with("200000\nb''\n"), "{}", result.stdout.text());
}

#[tokio::test]
async fn a_lost_connection_is_an_error_and_not_an_end_of_file() {
    let sandbox = Sandbox::new().await;
    let reset = "import struct\nc.recv(1)\nc.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\nc.close()";
    let (_server, port) = server(&sandbox, "127.0.0.1", reset).await;
    let mut stream = connect(sandbox.session.as_ref(), port).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let error = read_all(&mut stream).await.unwrap_err();
    assert!(error.to_string().contains("connection was lost"), "{error}");

    let (_server, port) = server(&sandbox, "127.0.0.1", "c.recv(1)\nc.recv(1)").await;
    let mut stream = connect(sandbox.session.as_ref(), port).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    sandbox.session.stop().await.unwrap();
    let error = read_all(&mut stream).await.unwrap_err();
    assert!(error.to_string().contains("supervisor has ended"), "{error}");
}

/// Answers each connection with what it said, and counts.
#[derive(Debug, Default)]
struct Echo {
    connections: AtomicUsize,
}

impl EgressHandler for Echo {
    fn connection(&self, stream: ByteStream) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        })
    }
}

#[tokio::test]
async fn more_connections_than_are_served_at_once_get_their_turn() {
    let sandbox = Sandbox::new().await;
    sandbox.session.egress().unwrap().serve(Arc::new(Echo::default())).await.unwrap();
    let program = "import socket\ncs = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(300)]\n\
                   for i, c in enumerate(cs): c.sendall(b'%d\\n' % i)\n\
                   for c in cs: c.shutdown(socket.SHUT_WR)\n\
                   print([c.makefile().read().strip() for c in cs] == [str(i) for i in range(300)])";
    let request = ExecRequest::argv(["/usr/bin/python3", "-c", program]).timeout(SOON);
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(result.stdout.text(), "True\n", "{}", result.stderr.text());
}

#[tokio::test]
async fn a_port_that_the_sandbox_took_first_is_not_shared() {
    let sandbox = Sandbox::new().await;
    let program =
        "import socket\ns = socket.create_server(('127.0.0.1', 3128))\nprint(1, flush=True)\ns.accept()";
    let process =
        sandbox.session.spawn(ExecRequest::argv(["/usr/bin/python3", "-c", program])).await.unwrap();
    process.output(Cursor(0), 100, SOON).await.unwrap();
    let refused = sandbox.session.egress().unwrap().serve(Arc::new(Echo::default())).await.unwrap_err();
    assert_eq!(refused.to_string(), "port 3128 in the sandbox: something listens there already");
}

#[tokio::test]
async fn without_isolation_no_way_out_can_be_the_only_one() {
    let sandbox =
        Sandbox::with(|options| options.isolation = IsolationLevel::None, Manifest::default(), None).await;
    assert!(sandbox.session.egress().is_none());
    assert!(sandbox.session.ports().is_some());
}
