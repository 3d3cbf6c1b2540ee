//! The local sandbox: read from the host and through the sandbox alike, forked with and without a copy.

use std::sync::Arc;
use std::time::Duration;

use mooring_manifest::{Group, Manifest, User};
use mooring_sandbox::{CreateRequest, ExecRequest, Outcome, SandboxClient as _, SandboxSession};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use mooring_snapshot::NewSnapshot;

use crate::support::{Dir, Place};

/// A manifest with more users than one, where the caller may have such.
fn manifest() -> Manifest {
    let bob = || User { name: "bob".into() };
    let groups = vec![Group { name: "team".into(), users: vec![bob()] }];
    if rustix::process::geteuid().is_root() {
        Manifest { users: vec![bob()], groups, ..Manifest::default() }
    } else {
        Manifest::default()
    }
}

fn request(id: &str) -> CreateRequest {
    CreateRequest { session_id: id.into(), manifest: manifest(), workspace: None }
}

async fn out(session: &dyn SandboxSession, line: &str) -> String {
    let result = session.exec(ExecRequest::shell(line).timeout(Duration::from_secs(20))).await.unwrap();
    assert_eq!((result.outcome, result.stderr.text().as_str()), (Outcome::Exited { code: 0 }, ""), "{line}");
    result.stdout.text()
}

/// Everything that must come back.
const TREE: &str = "find . -mindepth 1 -printf '%P %y %m %u %g %T@ %l %n ' \\( -type f -exec md5sum {} \\; -o -printf '\\n' \\) | sort";

async fn fill(session: &dyn SandboxSession) {
    out(
        session,
        "mkdir -p a/b; echo one > a/one; chmod 640 a/one; ln a/one two; ln -s /usr/bin/python3 a/b/py; mkfifo q; \
         truncate -s 1M holes; touch -d @1000000000.123456789 a/b; python3 -m venv --without-pip venv",
    )
    .await;
    if rustix::process::geteuid().is_root() {
        out(session, "mkdir bobs; chmod 777 bobs").await;
        let mut request = ExecRequest::shell("umask 002; echo his > bobs/his; chgrp team bobs/his");
        request.user = Some("bob".into());
        assert_eq!(session.exec(request).await.unwrap().outcome, Outcome::Exited { code: 0 });
    }
}

#[tokio::test]
async fn the_host_and_the_sandbox_show_the_same_and_it_comes_back() {
    let place = Place::new();
    let client = LocalSandboxClient::new(LocalOptions::new(place.home.path().join("state")));
    let session = client.create(request("one")).await.unwrap();
    session.start().await.unwrap();
    fill(session.as_ref()).await;
    let new = |id: &str| NewSnapshot { id: id.into(), ..NewSnapshot::default() };
    let near = place.store.take(session.as_ref(), new("near")).await.unwrap();
    let through = Dir { path: "/nowhere".into(), near: false, of: Some(Arc::clone(&session)) };
    let far = place.store.take(&through, new("far")).await.unwrap();
    assert_eq!(far.digest, near.digest);

    let expected = out(session.as_ref(), TREE).await;
    for id in ["near", "far"] {
        let other = client.create(request(&format!("restored-{id}"))).await.unwrap();
        other.start().await.unwrap();
        out(other.as_ref(), "mkdir old; echo old > old/f").await;
        place.store.restore(id, other.as_ref()).await.unwrap();
        assert_eq!(out(other.as_ref(), TREE).await, expected, "{id}");
        assert_eq!(place.store.look(other.as_ref()).await.unwrap(), near.root(), "{id}");
        assert_eq!(
            out(other.as_ref(), "venv/bin/python -c 'print(6 * 7)'").await,
            "42\n",
            "a venv still runs"
        );
    }
}

#[tokio::test]
async fn a_fork_is_the_same_with_and_without_a_copy_and_is_read_whole() {
    let place = Place::new();
    let client = LocalSandboxClient::new(LocalOptions::new(place.home.path().join("state")));
    let session = client.create(request("one")).await.unwrap();
    session.start().await.unwrap();
    fill(session.as_ref()).await;
    let expected = out(session.as_ref(), TREE).await;
    let root = place.store.look(session.as_ref()).await.unwrap();

    let (copied, copy) = place.store.fork(&client, session.as_ref(), request("copied")).await.unwrap();
    assert!(copy, "it runs");
    session.stop().await.unwrap();
    let (shared, copy) = place.store.fork(&client, session.as_ref(), request("shared")).await.unwrap();
    assert!(!copy);
    for fork in [copied, shared] {
        fork.start().await.unwrap();
        assert_eq!(out(fork.as_ref(), TREE).await, expected, "{}", fork.id());
        assert_eq!(place.store.look(fork.as_ref()).await.unwrap(), root, "{}", fork.id());
        out(fork.as_ref(), "echo more >> a/one; rm q; mkdir new; rm -r a/b; mkdir a/b").await;
        let near = place.store.look(fork.as_ref()).await.unwrap();
        let through = Dir { path: "/nowhere".into(), near: false, of: Some(Arc::clone(&fork)) };
        assert_eq!(place.store.look(&through).await.unwrap(), near, "{}", fork.id());
        assert_ne!(near, root);
    }
    assert_eq!(place.store.look(session.as_ref()).await.unwrap(), root, "the parent has not changed");
}
