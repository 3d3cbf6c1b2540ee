//! Writing, where a manifest asks for it, and its limits.

use serde_json::json;

use crate::support::{Bench, Server, manifest, s3, s3_keys};

async fn writable(server: &Server) -> Bench {
    let mut entry = s3(&server.url);
    entry["read_only"] = json!(false);
    Bench::new(manifest(entry, s3_keys())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_is_read_only_unless_it_is_said() {
    let server = Server::s3();
    server.python("put('a', b'1')");
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    for command in [
        "echo 2 > m/a",
        "touch m/b",
        "rm m/a",
        "mkdir m/c",
        "mv m/a m/d",
        "chmod 777 m/a",
        "truncate -s 0 m/a",
    ] {
        let ran = bench.run(command).await;
        assert!(ran.code != 0 && ran.err.contains("Read-only file system"), "{command}: {ran:?}");
    }
    assert_eq!(server.python("print(keys(), get('a'))").trim(), "['a'] b'1'");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_an_object_when_the_file_is_closed() {
    let server = Server::s3();
    server.python("put('old/log', b'one\\n')");
    let bench = writable(&server).await;
    bench.said("echo new > m/new && echo two >> m/old/log && mkdir -p m/x/y && cp m/new m/x/y/z").await;
    bench.said("head -c 40000000 /dev/zero | tee m/large > /dev/null && : > m/empty").await;
    bench.said("printf AB | dd of=m/new bs=1 seek=1 conv=notrunc 2> /dev/null").await;
    let seen = server.python(
        "print(keys())
print(get('new'), get('old/log'), get('x/y/z'), len(get('large')), get('empty'))",
    );
    assert_eq!(
        seen,
        "['empty', 'large', 'new', 'old/log', 'x/y/z']\nb'nAB\\n' b'one\\ntwo\\n' b'new\\n' 40000000 b''\n"
    );
    assert_eq!(bench.said("cat m/new m/old/log && stat -c %s m/large").await, "nAB\none\ntwo\n40000000\n");
    assert_eq!(bench.told(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_renamed_and_removed_and_directories_moved_by_copying() {
    let server = Server::s3();
    server.python("put('a', b'1')\nput('d/one', b'one')\nput('d/two/three', b'three')");
    let bench = writable(&server).await;
    bench.said("mv m/a m/b && mv m/d m/e && rm m/e/one").await;
    assert_eq!(server.python("print(keys())"), "['b', 'e/two/three']\n");
    bench.said("rm -r m/e && [ ! -e m/e ] && mkdir m/f && rmdir m/f").await;
    assert_eq!(server.python("print(keys())"), "['b']\n");
    assert_eq!(bench.run("rmdir m/nothing").await.code, 1);
    let link = bench.run("ln -s b m/link").await;
    assert!(link.code != 0 && link.err.contains("not permitted"), "{link:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_server_refuses_is_an_error_of_closing_it() {
    let server = Server::s3();
    server.python("put('a', b'1')");
    let bench = writable(&server).await;
    assert_eq!(bench.said("cat m/a").await, "1");
    drop(server);
    let ran = bench.run("cp /etc/hostname m/a").await;
    assert!(ran.code != 0, "{ran:?}");
    let told = bench.told();
    assert!(told.iter().any(|line| line.starts_with("mount m: cannot upload 'a': ")), "{told:?}");
}
