//! Exposed ports, and the one way out, where a backend has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mooring_manifest::Manifest;
use mooring_sandbox::{
    BoxFuture, ByteStream, EgressHandler, ExecRequest, ExposedPort, SandboxError, SandboxSession,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::{Bench, SOON, exited};

/// Says a word to the way out and tells the answer, with what the shell has.
const THROUGH: &str = "if [ -n \"$BASH_VERSION\" ]; then exec 3<>/dev/tcp/127.0.0.1/3128 && echo hello >&3 && head -n 1 <&3; \
                       else echo hello | nc 127.0.0.1 3128; fi";

/// Gives back what it gets, on one connection.
const SERVER: &str = "if command -v python3 >/dev/null; then exec python3 -c \"
import socket
c, _ = socket.create_server(('127.0.0.1', 45917)).accept()
while True:
  b = c.recv(1 << 16)
  if not b: break
  c.sendall(b)\"; fi; exec nc -l -p 45917 -e cat";

pub(crate) async fn a_server_inside_is_reached_and_no_other(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let Some(ports) = sandbox.session.ports() else { return bench.left_out("it has no way in") };
    let nobody = ports.connect(45917).await.err().unwrap();
    assert!(matches!(nobody, SandboxError::Port { port: 45917, .. }), "{nobody}");
    // This host's own servers are not the sandbox's.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = listener.local_addr().unwrap().port();
    assert!(matches!(ports.connect(ours).await.err().unwrap(), SandboxError::Port { .. }));

    let _server = sandbox.session.spawn(ExecRequest::shell(SERVER)).await.unwrap();
    let give_up = tokio::time::Instant::now() + SOON;
    let mut stream = loop {
        match ports.connect(45917).await {
            Ok(stream) => break stream,
            Err(error) => assert!(tokio::time::Instant::now() < give_up, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let reading = tokio::time::timeout(SOON, read.read_to_end(&mut back));
    let ((), read) = tokio::join!(writing, reading);
    read.unwrap().unwrap();
    assert!(back == sent, "{} bytes of {} came back", back.len(), sent.len());
}

pub(crate) async fn an_exposed_port_is_at_this_machines_loopback_address(bench: &Bench) {
    if !bench.client.support().ports {
        return bench.left_out("it has no way in");
    }
    let manifest = Manifest::from_json(r#"{"x-mooring": {"ports": [45917]}}"#).unwrap();
    let sandbox = bench.with_manifest(manifest).await;
    let port = ExposedPort::open(&sandbox.session, 45917, None).await.unwrap();
    // The number is taken now, and another one is found.
    let second = ExposedPort::open(&sandbox.session, 45917, None).await.unwrap();
    assert_eq!((port.inside(), second.inside()), (45917, 45917));
    assert_ne!(port.address(), second.address());
    let taken = ExposedPort::open(&sandbox.session, 45917, Some(port.address().port())).await.unwrap_err();
    assert!(matches!(taken, SandboxError::Port { port: 45917, .. }), "{taken}");
    // Nobody listens inside: so says the connection.
    let early = async { TcpStream::connect(port.address()).await?.read(&mut [0]).await };
    let nobody = tokio::time::timeout(SOON, early).await.unwrap();
    assert_eq!(nobody.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);

    let _server = sandbox.session.spawn(ExecRequest::shell(SERVER)).await.unwrap();
    let give_up = tokio::time::Instant::now() + SOON;
    let ask = async || {
        let mut stream = TcpStream::connect(second.address()).await?;
        stream.write_all(b"heard").await?;
        stream.shutdown().await?;
        let mut back = String::new();
        stream.read_to_string(&mut back).await.map(|_| back)
    };
    let back = loop {
        match tokio::time::timeout(SOON, ask()).await.unwrap() {
            Ok(back) => break back,
            Err(error) => assert!(tokio::time::Instant::now() < give_up, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(back, "heard");
    let address = port.address();
    port.close().await;
    assert!(TcpStream::connect(address).await.is_err(), "it is closed");
    // It keeps no sandbox alive.
    let session: std::sync::Weak<dyn SandboxSession> = Arc::downgrade(&sandbox.session);
    drop(sandbox);
    assert!(session.upgrade().is_none());
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
            // The other end may be gone before all is said.
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
    }
}

pub(crate) async fn there_is_no_way_out_unless_one_is_served(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let Some(egress) = sandbox.session.egress() else { return bench.left_out("it offers no way out") };
    assert_ne!(sandbox.sh(THROUGH).await.stdout.text(), "hello\n");
    let echo = Arc::new(Echo::default());
    egress.serve(echo.clone()).await.unwrap();
    assert_eq!(sandbox.out(THROUGH).await, "hello\n");
    // It stays the way out when the session comes back.
    sandbox.session.stop().await.unwrap();
    sandbox.session.start().await.unwrap();
    assert_eq!(sandbox.out(THROUGH).await, "hello\n");
    assert_eq!(echo.connections.load(Ordering::Relaxed), 2);
    // And it is no way to anywhere else: there is still no network.
    assert_eq!(sandbox.out("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo\n");
    assert_eq!(sandbox.sh("true").await.outcome, exited(0));
}
