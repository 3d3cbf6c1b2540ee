//! Repositories, with a real git and a real repository, and no network.

use std::fs;
use std::path::Path;
use std::process::Command;

use mooring_manifest::Manifest;
use mooring_sandbox::{Plan, Support, materialise};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DirSession, listing, plan, refusal, write};

fn git(directory: &Path, arguments: &[&str]) -> String {
    let done = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_COMMITTER_DATE", "2024-05-06T07:08:09Z")
        .env("GIT_AUTHOR_DATE", "2024-05-06T07:08:09Z")
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

pub(crate) struct Repository {
    pub(crate) base: TempDir,
    first: String,
    pub(crate) second: String,
}

impl Repository {
    /// `srv/o/r` with two commits, a tag on the first, and a branch that looks like a commit.
    pub(crate) fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let work = base.path().join("srv/o/r");
        fs::create_dir_all(&work).unwrap();
        git(&work, &["init", "--quiet"]);
        write(work.join("README"), "one\n");
        write(work.join("pkg/core/mod.py"), "x = 1\n");
        std::os::unix::fs::symlink("/etc/passwd", work.join("absolute")).unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "-m", "one"]);
        git(&work, &["tag", "v1"]);
        git(&work, &["branch", "deadbee"]);
        let first = git(&work, &["rev-parse", "HEAD"]);
        write(work.join("README"), "two\n");
        git(&work, &["commit", "--quiet", "-am", "two"]);
        let second = git(&work, &["rev-parse", "HEAD"]);
        Self { base, first, second }
    }

    pub(crate) fn entry(&self, reference: &str) -> Value {
        json!({
            "type": "git_repo", "host": format!("file://{}/srv", self.base.path().display()), "repo": "o/r",
            "ref": reference,
        })
    }

    /// Commits one changed file on the branch `main`.
    pub(crate) fn commit(&self, path: &str, content: &str) -> String {
        let work = self.base.path().join("srv/o/r");
        write(work.join(path), content);
        git(&work, &["commit", "--quiet", "-am", "more"]);
        git(&work, &["rev-parse", "HEAD"])
    }

    async fn staged(&self, entry: &Value) -> (DirSession, mooring_sandbox::Materialised) {
        let session = DirSession::new();
        let plan = plan(&json!({ "repo": entry }), self.base.path()).unwrap();
        let staged = materialise(&plan, &session).await.unwrap();
        (session, staged)
    }

    async fn failure(&self, entry: &Value) -> String {
        let plan = plan(&json!({ "repo": entry }), self.base.path()).unwrap();
        let message = materialise(&plan, &DirSession::new()).await.unwrap_err().to_string();
        message.replace(&self.base.path().display().to_string(), "BASE")
    }
}

#[tokio::test]
async fn every_form_of_reference_gives_its_commit() {
    let repository = Repository::new();
    for (reference, commit, readme) in [
        ("main", &repository.second, "two\n"),
        ("v1", &repository.first, "one\n"),
        ("deadbee", &repository.first, "one\n"),
        (repository.first.as_str(), &repository.first, "one\n"),
        (&repository.second.to_uppercase(), &repository.second, "two\n"),
    ] {
        let (session, staged) = repository.staged(&repository.entry(reference)).await;
        assert_eq!(staged.commits, [("repo".to_owned(), commit.clone())].into(), "{reference}");
        let root = session.path().join("repo");
        assert_eq!(fs::read_to_string(root.join("README")).unwrap(), readme, "{reference}");
        assert_eq!(git(&root, &["rev-parse", "HEAD"]), *commit, "{reference}: .git comes along");
        assert_eq!(git(&root, &["status", "--porcelain"]), "", "{reference}");
        assert_eq!(
            git(&root, &["rev-list", "--count", "HEAD"]),
            "1",
            "{reference}: only one commit is fetched"
        );
        assert!(!root.join(".git/hooks").exists(), "{reference}");
    }
}

#[tokio::test]
async fn two_clones_of_a_commit_have_one_digest_and_the_commits_time() {
    let repository = Repository::new();
    let (session, one) = repository.staged(&repository.entry("v1")).await;
    let (_, two) = repository.staged(&repository.entry(&repository.first)).await;
    assert_eq!(one.digest, two.digest);
    let readme = fs::metadata(session.path().join("repo/README")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&readme), 1_714_979_289);
    insta::assert_snapshot!(listing(session.path()));
}

#[tokio::test]
async fn a_subpath_comes_without_git() {
    let repository = Repository::new();
    let mut entry = repository.entry("main");
    entry["subpath"] = "pkg".into();
    let (session, _) = repository.staged(&entry).await;
    assert_eq!(
        listing(session.path()),
        "repo: dir 755\nrepo/core: dir 755\nrepo/core/mod.py: 644 \"x = 1\\n\"\n"
    );
    assert!(!session.path().join("repo/.git").exists());
}

#[tokio::test]
async fn what_git_cannot_find_is_said_in_its_words() {
    let repository = Repository::new();
    let mut messages = vec![
        repository.failure(&repository.entry("no-such-branch")).await,
        repository
            .failure(&repository.entry(&repository.first[..8]))
            .await
            .replace(&repository.first[..8], "SHORT"),
        repository.failure(&repository.entry(&"0".repeat(40))).await,
    ];
    for subpath in ["no/such", "README", "absolute"] {
        let mut entry = repository.entry("main");
        entry["subpath"] = subpath.into();
        messages.push(repository.failure(&entry).await);
    }
    insta::assert_snapshot!(messages.join("\n"));
}

#[tokio::test]
async fn a_repository_cannot_run_anything() {
    let repository = Repository::new();
    let work = repository.base.path().join("srv/o/r");
    let mark = repository.base.path().join("ran");
    let program = repository.base.path().join("evil.sh");
    write(program.clone(), &format!("#!/bin/sh\ntouch {}\ncat\n", mark.display()));
    crate::support::chmod(program.clone(), 0o755);
    let run = program.display().to_string();
    write(work.join(".gitattributes"), "* filter=evil\n");
    write(work.join(".gitconfig"), &format!("[core]\n\tfsmonitor = {run}\n"));
    write(work.join(".gitmodules"), "[submodule \"m\"]\n\tpath = m\n\turl = ../r\n\tupdate = !false\n");
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "evil"]);
    for hook in ["post-checkout", "post-merge", "reference-transaction"] {
        write(work.join(".git/hooks").join(hook), &format!("#!/bin/sh\ntouch {}\n", mark.display()));
        crate::support::chmod(work.join(".git/hooks").join(hook), 0o755);
    }
    git(&work, &["config", "filter.evil.smudge", &run]);
    git(&work, &["config", "uploadpack.packObjectsHook", &run]);
    let (session, _) = repository.staged(&repository.entry("main")).await;
    assert!(session.path().join("repo/.gitattributes").exists());
    assert!(!mark.exists());
}

#[test]
fn a_repository_on_the_host_must_be_below_the_base() {
    let repository = Repository::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let message = refusal(&json!({ "r": repository.entry("main") }), elsewhere.path());
    assert!(message.contains("is outside of the base directory"), "{message}");
    let mut missing = repository.entry("main");
    missing["repo"] = "o/other".into();
    let message = refusal(&json!({ "r": missing }), repository.base.path());
    assert_eq!(message, "cannot stage entry 'r': 'srv/o/other' does not exist");
}

/// A manifest with one repository and how it is fetched.
fn with_options(entry: &Value, options: &Value) -> Manifest {
    let value = json!({ "entries": { "repo": entry }, "x-mooring": { "git": { "repo": options } } });
    let manifest = Manifest::from_value(&value).unwrap();
    manifest.validate().unwrap();
    manifest
}

async fn fetched(manifest: &Manifest, base: &Path) -> Result<DirSession, String> {
    let session = DirSession::new();
    let support = Support { setup: true, ..Support::default() };
    let plan = Plan::new(manifest, base, &support, "directory").map_err(|error| error.to_string())?;
    materialise(&plan, &session).await.map_err(|error| error.to_string())?;
    Ok(session)
}

#[tokio::test]
async fn history_comes_as_deep_as_asked() {
    let repository = Repository::new();
    for (reference, depth, commits) in [
        ("main", json!(1), "1"),
        ("main", json!("full"), "2"),
        ("v1", json!("full"), "1"),
        ("main", json!(2), "2"),
    ] {
        for reference in
            [reference.to_owned(), git(&repository.base.path().join("srv/o/r"), &["rev-parse", reference])]
        {
            let manifest = with_options(&repository.entry(&reference), &json!({ "depth": depth }));
            let session = fetched(&manifest, repository.base.path()).await.unwrap();
            let count = git(&session.path().join("repo"), &["rev-list", "--count", "HEAD"]);
            assert_eq!(count, commits, "{reference} {depth}");
        }
    }
}

/// `srv/o/r` gets a submodule `lib` at `url`, which is `srv/o/lib` with a submodule `inner` of its own.
fn add_submodules(repository: &Repository, url: &str) {
    let srv = repository.base.path().join("srv/o");
    for (name, inner) in [("inner", None), ("lib", Some("../inner"))] {
        let work = srv.join(name);
        fs::create_dir_all(&work).unwrap();
        git(&work, &["init", "--quiet"]);
        write(work.join(name), name);
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "-m", name]);
        if let Some(url) = inner {
            let origin = format!("file://{}/lib", srv.display());
            git(&work, &["remote", "add", "origin", &origin]);
            git(&work, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "in"]);
            git(&work, &["commit", "--quiet", "-m", "with inner"]);
        }
    }
    let work = srv.join("r");
    let lib = format!("file://{}/lib", srv.display());
    git(&work, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &lib, "lib"]);
    git(&work, &["config", "--file", ".gitmodules", "submodule.lib.url", url]);
    git(&work, &["commit", "--quiet", "-am", "with lib"]);
}

#[tokio::test]
async fn submodules_come_where_asked_at_every_depth() {
    let repository = Repository::new();
    add_submodules(&repository, "../lib");
    let entry = repository.entry("main");
    let session =
        fetched(&with_options(&entry, &json!({ "submodules": true })), repository.base.path()).await;
    let session = session.unwrap();
    let root = session.path().join("repo");
    assert_eq!(fs::read_to_string(root.join("lib/lib")).unwrap(), "lib");
    assert_eq!(fs::read_to_string(root.join("lib/in/inner")).unwrap(), "inner");
    assert_eq!(git(&root, &["status", "--porcelain"]), "");
    assert_eq!(git(&root.join("lib"), &["rev-list", "--count", "HEAD"]), "1");

    let session = fetched(&with_options(&entry, &json!({})), repository.base.path()).await.unwrap();
    assert_eq!(fs::read_dir(session.path().join("repo/lib")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_submodule_leads_nowhere_else() {
    let elsewhere = Repository::new();
    let other = format!("file://{}/srv/o/r", elsewhere.base.path().display());
    let mut found = String::new();
    for url in
        [other.as_str(), "../../../../../../etc", "https://example.invalid/x.git", "-x", "ext::sh -c id"]
    {
        let repository = Repository::new();
        add_submodules(&repository, url);
        let manifest = with_options(&repository.entry("main"), &json!({ "submodules": true }));
        let refused = fetched(&manifest, repository.base.path()).await.unwrap_err();
        let refused = refused.replace(&repository.base.path().display().to_string(), "BASE");
        found += &(refused.replace(&elsewhere.base.path().display().to_string(), "ELSEWHERE") + "\n");
    }
    insta::assert_snapshot!(found);
}

#[tokio::test]
async fn files_in_lfs_come_where_asked() {
    let repository = Repository::new();
    let work = repository.base.path().join("srv/o/r");
    git(&work, &["lfs", "install", "--local"]);
    git(&work, &["lfs", "track", "*.bin"]);
    write(work.join("data.bin"), "large");
    // It must not be asked: it could be any host.
    write(work.join(".lfsconfig"), "[lfs]\n\turl = https://example.invalid/lfs\n");
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "large"]);
    let entry = repository.entry("main");
    let session =
        fetched(&with_options(&entry, &json!({ "lfs": true })), repository.base.path()).await.unwrap();
    assert_eq!(fs::read_to_string(session.path().join("repo/data.bin")).unwrap(), "large");

    let session = fetched(&with_options(&entry, &json!({})), repository.base.path()).await.unwrap();
    let pointer = fs::read_to_string(session.path().join("repo/data.bin")).unwrap();
    assert!(pointer.starts_with("version https://git-lfs.github.com/spec/v1"), "{pointer}");
}

#[test]
fn credentials_that_nobody_has_are_refused_by_name() {
    let entry = json!({ "type": "git_repo", "repo": "acme/private", "ref": "main" });
    let value = json!({ "entries": { "src": entry }, "x-mooring": {
        "git": { "src": { "credentials": "deploy-key" } }, "secrets": { "deploy-key": {} },
    } });
    let manifest = Manifest::from_value(&value).unwrap();
    insta::assert_snapshot!(
        Plan::new(&manifest, Path::new("."), &Support::default(), "local").unwrap_err(),
        @"not supported: git credentials 'deploy-key' of entry 'src' on the local sandbox: no secret of that name is configured on this machine; configure it (`moor` takes MOOR_SECRET_NAME, or [secrets] of config.toml), or remove the credentials"
    );
}
