//! Workspaces as archives.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use mooring_archive::{Meta, Writer};
use mooring_manifest::{Group, Manifest, User};
use mooring_sandbox::{ArchiveReader, SandboxError, SandboxSession, WriteOptions};

use crate::setup::{Sandbox, is_root};

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

async fn persist(session: &dyn SandboxSession, without: &[&str]) -> Vec<u8> {
    let kept = Kept::default();
    let without: Vec<String> = without.iter().map(|path| (*path).into()).collect();
    session.persist(Box::pin(kept.clone()), &without).await.unwrap();
    Arc::into_inner(kept.0).unwrap().into_inner().unwrap()
}

fn reader(bytes: Vec<u8>) -> ArchiveReader {
    Box::pin(std::io::Cursor::new(bytes))
}

fn tar(fill: impl FnOnce(&mut Writer<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    fill(&mut writer);
    writer.finish().unwrap();
    bytes
}

fn file(writer: &mut Writer<&mut Vec<u8>>, name: &str, group: &str) {
    let meta = Meta { mode: 0o640, mtime: 1_000_000_000, group, ..Meta::default() };
    writer.file(name.as_ref(), meta, 4, &mut &b"text"[..]).unwrap();
}

#[tokio::test]
async fn a_workspace_moves_to_another_session() {
    let one = Sandbox::new().await;
    one.out(
        "mkdir -p a/b empty; echo x > a/b/f; chmod 751 a/b/f; ln -s /usr/bin/python3 a/python; ln a/b/f hard; \
         head -c 3000000 /dev/urandom > big; sha256sum big > sum; mkdir closed; echo y > closed/z; chmod 000 closed; \
         mkdir cache; touch cache/c; touch -d @1000000000.25 hard; mkfifo fifo; truncate -s 1M holes",
    )
    .await;
    let archive = persist(one.session.as_ref(), &["cache"]).await;
    let two = Sandbox::new().await;
    two.out("mkdir -p old/er; touch old/er/file .hidden; chmod 000 old/er").await;
    two.session.restore(reader(archive.clone())).await.unwrap();
    assert_eq!(two.out("sha256sum -c sum").await, "big: OK\n");
    assert_eq!(
        two.out("stat -c '%n %F %a %U %.2Y' hard a/b/f closed; stat -c '%F %b' holes; readlink a/python; stat -c %h hard; ls -A").await,
        "hard regular file 751 agent 1000000000.25\na/b/f regular file 751 agent 1000000000.25\n\
         closed directory 0 agent "
            .to_owned()
            + one.out("stat -c %.2Y closed").await.as_str()
            + "regular file 0\n/usr/bin/python3\n2\na\nbig\nclosed\nempty\nfifo\nhard\nholes\nsum\n"
    );
    assert_eq!(two.out("chmod 700 closed; cat closed/z").await, "y\n");
    // The same workspace is the same archive, on whichever session.
    one.out("rm -r cache").await;
    two.out("chmod 000 closed").await;
    assert!(persist(two.session.as_ref(), &[]).await == archive);
}

#[tokio::test]
async fn an_archive_that_is_refused_leaves_the_workspace_as_it_was() {
    let sandbox = Sandbox::new().await;
    sandbox.out("echo kept > kept").await;
    let cut = {
        let whole = tar(|writer| file(writer, "x", ""));
        whole[..whole.len() - 1024].to_vec()
    };
    let nonsense = b"this is no archive, but it is long enough for a header".repeat(20);
    for (what, bytes) in [("cut", cut), ("nonsense", nonsense), ("empty", Vec::new())] {
        let refused = sandbox.session.restore(reader(bytes)).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Archive { .. }), "{what}: {refused}");
        assert_eq!(sandbox.out("ls -A; cat kept").await, "kept\nkept\n", "{what}");
    }
}

#[tokio::test]
async fn unpacking_adds_below_a_directory() {
    let sandbox = Sandbox::new().await;
    sandbox.out("mkdir -p in; echo old > in/old").await;
    let archive = tar(|writer| file(writer, "deep/file", ""));
    sandbox.session.unpack("in", reader(archive.clone())).await.unwrap();
    assert_eq!(
        sandbox.out("cat in/old in/deep/file; stat -c '%a %U %Y' in/deep/file").await,
        "old\ntext640 agent 1000000000\n"
    );
    let missing = sandbox.session.unpack("nowhere", reader(archive.clone())).await.unwrap_err();
    assert!(matches!(missing, SandboxError::NotFound { .. }), "{missing}");
    sandbox.out("ln -s /tmp out").await;
    let escape = sandbox.session.unpack("out", reader(archive)).await.unwrap_err();
    assert!(matches!(escape, SandboxError::PathEscape { .. }), "{escape}");
}

#[tokio::test]
async fn no_member_leaves_the_workspace() {
    let sandbox = Sandbox::new().await;
    sandbox.out("ln -s /tmp out").await;
    for name in ["out/file", "../file", "/tmp/file"] {
        let refused =
            sandbox.session.unpack(".", reader(tar(|writer| file(writer, name, "")))).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Archive { .. }), "{name}: {refused}");
    }
    assert_eq!(sandbox.out("ls -A /tmp").await, "");
}

#[tokio::test]
async fn a_thousand_files_arrive() {
    let sandbox = Sandbox::new().await;
    let archive =
        tar(|writer| (0..1000).for_each(|number| file(writer, &format!("d{}/f{number}", number % 10), "")));
    sandbox.session.unpack(".", reader(archive)).await.unwrap();
    assert_eq!(sandbox.out("find . -type f -size 4c | wc -l").await, "1000\n");
}

#[tokio::test]
async fn a_reader_that_fails_is_told_and_leaves_nothing_running() {
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
    let sandbox = Sandbox::new().await;
    let failed = sandbox.session.unpack(".", Box::pin(Failing)).await.unwrap_err();
    assert!(failed.to_string().contains("the network is gone"), "{failed}");
    // The shell, its reaper, the supervisor and `wc`, but no job.
    assert_eq!(
        sandbox.out("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c ^moor-supervisor").await,
        "2\n"
    );
}

#[tokio::test]
async fn files_go_to_the_groups_that_the_sandbox_knows() {
    if !is_root() {
        return;
    }
    let bob = User { name: "bob".into() };
    let manifest =
        Manifest { groups: vec![Group { name: "team".into(), users: vec![bob] }], ..Manifest::default() };
    let sandbox = Sandbox::with(|_| {}, manifest, None).await;
    let archive = tar(|writer| {
        file(writer, "ours", "team");
        file(writer, "mine", "");
        file(writer, "unknown", "strangers");
    });
    sandbox.session.unpack(".", reader(archive)).await.unwrap();
    let told = sandbox.out("stat -c '%n %U %G' mine ours unknown").await;
    assert_eq!(told, "mine agent agent\nours agent team\nunknown agent agent\n");
}

#[tokio::test]
async fn commands_go_on_while_an_archive_is_packed() {
    let sandbox = Sandbox::new().await;
    let big = Bytes::from(vec![7; 30 << 20]);
    sandbox.session.write("big", big, WriteOptions::default()).await.unwrap();
    let (archive, said) = tokio::join!(persist(sandbox.session.as_ref(), &[]), sandbox.out("echo beside"));
    assert!(archive.len() > 30 << 20);
    assert_eq!(said, "beside\n");
}
