//! The way out of a sandbox that several clients are attached to.

use std::path::Path;
use std::sync::Arc;

use mooring_manifest::Manifest;
use mooring_sandbox::{
    BoxFuture, ByteStream, CreateRequest, EGRESS_PORT, Egress, EgressHandler, ExecRequest,
    SandboxClient as _, SandboxSession, Stdin,
};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::setup::{SOON, until};

/// Answers each line with its name.
#[derive(Debug)]
struct Says(&'static str);

impl EgressHandler for Says {
    fn connection(&self, stream: ByteStream) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
                if stream.get_mut().write_all(format!("{}\n", self.0).as_bytes()).await.is_err() {
                    return;
                }
            }
        })
    }
}

/// A client of its own, as another process would have it, which serves the way out.
async fn attach(state: &Path, name: &'static str) -> Arc<dyn SandboxSession> {
    let client = LocalSandboxClient::new(LocalOptions { linger: Some(SOON), ..LocalOptions::new(state) });
    let request = CreateRequest { session_id: "one".into(), manifest: Manifest::default(), workspace: None };
    let session = client.create(request).await.unwrap();
    session.egress().unwrap().serve(Arc::new(Says(name))).await.unwrap();
    session.start().await.unwrap();
    session
}

/// Who answers at an address inside, asked so often by as many connections at one time.
async fn ask(session: &dyn SandboxSession, address: &str, times: usize) -> String {
    let program = format!(
        "import socket\nall = [socket.create_connection(('{address}', {EGRESS_PORT}), 10) for _ in range({times})]\n\
         for s in all: s.sendall(b'who\\n')\n\
         print(' '.join(s.makefile().readline().strip() for s in all), end='')"
    );
    let request = ExecRequest::argv(["/usr/bin/python3", "-c", &program]).timeout(SOON);
    session.exec(request).await.unwrap().stdout.text()
}

fn address(session: &dyn SandboxSession) -> String {
    session.egress().map(Egress::address).unwrap().to_string()
}

#[tokio::test]
async fn each_client_serves_its_own_commands_and_whoever_is_there_serves_the_others() {
    let state = tempfile::tempdir().unwrap();
    let first = attach(state.path(), "first").await;
    let second = attach(state.path(), "second").await;
    let (of_first, of_second) = (address(first.as_ref()), address(second.as_ref()));
    assert_eq!((of_first.as_str(), of_second.as_str()), ("127.0.0.1", "127.0.0.2"));
    // More at one time than a client asks for at once.
    assert_eq!(ask(second.as_ref(), &of_second, 20).await, ["second"; 20].join(" "));
    assert_eq!(ask(second.as_ref(), &of_first, 20).await, ["first"; 20].join(" "));
    // An address that is nobody's is anybody's.
    assert_eq!(ask(second.as_ref(), "127.0.0.99", 1).await, "first");

    // A connection of the second's own outlives the first.
    let program = format!(
        "import socket,sys\ns = socket.create_connection(('{of_second}', {EGRESS_PORT}), 10)\nf = s.makefile()\n\
         for line in sys.stdin: s.sendall(b'who\\n'); print(f.readline(), end='', flush=True)"
    );
    let request =
        ExecRequest { stdin: Stdin::Open, ..ExecRequest::argv(["/usr/bin/python3", "-c", &program]) };
    let process = second.spawn(request).await.unwrap();
    process.write_stdin("\n".into()).await.unwrap();
    let chunk = process.output(mooring_sandbox::Cursor(0), 100, SOON).await.unwrap();
    assert_eq!(chunk.pieces[0].data.as_ref(), b"second\n");
    drop(first);
    process.write_stdin("\n".into()).await.unwrap();
    process.close_stdin().await.unwrap();
    let all = mooring_sandbox::collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(all.stdout.text(), "second\nsecond\n");

    // What the first left in the background is served by the second now, and by the next once that has gone too.
    assert_eq!(ask(second.as_ref(), &of_first, 3).await, "second second second");
    let waiting = format!(
        "until [ -e go ]; do sleep 0.02; done; exec 3<>/dev/tcp/{of_second}/{EGRESS_PORT} && echo who >&3 && head -n 1 \
         <&3 > said"
    );
    second.spawn(ExecRequest::argv(["/bin/bash", "-c", &waiting])).await.unwrap();
    drop((second, process));
    let third = attach(state.path(), "third").await;
    third.write("go", bytes::Bytes::new(), mooring_sandbox::WriteOptions::default()).await.unwrap();
    let said = state.path().join("sandboxes/one/workspace/said");
    until("it was answered", || std::fs::read_to_string(&said).is_ok_and(|said| said == "third\n")).await;
    third.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_client_that_serves_it_there_is_no_way_out() {
    let state = tempfile::tempdir().unwrap();
    drop(attach(state.path(), "gone").await);
    let client =
        LocalSandboxClient::new(LocalOptions { linger: Some(SOON), ..LocalOptions::new(state.path()) });
    let request = CreateRequest { session_id: "one".into(), manifest: Manifest::default(), workspace: None };
    let session = client.create(request).await.unwrap();
    session.start().await.unwrap();
    let program = format!("import socket; socket.create_connection(('127.0.0.1', {EGRESS_PORT}), 10)");
    let refused = session.exec(ExecRequest::argv(["/usr/bin/python3", "-c", &program])).await.unwrap();
    assert!(refused.stderr.text().contains("Connection refused"), "{}", refused.stderr.text());
    session.stop().await.unwrap();
}
