//! Sandboxes that live on between clients.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mooring_manifest::Manifest;
use mooring_sandbox::{
    CreateRequest, Cursor, ExecRequest, Outcome, Process, SandboxClient as _, SandboxError, SandboxSession,
    Stdin, TtySize,
};
use mooring_sandbox_local::{Limits, LocalOptions, LocalSandboxClient};

use crate::setup::{SOON, running, unique, until};

const ID: &str = "lives-on";

/// A client of its own, as another process would have it.
fn client(state: &Path, grace: Duration) -> LocalSandboxClient {
    LocalSandboxClient::new(LocalOptions { linger: Some(grace), ..LocalOptions::new(state) })
}

async fn session(client: &LocalSandboxClient) -> Arc<dyn SandboxSession> {
    let request = CreateRequest { session_id: ID.into(), manifest: Manifest::default(), workspace: None };
    let session = client.create(request).await.unwrap();
    session.start().await.unwrap();
    session
}

async fn out(session: &dyn SandboxSession, line: &str) -> String {
    session.exec(ExecRequest::shell(line).timeout(SOON)).await.unwrap().stdout.text()
}

/// Reads until `end` has come; gives the text and where to read on.
async fn read_until(process: &dyn Process, mut cursor: Cursor, end: &str) -> (String, Cursor) {
    let mut text = String::new();
    while !text.contains(end) {
        let chunk = process.output(cursor, 1 << 16, SOON).await.unwrap();
        assert!(!chunk.pieces.is_empty(), "it ended before {end:?}: {text:?}");
        for piece in chunk.pieces {
            assert_eq!(piece.at, cursor, "something was dropped");
            cursor = Cursor(cursor.0 + piece.data.len() as u64);
            text += std::str::from_utf8(&piece.data).unwrap();
        }
    }
    (text, cursor)
}

/// Run by the test below in a process of its own, so that it can be killed.
#[tokio::test]
async fn helper_client() {
    let Ok(state) = std::env::var("MOORING_TEST_LINGERING") else { return };
    let client = client(Path::new(&state), SOON);
    let session = session(&client).await;
    let request = ExecRequest {
        tty: Some(TtySize::default()),
        stdin: Stdin::Open,
        ..ExecRequest::shell("stty -onlcr -echo; i=0; while true; do echo $((i++)); sleep 0.01; done")
    };
    let process = session.spawn(request).await.unwrap();
    let (_, cursor) = read_until(process.as_ref(), Cursor(0), "\n3\n").await;
    std::fs::write(Path::new(&state).join("seen"), format!("{} {}", process.id(), cursor.0)).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_client_that_comes_back_after_a_crash_has_lost_nothing() {
    let state = tempfile::tempdir().unwrap();
    let mut first = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lingering::helper_client"])
        .env("MOORING_TEST_LINGERING", state.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let seen = state.path().join("seen");
    until("it has seen some output", || std::fs::read_to_string(&seen).is_ok_and(|text| text.contains(' ')))
        .await;
    first.kill().unwrap();
    first.wait().unwrap();
    let seen = std::fs::read_to_string(&seen).unwrap();
    let (number, cursor) = seen.split_once(' ').unwrap();

    let client = client(state.path(), SOON);
    let session = session(&client).await;
    let process = session.process(number.parse().unwrap()).await.unwrap();
    let (_, end) = read_until(process.as_ref(), Cursor(cursor.parse().unwrap()), "\n").await;
    let (all, _) = read_until(process.as_ref(), Cursor(0), "\n40\n").await;
    let expected: String = (0..=40).map(|number: u32| number.to_string() + "\n").collect();
    assert!(all.starts_with(&expected), "{all}");
    assert!(end.0 > cursor.parse().unwrap());
    // It is a terminal still, and takes a Ctrl-C.
    process.write_stdin("\u{3}".into()).await.unwrap();
    let ended = mooring_sandbox::collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Signalled { signal: libc::SIGINT });
    let unknown = session.process(4711).await.unwrap_err();
    assert_eq!(unknown.to_string(), "invalid request: no process 4711: it was released");
    session.stop().await.unwrap();
}

#[tokio::test]
async fn it_ends_by_itself_when_nobody_comes() {
    let state = tempfile::tempdir().unwrap();
    let mark = unique("mark");
    let client = client(state.path(), Duration::from_secs(4));
    let first = session(&client).await;
    let process = first.spawn(ExecRequest::shell(format!("exec -a {mark} sleep 1000"))).await.unwrap();
    let namespace = out(first.as_ref(), "readlink /proc/self/ns/pid").await;
    drop((first, process));
    let again = session(&client).await;
    assert_eq!(out(again.as_ref(), "readlink /proc/self/ns/pid").await, namespace, "it waited");
    assert_eq!(running(&mark), 1);
    drop(again);
    until("all of it is gone", || running(&mark) == 0).await;
    let folder = state.path().join("sandboxes").join(ID);
    until("its door too", || !folder.join("supervisor.sock").exists()).await;
    let later = session(&client).await;
    assert_ne!(out(later.as_ref(), "readlink /proc/self/ns/pid").await, namespace);
    later.stop().await.unwrap();
}

#[tokio::test]
async fn clients_at_the_same_time_share_one_sandbox_and_do_not_disturb_each_other() {
    let state = tempfile::tempdir().unwrap();
    let clients: Vec<_> = (0..4).map(|_| client(state.path(), SOON)).collect();
    // All at once: one of them starts it.
    let sessions = futures::future::join_all(clients.iter().map(session)).await;
    let namespaces = futures::future::join_all(
        sessions.iter().map(|session| out(session.as_ref(), "readlink /proc/self/ns/pid")),
    )
    .await;
    assert!(namespaces.iter().all(|namespace| *namespace == namespaces[0]), "{namespaces:?}");
    assert_eq!(sessions[0].isolation(), sessions[3].isolation());

    // Nonsense ends the client that speaks it, and nobody else.
    let door = state.path().join("sandboxes").join(ID).join("supervisor.sock");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&door), mode(door.parent().unwrap())), (0o600, 0o700));
    let mut stranger = UnixStream::connect(&door).unwrap();
    stranger.write_all(&[255; 64]).unwrap();
    drop(stranger);
    let mut sessions = sessions;
    let leaving = sessions.pop().unwrap();
    let [first, second, _] = &sessions[..] else { unreachable!() };
    let processes = "ls /proc | grep -c '^[0-9]'";
    let before = out(first.as_ref(), processes).await;
    let waiting = out(first.as_ref(), "sleep 0.2; echo waited");
    let other = async {
        // One that goes in the middle of an archive.
        let unpacking =
            tokio::time::timeout(Duration::from_millis(50), leaving.unpack(".", Box::pin(Never))).await;
        assert!(unpacking.is_err());
        drop(leaving);
        out(second.as_ref(), "echo other").await
    };
    assert_eq!(tokio::join!(waiting, other), ("waited\n".into(), "other\n".into()));
    let give_up = tokio::time::Instant::now() + SOON;
    while out(first.as_ref(), processes).await != before {
        assert!(
            tokio::time::Instant::now() < give_up,
            "what was started for a client that left is still there"
        );
    }

    let refused = LocalSandboxClient::new(LocalOptions {
        limits: Limits { pids: Some(50), ..Limits::default() },
        linger: Some(SOON),
        ..LocalOptions::new(state.path())
    });
    let request = CreateRequest { session_id: ID.into(), manifest: Manifest::default(), workspace: None };
    let error = refused.create(request).await.unwrap().start().await.unwrap_err();
    assert!(matches!(&error, SandboxError::Invalid { reason } if reason.contains("other limits")), "{error}");

    // Ended by one, it is over for all.
    first.stop().await.unwrap();
    let lost = second.exec(ExecRequest::argv(["true"])).await.unwrap_err();
    assert!(lost.session_lost(), "{lost}");
}

/// An archive that never comes.
struct Never;

impl tokio::io::AsyncRead for Never {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn deleting_ends_what_another_process_started() {
    let state = tempfile::tempdir().unwrap();
    let mark = unique("mark");
    let starter = client(state.path(), SOON);
    let session = session(&starter).await;
    let _process = session.spawn(ExecRequest::shell(format!("exec -a {mark} sleep 1000"))).await.unwrap();
    let other = client(state.path(), SOON);
    other.delete(&session.state()).await.unwrap();
    assert_eq!(running(&mark), 0, "nothing is left when it returns");
    assert!(!state.path().join("sandboxes").join(ID).exists());
}

#[tokio::test]
async fn a_workspace_that_holds_the_state_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let request = CreateRequest {
        session_id: ID.into(),
        manifest: Manifest::default(),
        workspace: Some(folder.path().to_owned()),
    };
    let error = client(&state, SOON).create(request).await.unwrap_err();
    assert!(error.to_string().contains("holds the state directory"), "{error}");
}
