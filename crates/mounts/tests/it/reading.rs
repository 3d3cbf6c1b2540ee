//! What a program finds in a mount.

use std::path::Path;

use mooring_sandbox::Outcome;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::storage::{Place, Server, manifest, run, say};

/// A tree with what is uncommon in names, and a file of several blocks.
fn tree(folder: &Path, large: usize) -> String {
    for (path, content) in [
        ("read me.txt", "hello\n"),
        ("a/b/c.txt", "deep\n"),
        ("a/empty", ""),
        ("a/ünï %41 #?&+.txt", "odd\n"),
        ("z", "last\n"),
    ] {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let content: Vec<u8> = (0..large).map(|n| ((n * 31) ^ (n >> 9)) as u8).collect();
    std::fs::write(folder.join("large.bin"), &content).unwrap();
    Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect()
}

const LARGE: usize = 12_345_678;

async fn reads_like_files(kind: &'static str) {
    let server = Server::start(kind);
    let folder = tempfile::tempdir().unwrap();
    let digest = tree(folder.path(), LARGE);
    server.client("bucket", folder.path(), &[]);
    let place = Place::new();
    let session = place.sandbox(server.manifest("bucket")).await.unwrap();
    let session = session.as_ref();
    // Looked up by name, before anything is listed.
    assert_eq!(say(session, "cat data/a/b/c.txt").await, "deep\n");
    assert_eq!(
        say(session, "ls data; ls data/a").await,
        "a\nlarge.bin\nread me.txt\nz\nb\nempty\nünï %41 #?&+.txt\n"
    );
    assert_eq!(
        say(session, "cat 'data/read me.txt' data/z 'data/a/ünï %41 #?&+.txt'").await,
        "hello\nlast\nodd\n"
    );
    assert_eq!(
        say(session, "stat -c '%s %F %U %a' data/large.bin data/a data/a/empty").await,
        format!("{LARGE} regular file agent 444\n0 directory agent 555\n0 regular empty file agent 444\n")
    );
    assert!(say(session, "sha256sum data/large.bin").await.starts_with(&digest));
    let part = say(session, "dd if=data/large.bin bs=7777 skip=500 count=300 status=none | sha256sum").await;
    let same = format!(
        "dd if={} bs=7777 skip=500 count=300 status=none | sha256sum",
        folder.path().join("large.bin").display()
    );
    let here = std::process::Command::new("sh").args(["-c", &same]).output().unwrap();
    assert_eq!(part.as_bytes(), here.stdout);
    // The programs that people use, over all of it.
    assert_eq!(say(session, "tar -cf - -C data . | tar -tf - | wc -l").await.trim(), "9");
    assert_eq!(say(session, "grep -rl deep data").await, "data/a/b/c.txt\n");
    assert_eq!(
        say(session, "python3 -c \"import os; print(sum(len(f) for _, _, f in os.walk('data')))\"").await,
        "6\n"
    );
    // Nothing is written, and what is not there is not there.
    for command in [
        "echo x > data/new",
        "rm data/z",
        "mkdir data/d",
        "mv data/z data/y",
        "chmod 777 data/z",
        "touch data/z",
    ] {
        let (outcome, text) = run(session, command).await;
        assert_ne!(outcome, Outcome::Exited { code: 0 }, "{command}");
        assert!(text.contains("Read-only file system"), "{command}: {text}");
    }
    let (_, text) = run(session, "cat data/none data/z/below").await;
    assert!(text.contains("No such file") && text.contains("Not a directory"), "{text}");
    session.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    reads_like_files("s3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_blob() {
    reads_like_files("azure").await;
}

/// With keys, Google's is asked as Amazon's is.
#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_with_keys_and_r2() {
    let server = Server::start("s3");
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path(), 10);
    server.client("bucket", folder.path(), &[]);
    let strategy = json!({"type": "in_container", "pattern": {"type": "rclone"}});
    let gcs = json!({"type": "gcs_mount", "bucket": "bucket", "endpoint_url": server.endpoint, "prefix": "a",
                     "mount_strategy": strategy});
    let r2 = json!({"type": "r2_mount", "bucket": "bucket", "account_id": "a", "custom_domain": server.endpoint,
                    "mount_strategy": strategy});
    let mounts = json!({
        "gcs": {"credentials": {"access_id": "id", "secret_access_key": "key"}},
        "r2": {"credentials": {"access_key_id": "id", "secret_access_key": "key"}},
    });
    let place = Place::new();
    let session = place.sandbox(manifest(&json!({"gcs": gcs, "r2": r2}), &mounts)).await.unwrap();
    assert_eq!(say(session.as_ref(), "cat gcs/b/c.txt r2/a/b/c.txt").await, "deep\ndeep\n");
    session.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_bucket_where_the_manifest_says_and_several_side_by_side() {
    let server = Server::start("s3");
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path(), 10);
    server.client("bucket", folder.path(), &[]);
    let (whole, credentials) = server.entry("bucket");
    let mut part = whole.clone();
    part["prefix"] = "a/b/".into();
    part["mount_path"] = "deep/down".into();
    let mut file = json!({"type": "file", "content": "beside\n"});
    file["description"] = "beside".into();
    let entries = json!({"part": part, "in/whole": whole, "in/file.txt": file});
    let options = json!({"credentials": credentials});
    let place = Place::new();
    let session =
        place.sandbox(manifest(&entries, &json!({"part": options, "in/whole": options}))).await.unwrap();
    let session = session.as_ref();
    assert_eq!(say(session, "cat deep/down/c.txt in/file.txt in/whole/z").await, "deep\nbeside\nlast\n");
    assert_eq!(say(session, "ls; ls in").await, "deep\nin\nfile.txt\nwhole\n");
    // What is packed of the workspace is the workspace.
    let (write, mut read) = tokio::io::duplex(1 << 16);
    let mut packed = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut packed);
    let (persisted, read) = tokio::join!(session.persist(Box::pin(write), &[]), reading);
    persisted.unwrap();
    read.unwrap();
    let listed = String::from_utf8_lossy(&packed).into_owned();
    assert!(listed.contains("in/file.txt") && !listed.contains("last\n"));
    session.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_several_pages() {
    let server = Server::start("s3");
    let folder = tempfile::tempdir().unwrap();
    server.client("bucket", folder.path(), &["many", "1100"]);
    let place = Place::new();
    let session = place.sandbox(server.manifest("bucket")).await.unwrap();
    let session = session.as_ref();
    assert_eq!(say(session, "ls data/many | sort -u | wc -l").await.trim(), "1100");
    assert_eq!(say(session, "ls -l data/many | tail -1 | awk '{print $5, $NF}'").await.trim(), "4 01099");
    assert_eq!(say(session, "cat data/many/00000 data/many/01099").await, "01099");
    session.stop().await.unwrap();
}
