//! Output: bounded, addressed by cursor, drained whether anyone reads it or not.

use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{Cursor, ExecRequest, SandboxError, Stdin, Stream, collect};

use crate::bench::{Bench, SOON, exited};

pub(crate) async fn unread_output_stalls_nothing_and_is_bounded(bench: &Bench) {
    const SIZE: u64 = 200_000_004;
    let sandbox = bench.sandbox().await;
    let line = "head -c 200000000 /dev/zero | tr '\\0' x; echo end";
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    // Nobody reads; yet it ends.
    let result = loop {
        assert_eq!(sandbox.out("echo beside").await, "beside\n");
        let chunk = process.output(Cursor(SIZE), 1, Duration::ZERO).await.unwrap();
        if chunk.outcome.is_some() {
            break collect(process.as_ref(), Some(SOON)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(result.outcome, exited(0));
    assert_eq!(result.stdout.data.len() as u64 + result.stdout.omitted, SIZE);
    assert!(result.stdout.data.len() <= 1 << 20, "{} bytes were kept", result.stdout.data.len());
    assert!(result.stdout.data.ends_with(b"xend\n"));
}

pub(crate) async fn the_beginning_and_the_end_are_kept(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let mut request = ExecRequest::shell("printf 0123456789; printf abcdefghij");
    request.output_limit = 8;
    let process = sandbox.session.spawn(request).await.unwrap();
    // Read when all has come: whoever reads along loses less.
    process.output(Cursor(1000), 1, SOON).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!((result.stdout.text().as_str(), result.stdout.omitted), ("0123ghij", 12));
}

pub(crate) async fn a_command_that_is_paced_waits_for_its_reader_and_loses_nothing(bench: &Bench) {
    const SIZE: usize = 3_000_000;
    let sandbox = bench.sandbox().await;
    let line = "head -c 3000000 /dev/zero | tr '\\0' x; echo no >&2; echo end; touch over";
    let mut request = ExecRequest::shell(line);
    (request.output_limit, request.paced) = (100_000, true);
    let process = sandbox.session.spawn(request).await.unwrap();
    // It has said all that it may, and waits.
    while process.output(Cursor(0), 100_000, Duration::ZERO).await.unwrap().next < Cursor(100_000) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(sandbox.out("ls over 2>/dev/null; echo beside").await, "beside\n");
    let (mut cursor, mut out, mut err) = (Cursor(0), Vec::new(), Vec::new());
    let outcome = loop {
        let chunk = process.output(cursor, 70_000, SOON).await.unwrap();
        for piece in &chunk.pieces {
            assert_eq!(piece.at, cursor, "something is missing");
            cursor = Cursor(cursor.0 + piece.data.len() as u64);
            if piece.stream == Stream::Stdout { &mut out } else { &mut err }.extend_from_slice(&piece.data);
        }
        if let Some(outcome) = chunk.outcome {
            break outcome;
        }
    };
    assert_eq!((outcome, out.len(), err.as_slice()), (exited(0), SIZE + 4, &b"no\n"[..]));
    assert!(out.ends_with(b"xend\n") && out[..SIZE].iter().all(|byte| *byte == b'x'));
    assert_eq!(sandbox.out("ls over").await, "over\n");
}

pub(crate) async fn input_that_is_not_read_is_refused_until_it_is(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let mut request = ExecRequest::shell("until [ -e go ]; do sleep 0.02; done; wc -c");
    request.stdin = Stdin::Open;
    let process = sandbox.session.spawn(request).await.unwrap();
    let block = Bytes::from(vec![b'x'; 1 << 20]);
    let mut sent = 0;
    let full = loop {
        match process.write_stdin(block.clone()).await {
            Ok(()) => sent += block.len(),
            Err(error) => break error,
        }
        assert!(sent < 100 << 20);
    };
    assert!(matches!(full, SandboxError::StdinFull), "{full}");
    sandbox.out("touch go").await;
    while let Err(error) = process.write_stdin(block.clone()).await {
        assert!(matches!(error, SandboxError::StdinFull), "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.close_stdin().await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(result.stdout.text().trim(), (sent + block.len()).to_string());
}

pub(crate) async fn the_streams_are_apart_and_in_order(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let line = "for i in 1 2 3; do echo o$i; sleep 0.05; echo e$i >&2; sleep 0.05; done";
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    collect(process.as_ref(), Some(SOON)).await.unwrap();
    let chunk = process.output(Cursor(0), 1000, Duration::ZERO).await.unwrap();
    let told: Vec<_> = chunk.pieces.iter().map(|piece| (piece.at.0, piece.stream, &piece.data[..])).collect();
    let (out, err) = (Stream::Stdout, Stream::Stderr);
    assert_eq!(
        told,
        [
            (0, out, &b"o1\n"[..]),
            (3, err, b"e1\n"),
            (6, out, b"o2\n"),
            (9, err, b"e2\n"),
            (12, out, b"o3\n"),
            (15, err, b"e3\n")
        ]
    );
    // Any part of it, again and again.
    let part = process.output(Cursor(4), 4, Duration::ZERO).await.unwrap();
    assert_eq!((part.pieces.len(), part.next, part.outcome), (2, Cursor(8), None));
}

pub(crate) async fn a_reader_waits_for_output_and_no_longer_than_it_asked(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let line = "while [ ! -e go ]; do sleep 0.02; done; echo there; sleep 1000";
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    let nothing = process.output(Cursor(0), 100, Duration::from_millis(50)).await.unwrap();
    assert_eq!((nothing.pieces.len(), nothing.next, nothing.outcome), (0, Cursor(0), None));
    let waiting = process.output(Cursor(0), 100, SOON);
    let (there, _) = tokio::join!(waiting, sandbox.out("touch go"));
    assert_eq!(&there.unwrap().pieces[0].data[..], b"there\n");
}

pub(crate) async fn a_command_that_ends_wakes_its_reader(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let process = sandbox.session.spawn(ExecRequest::argv(["true"])).await.unwrap();
    let chunk = process.output(Cursor(0), 100, SOON).await.unwrap();
    assert_eq!(chunk.outcome, Some(exited(0)));
}

pub(crate) async fn many_big_answers_that_nobody_takes_do_not_stop_the_rest(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let request = ExecRequest::shell("head -c 1000000 /dev/zero; sleep 1000");
    let process = sandbox.session.spawn(request.timeout(SOON)).await.unwrap();
    process.output(Cursor(999_999), 1, SOON).await.unwrap();
    let reads = (0..100).map(|_| process.output(Cursor(0), 1 << 20, SOON));
    for chunk in futures::future::join_all(reads).await {
        assert!(!chunk.unwrap().pieces.is_empty());
    }
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}
