//! What stays outside, what is kept, and what comes back.

use mooring_sandbox::SandboxClient as _;

use crate::support::{Bench, SECRET, Server, client, manifest, s3, s3_keys};

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_and_no_address_is_inside_or_in_the_state() {
    let server = Server::s3();
    server.python("put('a', b'1')");
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    assert_eq!(bench.said("cat m/a").await, "1");
    let all = "cat /proc/*/environ /proc/*/cmdline /proc/*/mountinfo /proc/mounts 2> /dev/null | tr '\\0' '\\n'; env; \
               grep -rs . /run /tmp /workspace --exclude-dir=m";
    let said = bench.run(all).await.out;
    assert!(said.contains("fuse") && said.contains("HOME="), "it did look: {said}");
    let address = server.url.trim_start_matches("http://");
    let kept = serde_json::to_string(&bench.kept()).unwrap();
    for secret in [SECRET, "AKIAEXAMPLE"] {
        assert!(!said.contains(secret) && !kept.contains(secret), "{said}\n{kept}");
    }
    assert!(!said.contains(address), "{said}");
    // Nor is there a way to it.
    let python = format!("python3 -c 'import urllib.request as r; r.urlopen(\"{}\", timeout=5)'", server.url);
    assert_ne!(bench.run(&python).await.code, 0);
    // Nothing of it is on the host either.
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains(bench.state.path().to_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_back_has_its_mount_again() {
    let server = Server::s3();
    server.python("put('a', b'1')");
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    bench.said("cat m/a && echo mine > own").await;
    bench.session.stop().await.unwrap();
    let again = client(bench.state.path());
    let session = again.resume(bench.kept()).await.unwrap();
    session.start().await.unwrap();
    let ran = session.exec(mooring_sandbox::ExecRequest::shell("cat m/a own")).await.unwrap();
    assert_eq!(ran.stdout.text(), "1mine\n");
    again.delete(&bench.kept()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_workspace_is_without_its_mounts() {
    let server = Server::s3();
    server.python("put('a', b'1')\nput('deep/b', b'2')");
    let mut entry = s3(&server.url);
    entry["read_only"] = serde_json::json!(false);
    entry["mount_path"] = serde_json::json!("in/data");
    let bench = Bench::new(manifest(entry, s3_keys())).await;
    bench.said("echo mine > own && echo beside > in/beside && cat in/data/a").await;
    let (write, mut read) = tokio::io::duplex(1 << 20);
    let mut archive = Vec::new();
    let (persisted, copied) =
        tokio::join!(bench.session.persist(Box::pin(write), &[]), tokio::io::copy(&mut read, &mut archive));
    persisted.unwrap();
    copied.unwrap();
    let names = String::from_utf8_lossy(&archive);
    assert!(names.contains("in/beside") && !names.contains("in/data"), "the archive's names");
    // Back in place of what is there: what the mount holds is nobody's to remove.
    bench.said("echo later > later && echo changed > own").await;
    bench.session.restore(Box::pin(std::io::Cursor::new(archive))).await.unwrap();
    assert_eq!(bench.said("cat own in/beside in/data/a; ls").await, "mine\nbeside\n1in\nown\n");
    assert_eq!(server.python("print(keys())"), "['a', 'deep/b']\n");
    // Nor does removing what leads to it.
    let removed = bench.session.remove("in", true).await.unwrap_err().to_string();
    assert!(removed.contains("it holds a mount"), "{removed}");
    assert_eq!(server.python("print(keys())"), "['a', 'deep/b']\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_harness_itself_never_waits_for_a_mount() {
    let server = Server::s3();
    server.python("put('a', b'1')");
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    bench.said("ln -s m/a link && ln -s /workspace/m way").await;
    for path in ["m/a", "m", "link", "way/a", "/workspace/m/a"] {
        let refused = bench.session.read(path, 100).await.unwrap_err().to_string();
        assert!(refused.contains("it is in the mount m"), "{path}: {refused}");
    }
    let names: Vec<_> = bench.session.list(".").await.unwrap().into_iter().map(|file| file.name).collect();
    assert!(names.iter().any(|name| name.ends_with("link")), "{names:?}");
    assert_eq!(bench.said("cat way/a").await, "1");
}
