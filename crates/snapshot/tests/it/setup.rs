//! The result of set-up commands: kept for the next sandbox that begins alike, and for no other.

use mooring_manifest::Manifest;
use mooring_sandbox::{
    CreateRequest, Materialised, Plan, SandboxClient as _, SandboxError, SandboxSession, SetUp,
};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use mooring_snapshot::SnapshotStore;
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;

struct World {
    store: SnapshotStore,
    client: LocalSandboxClient,
    made: std::cell::Cell<u32>,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(&dir.path().join("snapshots")).unwrap();
        let client = LocalSandboxClient::new(LocalOptions::new(dir.path()));
        Self { store, client, made: std::cell::Cell::default(), dir }
    }

    async fn session(&self, value: &Value) -> (Arc<dyn SandboxSession>, Manifest, Plan) {
        self.made.set(self.made.get() + 1);
        let manifest = Manifest::from_value(value).unwrap();
        let plan = Plan::new(&manifest, self.dir.path(), &self.client.support(), "local").unwrap();
        let session_id = format!("s{}", self.made.get());
        let request = CreateRequest { session_id, manifest: manifest.clone(), workspace: None };
        let session = self.client.create(request).await.unwrap();
        session.start().await.unwrap();
        (session, manifest, plan)
    }

    async fn staged(&self, value: &Value) -> Result<(Materialised, Arc<dyn SandboxSession>), SandboxError> {
        let (session, manifest, plan) = self.session(value).await;
        let staged = self.store.materialise(&plan, &manifest, session.as_ref(), 7).await?;
        Ok((staged, session))
    }

    async fn how(&self, value: &Value) -> SetUp {
        self.staged(value).await.unwrap().0.setup.unwrap()
    }
}

fn manifest(content: &str, command: &str) -> Value {
    json!({
        "entries": { "in.txt": { "type": "file", "content": content } },
        "x-mooring": { "setup": [command] },
    })
}

async fn read(session: &dyn SandboxSession, path: &str) -> String {
    String::from_utf8(session.read(path, 1000).await.unwrap().to_vec()).unwrap()
}

/// What it makes differs each time it runs.
const MAKE: &str = "mkdir -p out; { cat in.txt; cat /proc/sys/kernel/random/uuid; } > out/made; rm in.txt";

#[tokio::test]
async fn a_set_up_runs_once_for_all_sandboxes_that_begin_alike() {
    let world = World::new();
    let (first, one) = world.staged(&manifest("a", MAKE)).await.unwrap();
    assert_eq!(first.setup, Some(SetUp::Kept));
    let (second, two) = world.staged(&manifest("a", MAKE)).await.unwrap();
    assert_eq!(second.setup, Some(SetUp::Cached));
    assert_eq!(read(two.as_ref(), "out/made").await, read(one.as_ref(), "out/made").await);
    let gone = two.stat("in.txt").await.unwrap_err();
    assert!(matches!(gone, SandboxError::NotFound { .. }), "what it removed is not there: {gone}");
    // What one does afterwards is its own.
    two.remove("out", true).await.unwrap();
    let (_, three) = world.staged(&manifest("a", MAKE)).await.unwrap();
    assert_eq!(read(three.as_ref(), "out/made").await, read(one.as_ref(), "out/made").await);
    // Other entries or other commands are something else.
    assert_eq!(world.how(&manifest("b", MAKE)).await, SetUp::Kept);
    assert_eq!(world.how(&manifest("a", "true")).await, SetUp::Kept);
    let mut variable = manifest("a", MAKE);
    variable["environment"] = json!({ "value": { "X": "1" } });
    assert_eq!(world.how(&variable).await, SetUp::Kept);
    assert_eq!(world.how(&variable).await, SetUp::Cached);
}

#[tokio::test]
async fn a_file_of_the_host_that_changed_is_another_beginning() {
    let world = World::new();
    std::fs::write(world.dir.path().join("source"), "one").unwrap();
    let value = json!({
        "entries": { "in.txt": { "type": "local_file", "src": "source" } }, "x-mooring": { "setup": [MAKE] },
    });
    assert_eq!(world.how(&value).await, SetUp::Kept);
    assert_eq!(world.how(&value).await, SetUp::Cached);
    std::fs::write(world.dir.path().join("source"), "two").unwrap();
    assert_eq!(world.how(&value).await, SetUp::Kept);
}

#[tokio::test]
async fn what_failed_has_secrets_or_was_not_empty_is_not_kept() {
    let world = World::new();
    let failing = manifest("a", "echo half > half; exit 3");
    for _ in 0..2 {
        let error = world.staged(&failing).await.unwrap_err();
        assert!(matches!(error, SandboxError::Setup { .. }), "{error}");
    }
    let (session, manifest_read, plan) = world.session(&manifest("a", MAKE)).await;
    session.mkdir("mine", false).await.unwrap();
    let staged = world.store.materialise(&plan, &manifest_read, session.as_ref(), 7).await.unwrap();
    assert!(matches!(staged.setup, Some(SetUp::Ran { .. })), "{staged:?}");
    assert!(session.stat("mine").await.is_ok());

    let mut secret = manifest("a", MAKE);
    let (session, _, plan) = world.session(&secret).await;
    secret["x-mooring"]["secrets"] = json!({ "key": { "env": "KEY", "inject": [{ "host": "a.test" }] } });
    let with_secret = Manifest::from_value(&secret).unwrap();
    let staged = world.store.materialise(&plan, &with_secret, session.as_ref(), 7).await.unwrap();
    assert!(matches!(staged.setup, Some(SetUp::Ran { .. })), "{staged:?}");
    assert_eq!(world.store.list().unwrap(), []);
}
