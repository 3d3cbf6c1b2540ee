//! Workspaces as archives.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use mooring_archive::{Meta, Writer};
use mooring_sandbox::{ArchiveReader, SandboxSession, WriteOptions};

use crate::bench::Bench;
use crate::files::kind_of;

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl tokio::io::AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub(crate) async fn persist(session: &dyn SandboxSession, without: &[&str]) -> Vec<u8> {
    let kept = Kept::default();
    let without: Vec<String> = without.iter().map(|path| (*path).into()).collect();
    session.persist(Box::pin(kept.clone()), &without).await.unwrap();
    std::mem::take(&mut *kept.0.lock().unwrap())
}

pub(crate) fn reader(bytes: Vec<u8>) -> ArchiveReader {
    Box::pin(std::io::Cursor::new(bytes))
}

pub(crate) fn tar(fill: impl FnOnce(&mut Writer<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    fill(&mut writer);
    writer.finish().unwrap();
    bytes
}

pub(crate) fn file(writer: &mut Writer<&mut Vec<u8>>, name: &str, group: &str) {
    let meta = Meta { mode: 0o640, mtime: 1_000_000_000, group, ..Meta::default() };
    writer.file(Path::new(name), meta, 4, &mut &b"text"[..]).unwrap();
}

pub(crate) async fn a_workspace_moves_to_another_session(bench: &Bench) {
    let one = bench.sandbox().await;
    one.out(
        "mkdir -p a/b empty; echo x > a/b/f; chmod 751 a/b/f; ln -s /usr/bin/python3 a/python; ln a/b/f hard; \
         head -c 3000000 /dev/urandom > big; sha256sum big > sum; mkdir closed; echo y > closed/z; chmod 000 closed; \
         mkdir cache; touch cache/c; touch -d @1000000000 hard; mkfifo fifo; truncate -s 1M holes",
    )
    .await;
    let archive = persist(one.session.as_ref(), &["cache"]).await;
    let two = bench.sandbox().await;
    two.out("mkdir -p old/er; touch old/er/file .hidden; chmod 000 old/er").await;
    two.session.restore(reader(archive.clone())).await.unwrap();
    assert_eq!(two.out("sha256sum -c sum").await, "big: OK\n");
    let closed = one.out("stat -c %Y closed").await;
    assert_eq!(
        two.out(
            "stat -c '%n %F %a %U %Y' hard a/b/f closed; stat -c '%F %b' holes; readlink a/python; stat -c %h hard; \
             ls -A"
        )
        .await,
        format!(
            "hard regular file 751 agent 1000000000\na/b/f regular file 751 agent 1000000000\n\
             closed directory 0 agent {closed}regular file 0\n/usr/bin/python3\n2\na\nbig\nclosed\nempty\nfifo\n\
             hard\nholes\nsum\n"
        )
    );
    assert_eq!(two.out("chmod 700 closed; cat closed/z").await, "y\n");
    // The same workspace is the same archive, on whichever session.
    one.out("rm -r cache").await;
    two.out("chmod 000 closed").await;
    assert!(persist(two.session.as_ref(), &[]).await == archive);
}

pub(crate) async fn an_archive_that_is_refused_leaves_the_workspace_as_it_was(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("echo kept > kept").await;
    let cut = {
        let whole = tar(|writer| file(writer, "x", ""));
        whole[..whole.len() - 1024].to_vec()
    };
    let nonsense = b"this is no archive, but it is long enough for a header".repeat(20);
    for (what, bytes) in [("cut", cut), ("nonsense", nonsense), ("empty", Vec::new())] {
        let refused = sandbox.session.restore(reader(bytes)).await.unwrap_err();
        assert_eq!(kind_of(&refused), "archive", "{what}: {refused}");
        assert_eq!(sandbox.out("ls -A; cat kept").await, "kept\nkept\n", "{what}");
    }
}

pub(crate) async fn unpacking_adds_below_a_directory(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("mkdir -p in; echo old > in/old").await;
    let archive = tar(|writer| file(writer, "deep/file", ""));
    sandbox.session.unpack("in", reader(archive.clone())).await.unwrap();
    assert_eq!(
        sandbox.out("cat in/old in/deep/file; stat -c '%a %U %Y' in/deep/file").await,
        "old\ntext640 agent 1000000000\n"
    );
    let missing = sandbox.session.unpack("nowhere", reader(archive.clone())).await.unwrap_err();
    assert_eq!(kind_of(&missing), "not found", "{missing}");
    sandbox.out("ln -s /tmp out").await;
    let escape = sandbox.session.unpack("out", reader(archive)).await.unwrap_err();
    assert_eq!(kind_of(&escape), "escape", "{escape}");
}

pub(crate) async fn ten_thousand_files_arrive(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let archive = tar(|writer| {
        (0..10_000).for_each(|number| file(writer, &format!("d{}/f{number}", number % 100), ""));
    });
    sandbox.session.unpack(".", reader(archive)).await.unwrap();
    assert_eq!(sandbox.out("find . -type f -size 4c | wc -l").await.trim(), "10000");
}

pub(crate) async fn a_reader_that_fails_is_told(bench: &Bench) {
    struct Failing;
    impl tokio::io::AsyncRead for Failing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Poll::Ready(Err(std::io::Error::other("the network is gone")))
        }
    }
    let sandbox = bench.sandbox().await;
    sandbox.out("echo kept > kept").await;
    let failed = sandbox.session.unpack(".", Box::pin(Failing)).await.unwrap_err();
    assert!(failed.to_string().contains("the network is gone"), "{failed}");
    let failed = sandbox.session.restore(Box::pin(Failing)).await.unwrap_err();
    assert!(failed.to_string().contains("the network is gone"), "{failed}");
    assert_eq!(sandbox.out("ls -A").await, "kept\n");
}

pub(crate) async fn a_writer_that_fails_is_told(bench: &Bench) {
    struct Full;
    impl tokio::io::AsyncWrite for Full {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Err(std::io::Error::other("the other disk is full")))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let sandbox = bench.sandbox().await;
    sandbox.out("head -c 20000000 /dev/zero > big").await;
    let failed = sandbox.session.persist(Box::pin(Full), &[]).await.unwrap_err();
    assert!(failed.to_string().contains("the other disk is full"), "{failed}");
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

pub(crate) async fn commands_go_on_while_an_archive_is_packed(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let big = Bytes::from(vec![7; 30 << 20]);
    sandbox.session.write("big", big, WriteOptions::default()).await.unwrap();
    let (archive, said) = tokio::join!(persist(sandbox.session.as_ref(), &[]), sandbox.out("echo beside"));
    assert!(archive.len() > 30 << 20);
    assert_eq!(said, "beside\n");
}
