//! A workspace is tomorrow what it was when it was locked.

use mooring_manifest::{EntryKind, Manifest, RelPath};
use mooring_sandbox::{Lock, Plan, Support, materialise};
use serde_json::json;

use crate::git::Repository;
use crate::support::{DirSession, write};

fn manifest(repository: &Repository) -> Manifest {
    let mut repo = repository.entry("main");
    repo["subpath"] = "pkg".into();
    Manifest::from_value(&json!({ "entries": {
        "note": { "type": "file", "content": "hello" },
        "src": { "type": "dir", "children": { "deep/repo": repo } },
        "docs": { "type": "local_dir", "src": "docs" },
    } }))
    .unwrap()
}

fn plan(manifest: &Manifest, repository: &Repository) -> Plan {
    Plan::new(manifest, repository.base.path(), &Support::default(), "directory").unwrap()
}

#[tokio::test]
async fn a_locked_branch_stays_where_it_was() {
    let repository = Repository::new();
    write(repository.base.path().join("docs/a"), "a");
    let manifest = manifest(&repository);
    let lock = Lock::of(&manifest, &plan(&manifest, &repository)).await.unwrap();
    assert_eq!(lock, Lock::from_json(&lock.to_json().unwrap()).unwrap());
    let paths: Vec<_> = lock.entries.keys().map(String::as_str).collect();
    assert_eq!(paths, ["docs", "note", "src", "src/deep/repo"]);
    assert_eq!(lock.entries["src/deep/repo"].commit.as_deref(), Some(repository.second.as_str()));

    let third = repository.commit("pkg/core/mod.py", "x = 3\n");
    assert_ne!(third, repository.second);
    let mut pinned = lock.pin(&manifest).unwrap();
    let entry = pinned.entry_mut(&RelPath::parse("src/deep/repo").unwrap()).unwrap();
    assert!(matches!(&entry.kind, EntryKind::GitRepo(repo) if repo.reference == repository.second));
    let plan = plan(&pinned, &repository);
    lock.verify(&plan).unwrap();
    let session = DirSession::new();
    let staged = materialise(&plan, &session).await.unwrap();
    assert_eq!(staged.commits["src/deep/repo"], repository.second);
    assert_eq!(std::fs::read_to_string(session.path().join("src/deep/repo/core/mod.py")).unwrap(), "x = 1\n");
}

#[tokio::test]
async fn what_differs_from_the_lock_is_refused_by_name() {
    let repository = Repository::new();
    write(repository.base.path().join("docs/a"), "a");
    let before = manifest(&repository);
    let plan = plan(&before, &repository);
    let lock = Lock::of(&before, &plan).await.unwrap();
    write(repository.base.path().join("docs/a"), "b");
    let refused = lock.verify(&plan).unwrap_err().to_string();
    assert!(
        refused.starts_with("cannot stage entry 'docs': it is not what was locked: it was "),
        "{refused}"
    );
    write(repository.base.path().join("docs/a"), "a");
    // Only content, names and modes count.
    lock.verify(&plan).unwrap();
    write(repository.base.path().join("docs/b"), "");
    lock.verify(&plan).unwrap_err();

    let mut changed = before.clone();
    changed.root = "/other".into();
    let refused = lock.pin(&changed).unwrap_err().to_string();
    assert!(refused.contains("the manifest changed since it was locked"), "{refused}");
    for text in ["", "{}", &lock.to_json().unwrap().replace("\"version\": 1", "\"version\": 2")] {
        assert!(Lock::from_json(text).is_err(), "{text}");
    }
}
