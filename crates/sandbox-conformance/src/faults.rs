//! What happens to sandboxes: they stop answering, they are gone in the middle of something, their disk is full.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{Cursor, ExecRequest, Outcome, WriteOptions, collect};

use crate::archives::{file, persist, reader, tar};
use crate::bench::{Bench, SOON, in_workspace};

pub(crate) async fn a_transport_that_is_a_black_hole_is_noticed(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let faults = bench.backend.faults();
    sandbox.out("echo kept > kept").await;
    let process = sandbox.session.spawn(ExecRequest::shell("echo before; sleep 1000")).await.unwrap();
    process.output(Cursor(0), 100, SOON).await.unwrap();
    faults.freeze(sandbox.session.as_ref()).await;
    // Whoever waits is told in time, and a stop ends the sandbox even so.
    let result = collect(process.as_ref(), Some(Duration::from_secs(2))).await.unwrap();
    assert_eq!(result.outcome, Outcome::TransportLost);
    // So is whoever has sent an archive there. The stop says that it had to use force, or that it had not.
    let archive = tar(|writer| file(writer, "new", ""));
    let (restored, _) = tokio::join!(sandbox.session.restore(reader(archive)), sandbox.session.stop());
    let lost = restored.unwrap_err();
    assert!(lost.session_lost(), "{lost}");
    sandbox.session.start().await.unwrap();
    assert_eq!(sandbox.out("cat kept; ls").await, "kept\nkept\n");
}

pub(crate) async fn a_sandbox_that_paused_goes_on(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let faults = bench.backend.faults();
    let process = sandbox
        .session
        .spawn(ExecRequest::shell("while [ ! -e go ]; do sleep 0.02; done; echo after"))
        .await
        .unwrap();
    faults.freeze(sandbox.session.as_ref()).await;
    let writing = sandbox.session.write("go", Bytes::new(), WriteOptions::default());
    let thawing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        faults.thaw(sandbox.session.as_ref()).await;
    };
    let (written, ()) = tokio::join!(writing, thawing);
    written.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!((result.stdout.text().as_str(), result.outcome), ("after\n", Outcome::Exited { code: 0 }));
}

pub(crate) async fn a_sandbox_that_is_gone_is_told_and_comes_back_with_its_workspace(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("echo kept > kept").await;
    let process = sandbox.session.spawn(ExecRequest::argv(["sleep", "1000"])).await.unwrap();
    let waiting = collect(process.as_ref(), Some(SOON));
    let killing = bench.backend.faults().kill(sandbox.session.as_ref());
    let (lost, ()) = tokio::join!(waiting, killing);
    let lost = lost.unwrap_err();
    assert!(lost.session_lost(), "{lost}");
    let lost = sandbox.session.exec(ExecRequest::argv(["true"])).await.unwrap_err();
    assert!(lost.session_lost(), "{lost}");
    sandbox.session.start().await.unwrap();
    assert_eq!(sandbox.out("cat kept").await, "kept\n");
}

/// An archive that comes to a point and no further.
struct Stalling {
    bytes: Vec<u8>,
    given: usize,
    reached: Option<tokio::sync::oneshot::Sender<()>>,
}

impl tokio::io::AsyncRead for Stalling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let left = &self.bytes[self.given..];
        if left.is_empty() {
            if let Some(reached) = self.reached.take() {
                let _ = reached.send(());
            }
            return Poll::Pending;
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.given += count;
        Poll::Ready(Ok(()))
    }
}

pub(crate) async fn a_transfer_that_is_cut_leaves_the_old_workspace(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("mkdir d; echo kept > d/kept").await;
    let archive = tar(|writer| (0..2000).for_each(|number| file(writer, &format!("new/f{number}"), "")));
    let (reached, half) = tokio::sync::oneshot::channel();
    let bytes = archive[..archive.len() / 2].to_vec();
    let stalling = Box::pin(Stalling { bytes, given: 0, reached: Some(reached) });
    let mut restoring = sandbox.session.restore(stalling);
    tokio::select! {
        ended = &mut restoring => panic!("it ended before all had come: {ended:?}"),
        reached = half => reached.unwrap(),
    }
    bench.backend.faults().kill(sandbox.session.as_ref()).await;
    // Its reader gives nothing more, so whoever feeds it may not notice; giving up is the caller's.
    let _ = tokio::time::timeout(Duration::from_secs(3), restoring).await;
    sandbox.session.start().await.unwrap();
    assert_eq!(sandbox.out("cat d/kept; ls -d new 2>&1 | grep -c 'f1' ; true").await, "kept\n0\n");
    // Whatever half of it lies about goes with the next that comes whole.
    sandbox.session.restore(reader(archive.clone())).await.unwrap();
    assert_eq!(
        sandbox.out("ls -A; ls new | wc -l").await.split_whitespace().collect::<Vec<_>>(),
        ["new", "2000"]
    );
    assert!(persist(sandbox.session.as_ref(), &[]).await.len() > 2000 * 512);
}

pub(crate) async fn a_full_disk_is_told_and_breaks_nothing(bench: &Bench) {
    let disk = match bench.backend.small_disk(4 << 20) {
        Ok(disk) => disk,
        Err(why) => return bench.left_out(&why),
    };
    let sandbox = bench.start(&bench.client, in_workspace(disk)).await;
    let session = &sandbox.session;
    session.write("kept", "old".into(), WriteOptions::default()).await.unwrap();
    let full =
        session.write("kept", Bytes::from(vec![1; 6 << 20]), WriteOptions::default()).await.unwrap_err();
    assert!(
        full.to_string().contains("No space left") || full.to_string().contains("no space left"),
        "{full}"
    );
    assert_eq!(session.read("kept", 100).await.unwrap(), "old", "half a file is in its place");
    let archive = tar(|writer| {
        let meta = mooring_archive::Meta { mode: 0o644, ..mooring_archive::Meta::default() };
        writer.file("big".as_ref(), meta, 6 << 20, &mut &vec![2; 6 << 20][..]).unwrap();
    });
    for refused in [
        session.restore(reader(archive.clone())).await.unwrap_err(),
        session.unpack(".", reader(archive)).await.unwrap_err(),
    ] {
        assert!(refused.to_string().contains("No space left"), "{refused}");
    }
    assert_eq!(session.read("kept", 100).await.unwrap(), "old");
    let told = sandbox.sh("head -c 6000000 /dev/zero > more").await;
    assert!(told.outcome == (Outcome::Exited { code: 1 }) && !told.stderr.data.is_empty(), "{told:?}");
    session.remove("more", false).await.unwrap();
    let _ = session.remove("big", false).await;
    session.write("after", "room again".into(), WriteOptions::default()).await.unwrap();
}
