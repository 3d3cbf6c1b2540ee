//! The same for somebody without rights, where the device may be opened: it is bound over by one that anybody may open.

use std::process::Command;

use serde_json::json;

use crate::support::{Bench, Server, manifest, s3, s3_keys};

const URL: &str = "MOORING_TEST_S3";

/// Mounts a server that somebody else started.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below"]
async fn with_a_server_that_runs() {
    let url = std::env::var(URL).unwrap();
    let mut entry = s3(&url);
    entry["read_only"] = json!(false);
    let bench = Bench::new(manifest(entry, s3_keys())).await;
    assert_eq!(bench.said("cat m/a && echo 2 > m/b && ls m && id -u").await, "1\na\nb\n1000\n");
}

#[test]
fn an_ordinary_user_has_mounts_too() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = Server::s3();
    server.python("put('a', b'1\\n')");
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let program = folder.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let script = "chmod 1777 . && chmod 755 tests && mknod -m 666 fuse c 10 229 && mount --bind fuse /dev/fuse && \
                  exec setpriv --reuid 54321 --regid 54321 --clear-groups -- ./tests --ignored --exact \
                  ordinary_user::with_a_server_that_runs";
    let run = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script])
        .current_dir(folder.path())
        .env("TMPDIR", folder.path())
        .env(URL, &server.url)
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
    assert!(server.python("print(get('b'))").contains('2'));
}
