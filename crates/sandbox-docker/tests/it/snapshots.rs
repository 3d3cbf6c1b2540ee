//! A snapshot taken in one backend's sandbox is restored in another's: the same tree, and none of what the first was
//! allowed.

use std::sync::Arc;

use mooring_manifest::extension::Network;
use mooring_manifest::{Group, Manifest, User};
use mooring_sandbox::{CreateRequest, ExecRequest, Outcome, SandboxClient, SandboxSession};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use mooring_snapshot::{NewSnapshot, SnapshotStore};
use mooring_testkit::PYTHON;
use tempfile::TempDir;

use crate::engine::{Bench, SOON, is_root, out, request};

/// Makes one of everything that must come back.
const FILL: &str = "mkdir -p a/b 'with space'; echo one > a/one; chmod 640 a/one; ln a/one two; chmod 700 'with space'
ln -s /usr/bin/python3 a/b/absolute; ln -s ../../two a/b/relative; ln -s nowhere dangling; mkfifo -m 600 queue; : > empty
python3 -c \"
import os
f = open('holes', 'wb'); f.truncate(8 << 20); f.seek(4 << 20); f.write(b'in the middle'); f.close()
open('big', 'wb').write(bytes(i * i % 251 for i in range(1 << 20)))
os.utime('a/one', ns=(1, 1_000_000_000_123_456_789)); os.utime('a/b', ns=(1, 987_654_321)); os.utime('a/b/absolute', ns=(1, 5), follow_symlinks=False)\"
";

/// All that is told about a tree, by Python, which is the same in both.
const TREE: &str = "python3 -c \"
import grp, hashlib, os, pwd, stat
for folder, folders, files in os.walk('.'):
    for name in folders + files:
        path = os.path.join(folder, name); s = os.lstat(path)
        told = [path, oct(s.st_mode), pwd.getpwuid(s.st_uid).pw_name, grp.getgrgid(s.st_gid).gr_name, s.st_mtime_ns]
        if stat.S_ISLNK(s.st_mode): told.append(os.readlink(path))
        if stat.S_ISREG(s.st_mode):
            told += [s.st_size, s.st_nlink, s.st_blocks * 512 < s.st_size, hashlib.sha256(open(path, 'rb').read()).hexdigest()]
        print(*told)\" | sort";

/// With more users than one, where the caller may have such in the local sandbox.
fn with_users() -> CreateRequest {
    let mut request = request();
    if is_root() {
        let bob = || User { name: "bob".into() };
        let groups = vec![Group { name: "team".into(), users: vec![bob()] }];
        request.manifest = Manifest { users: vec![bob()], groups, ..Manifest::default() };
    }
    request
}

struct Both {
    docker: Bench,
    local: LocalSandboxClient,
    store: SnapshotStore,
    _home: TempDir,
}

impl Both {
    async fn new() -> Option<Self> {
        let docker = Bench::new(|options| options.image = Some(PYTHON.into())).await?;
        let home = tempfile::tempdir().unwrap();
        let local = LocalSandboxClient::new(LocalOptions::new(home.path()));
        let store = SnapshotStore::open(&home.path().join("snapshots")).unwrap();
        Some(Self { docker, local, store, _home: home })
    }

    /// Takes a snapshot in `from` and restores it in `to`.
    async fn carry(&self, from: &dyn SandboxClient, to: &dyn SandboxClient, first: CreateRequest) {
        let one = started(from, first).await;
        out(one.as_ref(), FILL).await;
        if is_root() {
            out(one.as_ref(), "mkdir bobs; chmod 777 bobs").await;
            let mut request =
                ExecRequest::shell("umask 002; echo his > bobs/his; chgrp team bobs/his").timeout(SOON);
            request.user = Some("bob".into());
            assert_eq!(one.exec(request).await.unwrap().outcome, Outcome::Exited { code: 0 });
        }
        let expected = out(one.as_ref(), TREE).await;
        let new = NewSnapshot { id: "taken".into(), ..NewSnapshot::default() };
        let taken = self.store.take(one.as_ref(), new).await.unwrap();

        let other = started(to, with_users()).await;
        out(other.as_ref(), "mkdir old; echo old > old/file").await;
        self.store.restore("taken", other.as_ref()).await.unwrap();
        let restored = out(other.as_ref(), TREE).await;
        assert_eq!(restored, expected);
        for what in ["./queue 0o10600 ", " True ", "./a/b/absolute 0o120777 agent ", " 1000000000123456789 "]
        {
            assert!(expected.contains(what), "{what} is not in {expected}");
        }
        assert_eq!(self.store.look(other.as_ref()).await.unwrap(), taken.root());
        // What it may do is its own manifest's, whatever the first one's was.
        assert_eq!(out(other.as_ref(), "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo\n");
        // And it goes on there.
        out(other.as_ref(), "echo more >> a/one; tail -n 1 two; rm queue").await;
        from.delete(&one.state()).await.unwrap();
        to.delete(&other.state()).await.unwrap();
    }
}

async fn started(client: &dyn SandboxClient, request: CreateRequest) -> Arc<dyn SandboxSession> {
    let session = client.create(request).await.unwrap();
    session.start().await.unwrap();
    session
}

#[tokio::test]
async fn one_taken_locally_is_restored_in_a_container() {
    let Some(both) = Both::new().await else { return };
    both.carry(&both.local, &both.docker.client, with_users()).await;
}

#[tokio::test]
async fn one_taken_in_a_container_is_restored_locally() {
    let Some(both) = Both::new().await else { return };
    let mut open = with_users();
    open.manifest.extension.network = Some(Network::Unrestricted);
    both.carry(&both.docker.client, &both.local, open).await;
}

#[tokio::test]
async fn one_taken_in_a_container_is_restored_in_another() {
    let Some(both) = Both::new().await else { return };
    both.carry(&both.docker.client, &both.docker.client, with_users()).await;
}
