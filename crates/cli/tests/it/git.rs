//! Private repositories: fetched with a credential that is the user's alone, from a real git server over HTTPS.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::manifest::tree;
use crate::moor::{Moor, Ran, exec, repository, say};
use crate::tls::TlsServer;

const TOKEN: &str = "a-token-that-only-the-server-may-see";

fn git(at: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(at).args(["-c", "user.name=a", "-c", "user.email=a@a.test"]).args(arguments);
    assert!(command.env("GIT_CONFIG_GLOBAL", "/dev/null").status().unwrap().success());
}

struct Server(TlsServer);

impl Server {
    /// With `acme/app`, whose submodule is `acme/part`.
    fn start(moor: &Moor) -> Self {
        let repositories = moor.path("srv/acme");
        fs_err::create_dir_all(&repositories).unwrap();
        for (name, file) in [("part", "inner.txt"), ("app", "outer.txt")] {
            git(&repositories, &["init", "-q", "-b", "main", &format!("{name}.git")]);
            let at = repositories.join(format!("{name}.git"));
            fs_err::write(at.join(file), "content\n").unwrap();
            git(&at, &["add", "."]);
            if name == "app" {
                fs_err::write(
                    at.join(".gitmodules"),
                    "[submodule \"part\"]\n\tpath = part\n\turl = ../part.git\n",
                )
                .unwrap();
                let mut part = Command::new("git");
                part.args(["-C", "part.git", "rev-parse", "HEAD"]).current_dir(&repositories);
                let part = part.output().unwrap();
                let part = String::from_utf8(part.stdout).unwrap();
                let link = format!("160000,{},part", part.trim());
                git(&at, &["add", ".gitmodules"]);
                git(&at, &["update-index", "--add", "--cacheinfo", &link]);
            }
            git(&at, &["commit", "-q", "-m", "first"]);
        }
        Self(TlsServer::start(moor, |command, both| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/git_server.py");
            command.arg(script).arg(both).arg(moor.path("srv")).env("PASSWORD", TOKEN);
        }))
    }

    fn manifest(&self, repo: &str) -> String {
        format!(
            "entries:\n  src: {{type: git_repo, host: \"localhost:{}\", repo: {repo}, ref: main}}\nx-mooring:\n  \
             secrets: {{deploy-key: {{}}}}\n  git: {{src: {{credentials: deploy-key, submodules: true}}}}\n",
            self.0.port
        )
    }
}

fn run(moor: &Moor, token: Option<&str>, args: &[&str]) -> Ran {
    let mut command = moor.command(args);
    if let Some(token) = token {
        command.env("MOOR_SECRET_DEPLOY_KEY", token);
    }
    command.env("GIT_SSL_CAINFO", moor.path("authority.pem")).output().unwrap().into()
}

/// Whether the token is in any file below a directory.
fn holds_token(at: &Path) -> bool {
    let found = Command::new("grep").args(["-raqF", TOKEN]).arg(at).status().unwrap();
    assert!(matches!(found.code(), Some(0 | 1)), "{found}");
    found.success()
}

#[test]
fn a_private_repository_comes_without_its_credential() {
    let moor = Moor::new();
    let server = Server::start(&moor);
    moor.write("m.yaml", &server.manifest("acme/app"));
    let applied = run(&moor, Some(TOKEN), &["manifest", "apply", "m.yaml", "--root", "out"]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    for file in ["out/src/outer.txt", "out/src/part/inner.txt"] {
        assert_eq!(fs_err::read_to_string(moor.path(file)).unwrap(), "content\n");
    }
    assert!(!holds_token(&moor.path("out")), "not in the workspace, nor in its .git/config");

    moor.write("worker.toml", "name = \"worker\"\nmodel = \"script:worker.jsonl\"\n");
    moor.write(
        "worker.jsonl",
        &(exec(0, &["cat src/part/inner.txt; env; git -C src config --list"]) + &say("done")),
    );
    let ran = run(&moor, Some(TOKEN), &["run", "--agent", "worker.toml", "--manifest", "m.yaml", "go"]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    assert!(ran.out.contains("content"), "{}", ran.out);
    assert!(!ran.out.contains(TOKEN) && !ran.err.contains(TOKEN));
    assert!(!holds_token(&moor.home()), "neither the journal nor the sandbox has it");

    let asked = server.0.asked();
    assert!(asked.contains("localhost /acme/part.git/git-upload-pack with"), "{asked}");
    assert!(!asked.contains("SHOWN"), "no process has it in its arguments: {asked}");
}

#[test]
fn a_credential_is_refused_where_it_is_not_known_and_goes_to_no_other_host() {
    let moor = Moor::new();
    let server = Server::start(&moor);
    moor.write("m.yaml", &server.manifest("acme/app"));
    let apply = ["manifest", "apply", "m.yaml", "--root", "out"];
    let missing = run(&moor, None, &apply);
    assert_eq!(missing.code, Some(2), "{missing:?}");
    insta::assert_snapshot!(
        missing.err,
        @"error: not supported: git credentials 'deploy-key' of entry 'src' on the directory sandbox: no secret of that name is configured on this machine; configure it (`moor` takes MOOR_SECRET_NAME, or [secrets] of config.toml), or remove the credentials"
    );

    let wrong = run(&moor, Some("another-token-of-this-user"), &apply);
    assert_ne!(wrong.code, Some(0));
    assert!(wrong.err.contains("cannot stage entry 'src'"), "{}", wrong.err);
    assert!(!wrong.err.contains("another-token-of-this-user"), "{}", wrong.err);

    // A server that sends git elsewhere gets the credential there from nobody.
    moor.write("m.yaml", &server.manifest("away/acme/app"));
    let away = run(&moor, Some(TOKEN), &apply);
    assert_ne!(away.code, Some(0), "{away:?}");
    assert!(!moor.path("out/src").exists());
    let asked = server.0.asked();
    assert!(asked.contains("127.0.0.1 /acme/app.git/info/refs without"), "{asked}");
    assert!(
        !asked.lines().any(|line| line.starts_with("127.0.0.1") && !line.contains(" without")),
        "{asked}"
    );
}

/// But for what git writes for itself, which differs between two clones.
#[test]
fn a_repository_gives_the_tree_that_the_sdk_gives() {
    let moor = Moor::new();
    let server = Server::start(&moor);
    let open = moor.path("srv/open");
    fs_err::create_dir_all(&open).unwrap();
    git(&open, &["init", "-q", "-b", "main", "lib.git"]);
    let at = open.join("lib.git");
    fs_err::create_dir_all(at.join("pkg/core")).unwrap();
    fs_err::write(at.join("pkg/core/mod.py"), "x = 1\n").unwrap();
    fs_err::write(at.join("run.sh"), "#!/bin/sh\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(at.join("run.sh"), executable).unwrap();
    std::os::unix::fs::symlink("run.sh", at.join("link")).unwrap();
    git(&at, &["add", "."]);
    git(&at, &["commit", "-q", "-m", "first"]);
    git(&at, &["tag", "v1"]);

    let host = format!("localhost:{}", server.0.port);
    let entry = |more: serde_json::Value| {
        let mut entry = json!({ "type": "git_repo", "host": host, "repo": "open/lib", "ref": "main" });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let manifest = json!({ "entries": {
        "whole": entry(json!({})),
        "tag": entry(json!({ "ref": "v1", "permissions": { "owner": 7, "group": 0, "other": 0 } })),
        "part": entry(json!({ "subpath": "pkg/core" })),
    } });
    moor.write("m.json", &manifest.to_string());
    let applied = run(&moor, None, &["manifest", "apply", "m.json", "--root", "ours"]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    moor.write("cases", &(json!({ "manifest": manifest, "root": moor.path("theirs") }).to_string() + "\n"));
    let python = repository().join("target/counterparts/venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup --tests", python.display());
    let staged = Command::new(python)
        .arg(repository().join("crates/cli/tests/stage.py"))
        .current_dir(moor.path("."))
        .stdin(std::fs::File::open(moor.path("cases")).unwrap())
        .env("GIT_SSL_CAINFO", moor.path("authority.pem"))
        .output()
        .unwrap();
    assert!(staged.status.success(), "{}", String::from_utf8_lossy(&staged.stderr));
    let files = |root: &str| {
        let mut tree = tree(&moor.path(root));
        tree.retain(|path, _| !path.components().any(|part| part.as_os_str() == ".git"));
        tree
    };
    assert!(files("ours").len() > 8, "{:?}", files("ours"));
    assert_eq!(files("ours"), files("theirs"));
}
