//! A process that is killed while it takes a snapshot leaves a whole one or none, and nothing that stands in the way.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use mooring_snapshot::SnapshotStore;

use crate::support::{Dir, Place, tree};

const WORKSPACE: &str = "SNAPSHOT_TEST_WORKSPACE";
const STORE: &str = "SNAPSHOT_TEST_STORE";

/// Not a test: what the test below starts and kills. Takes snapshots until then.
#[tokio::test]
async fn child() {
    let (Ok(workspace), Ok(store)) = (std::env::var(WORKSPACE), std::env::var(STORE)) else { return };
    let store = SnapshotStore::open(store.as_ref()).unwrap();
    let dir = Dir { path: workspace.into(), near: true, of: None };
    for number in 0.. {
        for file in 0..60_u8 {
            let mut content = vec![0; 400_000];
            blake3::Hasher::new().update(&[file]).update(&[number]).finalize_xof().fill(&mut content);
            fs::write(dir.path.join(format!("f{file}")), content).unwrap();
        }
        let id = format!("{}-{number}", std::process::id());
        let new = mooring_snapshot::NewSnapshot { id, taken_ms: number.into(), ..Default::default() };
        store.take(&dir, new).await.unwrap();
    }
}

#[tokio::test]
async fn killed_at_any_moment() {
    let place = Place::new();
    let workspace = place.near("one");
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(WORKSPACE, &workspace.path)
            .env(STORE, place.home.path().join("store"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300 + 370 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        for snapshot in place.store.list().unwrap() {
            let copy = place.near("copy");
            place.store.restore(&snapshot.id, &copy).await.unwrap();
            assert_eq!(tree(&copy.path).len() as u64, snapshot.files, "{}", snapshot.id);
            let again = place.take(&copy, "check").await;
            assert_eq!(again.digest, snapshot.digest);
            place.store.remove("check").unwrap();
            place.store.remove(&snapshot.id).unwrap();
            fs::remove_dir_all(&copy.path).unwrap();
        }
    }
    assert!(place.store.prune(&[]).unwrap().objects > 0, "what was killed had written something");
    place.take(&workspace, "after").await;
}
