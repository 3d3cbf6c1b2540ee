//! Forks share what neither changes, and never see each other's changes.

use std::sync::Arc;

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, ExecRequest, SandboxClient as _, SandboxError, SandboxSession};
use mooring_sandbox_local::IsolationLevel;

use crate::setup::{SOON, Sandbox};

async fn out(session: &dyn SandboxSession, line: &str) -> String {
    let result = session.exec(ExecRequest::shell(line).timeout(SOON)).await.unwrap();
    assert_eq!(result.stderr.text(), "", "{line}");
    result.stdout.text()
}

/// What a workspace holds, as text.
const TREE: &str =
    "find . -printf '%P %y %m %U %l ' \\( -type f -exec cat {} \\; -o -printf '\\n' \\) | sort";

async fn fork(sandbox: &Sandbox, of: &dyn SandboxSession, id: &str) -> Arc<dyn SandboxSession> {
    of.stop().await.unwrap();
    let fork = sandbox.client.fork(&of.state(), id).await.unwrap();
    fork.start().await.unwrap();
    of.start().await.unwrap();
    fork
}

#[tokio::test]
async fn a_fork_begins_as_its_parent_and_goes_its_own_way() {
    let sandbox = Sandbox::new().await;
    let parent = sandbox.session.as_ref();
    out(
        parent,
        "mkdir -p a/b c; echo one > a/one; echo two > a/b/two; chmod 750 a/one; ln -s /usr/bin/python3 py; \
         mkfifo fifo; echo gone > gone; echo x > c/x; chmod 711 .",
    )
    .await;
    let before = out(parent, TREE).await;
    let fork = fork(&sandbox, parent, "fork").await;
    assert_eq!(out(fork.as_ref(), TREE).await, before);
    assert_eq!(out(parent, TREE).await, before);

    out(parent, "echo changed > a/one; rm gone; echo new > a/new; rm -r c; mkdir c").await;
    assert_eq!(out(fork.as_ref(), TREE).await, before, "the parent's changes");
    let parents = out(parent, TREE).await;
    out(fork.as_ref(), "echo mine >> a/b/two; rm -r c py; touch own").await;
    assert_eq!(out(parent, TREE).await, parents, "the fork's changes");
    assert_eq!(out(fork.as_ref(), "cat a/one gone; ls").await, "one\ngone\na\nfifo\ngone\nown\n");
    // What was removed and made again shows nothing of what it was.
    assert_eq!(out(parent, "ls c").await, "");
}

#[tokio::test]
async fn forks_of_forks_share_and_the_last_takes_the_layers_along() {
    let sandbox = Sandbox::new().await;
    let parent = sandbox.session.as_ref();
    out(parent, "echo 0 > f0").await;
    let one = fork(&sandbox, parent, "one").await;
    out(one.as_ref(), "echo 1 > f1; rm f0").await;
    let two = fork(&sandbox, one.as_ref(), "two").await;
    // Nothing has changed since: the same layers will do.
    let three = fork(&sandbox, two.as_ref(), "three").await;
    assert_eq!(out(three.as_ref(), "ls").await, "f1\n");
    let layers = sandbox.state.path().join("layers");
    let names = || {
        let entries = std::fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).count()
    };
    assert_eq!(names(), 2);
    for session in [parent, one.as_ref(), two.as_ref()] {
        sandbox.client.delete(&session.state()).await.unwrap();
    }
    assert_eq!(out(three.as_ref(), "cat f1").await, "1\n");
    sandbox.client.delete(&three.state()).await.unwrap();
    assert_eq!(names(), 0);
}

#[tokio::test]
async fn a_fork_is_found_again_and_read_from_the_host() {
    let sandbox = Sandbox::new().await;
    let parent = sandbox.session.as_ref();
    out(parent, "mkdir d; echo low > d/low; echo gone > gone").await;
    let fork = fork(&sandbox, parent, "fork").await;
    out(fork.as_ref(), "echo top > d/top; rm gone").await;
    fork.stop().await.unwrap();
    let state = fork.state();
    drop(fork);
    let again = sandbox.client.resume(state).await.unwrap();
    again.start().await.unwrap();
    assert_eq!(out(again.as_ref(), "ls d .").await, ".:\nd\n\nd:\nlow\ntop\n");

    let layers = again.host_workspace().unwrap().layers;
    let layers: Vec<_> = layers.iter().map(|path| std::fs::File::open(path).unwrap()).collect();
    let mut seen = Vec::new();
    mooring_archive::walk_layers(&layers, &[], &mut |node| {
        seen.push(node.path.display().to_string());
        Ok::<_, mooring_archive::ArchiveError>(())
    })
    .unwrap();
    assert_eq!(seen, ["d", "d/low", "d/top"]);
}

#[tokio::test]
async fn what_needs_a_copy_is_refused_by_name() {
    let reason = |error: SandboxError| match error {
        SandboxError::Unsupported { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let sandbox = Sandbox::new().await;
    out(sandbox.session.as_ref(), "echo kept > kept").await;
    let running = sandbox.client.fork(&sandbox.session.state(), "fork").await.unwrap_err();
    assert_eq!(reason(running), "it is running");
    assert_eq!(out(sandbox.session.as_ref(), "cat kept").await, "kept\n");

    let named = tempfile::tempdir().unwrap();
    let workspace = Some(named.path().to_owned());
    let request = CreateRequest { session_id: "named".into(), manifest: Manifest::default(), workspace };
    let session = sandbox.client.create(request).await.unwrap();
    let named = sandbox.client.fork(&session.state(), "fork").await.unwrap_err();
    assert_eq!(reason(named), "its workspace is a directory that the caller named");

    let open =
        Sandbox::with(|options| options.isolation = IsolationLevel::None, Manifest::default(), None).await;
    open.session.stop().await.unwrap();
    let refused = open.client.fork(&open.session.state(), "fork").await.unwrap_err();
    assert_eq!(reason(refused), "without isolation there are no layers");
}

#[tokio::test]
async fn many_layers_are_refused_before_they_are_too_many() {
    let sandbox = Sandbox::new().await;
    let session = sandbox.session.as_ref();
    let mut refused = None;
    for number in 0..20 {
        out(session, &format!("echo {number} > f{number}")).await;
        session.stop().await.unwrap();
        let forked = sandbox.client.fork(&session.state(), &format!("fork{number}")).await;
        session.start().await.unwrap();
        if let Err(error) = forked {
            refused = Some((number, error));
            break;
        }
    }
    let (number, error) = refused.unwrap();
    assert_eq!(number, 16, "{error}");
    assert_eq!(out(session, "cat f0 f16; ls | wc -l").await, "0\n16\n17\n");
}
