//! Output: bounded, addressed by cursor, drained whether anyone reads it or not.

use std::time::Duration;

use mooring_sandbox::{Cursor, ExecRequest, collect};

use crate::setup::{SOON, Sandbox, exited, until};

#[tokio::test]
async fn unread_output_costs_no_memory_and_stalls_nothing() {
    let sandbox = Sandbox::new().await;
    let line = "head -c 400000000 /dev/zero | tr '\\0' x; echo end";
    let process = sandbox.session.spawn(ExecRequest::shell(line)).await.unwrap();
    // Nobody reads; yet it ends.
    let mut beside = 0;
    let result = loop {
        assert_eq!(sandbox.out("echo beside").await, "beside\n");
        beside += 1;
        let chunk = process.output(Cursor(400_000_004), 1, Duration::ZERO).await.unwrap();
        if chunk.outcome.is_some() {
            break collect(process.as_ref(), Some(SOON)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(beside > 0);
    assert_eq!(result.outcome, exited(0));
    assert_eq!(result.stdout.data.len() as u64 + result.stdout.omitted, 400_000_004);
    assert_eq!(result.stdout.data.len(), 1 << 20);
    assert!(result.stdout.data.ends_with(b"xend\n"));
    let memory = supervisor_memory(&sandbox).await;
    assert!(memory < 32 << 20, "the supervisor holds {memory} bytes");
}

/// Resident memory of the supervisor, which is the first process inside.
async fn supervisor_memory(sandbox: &Sandbox) -> u64 {
    let status = sandbox.out("grep VmRSS /proc/1/status").await;
    let kilobytes: u64 = status.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

#[tokio::test]
async fn a_harness_that_stops_reading_does_not_stop_deadlines() {
    let sandbox = Sandbox::new().await;
    // Many big answers that nobody fetches from the socket for a while.
    let request = ExecRequest::shell("head -c 1000000 /dev/zero; touch done; sleep 1000");
    let process = sandbox.session.spawn(request.timeout(SOON)).await.unwrap();
    let path = sandbox.state.path().join("sandboxes").join(sandbox.session.id()).join("workspace/done");
    until("all is written", || path.exists()).await;
    let reads = (0..100).map(|_| process.output(Cursor(0), 1 << 20, SOON));
    for chunk in futures::future::join_all(reads).await {
        assert!(!chunk.unwrap().pieces.is_empty());
    }
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}
