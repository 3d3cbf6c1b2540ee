//! Objects that change while somebody reads them.

use crate::support::{Bench, Server, manifest, s3, s3_keys};

/// Two megabytes are read of an open file, then it changes, then the rest.
const READ: &str = "python3 -c '
import os, sys, time
f = os.open(\"m/a\", os.O_RDONLY)
os.read(f, 100)
open(\"/workspace/read\", \"w\").close()
while not os.path.exists(\"/workspace/changed\"): time.sleep(0.02)
try:
    os.lseek(f, 40 * 1024 * 1024, 0)
    print(len(os.read(f, 100)))
except OSError as error: print(os.strerror(error.errno))
'";

async fn while_it_is_open(change: &str) -> String {
    let server = Server::s3();
    server.python("put('a', b'1' * 50 * 1024 * 1024)");
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    let reading = bench.run(READ);
    let changing = async {
        while bench.session.stat("read").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        server.python(change);
        bench
            .session
            .write("changed", bytes::Bytes::new(), mooring_sandbox::WriteOptions::default())
            .await
            .unwrap();
    };
    let (ran, ()) = tokio::join!(reading, changing);
    let told = bench.told();
    assert!(
        told.iter().any(|line| line.contains("'a': the object was changed or removed while it was open")),
        "{told:?}"
    );
    ran.out
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_half_of_one_and_half_of_another() {
    assert_eq!(while_it_is_open("put('a', b'2' * 50 * 1024 * 1024)").await, "Stale file handle\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_gone_is_said() {
    assert_eq!(while_it_is_open("store.delete_object(Bucket='data', Key='a')").await, "Stale file handle\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_object_is_seen_when_the_listing_is_no_longer_fresh() {
    let server = Server::s3();
    server.python("put('a', b'1')");
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    assert_eq!(bench.said("ls m").await, "a\n");
    server.python("put('b', b'2')");
    assert_eq!(bench.said("until [ -e m/b ]; do sleep 0.2; done; ls m").await, "a\nb\n");
}
