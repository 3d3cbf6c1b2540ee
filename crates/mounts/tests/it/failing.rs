//! Servers that do not answer, or say no.

use std::io::Read as _;

use serde_json::json;

use crate::support::{ACCOUNT, Bench, Server, manifest, s3, s3_keys, strategy};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_an_error_and_no_hang() {
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hole.local_addr().unwrap());
    // Whoever connects is heard, and that is all.
    std::thread::spawn(move || {
        for stream in hole.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut (&stream).take(1 << 20), &mut std::io::sink());
            });
        }
    });
    let bench = Bench::new(manifest(s3(&url), s3_keys())).await;
    let (listed, read) = tokio::join!(bench.run("ls m"), bench.run("cat m/file"));
    for ran in [listed, read] {
        assert!(ran.code != 0 && ran.err.contains("Input/output error"), "{ran:?}");
    }
    let told = bench.told();
    assert!(
        told.contains(&"mount m: cannot list '': the server did not answer within 15 s".to_owned()),
        "{told:?}"
    );
    // Nor does what waits keep the sandbox from ending.
    let (waiting, ended) =
        tokio::join!(bench.session.exec(mooring_sandbox::ExecRequest::shell("ls m/other")), async {
            while !bench.said("pgrep -fx 'ls m/other' || true").await.contains(char::is_numeric) {}
            bench.session.stop().await
        });
    ended.unwrap();
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_said_without_them() {
    let server = Server::azure();
    server.python("# azure\nput('a', b'1')");
    let entry = json!({
        "type": "azure_blob_mount", "account": ACCOUNT, "container": "data",
        "endpoint": format!("{}/{ACCOUNT}", server.url), "mount_strategy": strategy(),
    });
    // A key of the right form that is not the account's.
    let bench = Bench::new(manifest(entry, json!({ "credentials": { "account_key": "token-key" } }))).await;
    let ran = bench.run("ls m").await;
    assert!(ran.code != 0 && ran.err.contains("Permission denied"), "{ran:?}");
    let told = bench.told().join("\n");
    assert!(told.contains("access was denied; check the mount's credentials"), "{told}");
    assert!(!told.contains("c2VjcmV0IG9mIG5vYm9keQ=="), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_said() {
    let server = Server::s3();
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    assert!(bench.run("ls m").await.err.contains("Input/output error"));
    let told = bench.told();
    assert!(
        told.len() == 1 && told[0].contains("cannot list ''") && told[0].contains("NoSuchBucket"),
        "{told:?}"
    );
}
