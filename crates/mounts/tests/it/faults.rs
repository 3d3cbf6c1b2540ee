//! Storage that changes, fails, and says nothing.

use std::io::Write as _;
use std::time::Duration;

use mooring_sandbox::{ExecRequest, Outcome, SandboxSession};

use crate::storage::{Place, Server, run, say};

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// Until what is known of names is no longer taken for true.
async fn wait(session: &dyn SandboxSession, command: &str, expected: &str) {
    let mut last = String::new();
    for _ in 0..100 {
        last = run(session, command).await.1;
        if last.contains(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{command}: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_as_it_was_opened_or_not_at_all() {
    let server = Server::start("s3");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), vec![b'a'; 6 << 20]).unwrap();
    server.client("bucket", folder.path(), &[]);
    let place = Place::new();
    let session = place.sandbox(server.manifest("bucket")).await.unwrap();
    // Opened, and read in part; then it is another.
    let half = "exec 3< data/f; head -c 1000 <&3 >/dev/null; touch opened; while [ ! -e changed ]; do sleep 0.05; done; \
                tail -c 1000 <&3 | tr -d ab | wc -c; tail -c 1000 <&3 | tr -cd b | wc -c";
    let reading = run(session.as_ref(), half);
    let changing = async {
        wait(session.as_ref(), "ls", "opened").await;
        let new = file(&vec![b'b'; 6 << 20]);
        server.client("bucket", folder.path(), &["put", "f", new.path().to_str().unwrap()]);
        say(session.as_ref(), "touch changed").await;
    };
    let ((_, text), ()) = tokio::join!(reading, changing);
    assert!(text.contains("Stale file handle"), "{text}");
    // Who opens it now reads the new one, and what is gone is gone.
    wait(session.as_ref(), "head -c 3 data/f", "bbb").await;
    server.client("bucket", folder.path(), &["delete", "f"]);
    wait(session.as_ref(), "cat data/f", "No such file").await;
    session.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_gone_is_an_error_in_time_and_no_hang() {
    let server = Server::start("s3");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "f\n").unwrap();
    server.client("bucket", folder.path(), &[]);
    let place = Place::new();
    let session = place.sandbox(server.manifest("bucket")).await.unwrap();
    assert_eq!(say(session.as_ref(), "cat data/f").await, "f\n");
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    drop(server);
    // Takes connections, and never says a word.
    let hole = std::net::TcpListener::bind(&address).unwrap();
    let (outcome, text) = run(session.as_ref(), "cat data/other").await;
    assert_eq!(outcome, Outcome::Exited { code: 1 }, "{text}");
    assert!(text.contains("Connection timed out") || text.contains("Input/output error"), "{text}");
    drop(hole);
    // The sandbox goes on, and ends.
    assert_eq!(say(session.as_ref(), "echo alive").await, "alive\n");
    session.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_ends_while_somebody_reads() {
    let server = Server::start("s3");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), vec![b'a'; 4 << 20]).unwrap();
    server.client("bucket", folder.path(), &[]);
    let place = Place::new();
    let session = place.sandbox(server.manifest("bucket")).await.unwrap();
    let endless = ExecRequest::shell("touch begun; while :; do cat data/f > /dev/null; done");
    let stopping = async {
        wait(session.as_ref(), "ls", "begun").await;
        session.stop().await.unwrap();
    };
    let (ended, ()) = tokio::join!(session.exec(endless), stopping);
    // It was told one way or the other; that it was told is what counts.
    drop(ended);
}
