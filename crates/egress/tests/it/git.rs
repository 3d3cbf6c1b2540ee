//! git over HTTPS, with a password that never enters the sandbox: clone and push against `git http-backend`.

use std::path::Path;

use mooring_egress::{Limits, Method, PathPattern, environment};
use tokio::process::Command;

use crate::support::{Output, Proxy, SECRET, Server, allow, binding, finish, line, proxy_with, rule};

/// git as a sandbox runs it: the proxy by the environment, the phantom by a credential helper.
async fn git(proxy: &Proxy, at: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("git");
    command
        .current_dir(at)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", at)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("TOKEN", proxy.phantom("token"))
        .envs(environment(&proxy.address(), proxy.bundle.to_str()))
        .args(["-c", "credential.helper=!f() { echo username=agent; echo \"password=$TOKEN\"; }; f"])
        .args(["-c", "user.name=a", "-c", "user.email=a@a.test"])
        .args(arguments);
    finish(&mut command).await
}

pub(crate) async fn with_repository() -> Server {
    let server = Server::start().await;
    let repos = server.dir.path().join("repos");
    let plain = |arguments: &'static [&'static str]| {
        let mut command = Command::new("git");
        command.current_dir(&repos).args(["-c", "user.name=a", "-c", "user.email=a@a.test"]).args(arguments);
        async move { assert_eq!(finish(&mut command).await.code, Some(0)) }
    };
    plain(&["init", "-q", "-b", "main", "seed"]).await;
    plain(&["-C", "seed", "commit", "-q", "--allow-empty", "-m", "first"]).await;
    plain(&["clone", "-q", "--bare", "seed", "app.git"]).await;
    plain(&["-C", "app.git", "config", "http.receivepack", "true"]).await;
    server
}

#[tokio::test]
async fn a_clone_and_a_push_need_no_credential_in_the_sandbox() {
    let server = with_repository().await;
    let mut policy = allow(vec![rule("git.test", server.port)]);
    let mut secret = binding("git.test", server.port);
    secret.paths = vec![PathPattern::parse("/git/app.git/*").unwrap()];
    policy.secrets = vec![secret];
    let proxy = proxy_with(policy, Limits::default(), &server.root).await;
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("git.test", "/git/app.git");
    let cloned = git(&proxy, dir.path(), &["clone", "-q", &url, "app"]).await;
    assert_eq!(cloned.code, Some(0), "{cloned:?}");
    let app = dir.path().join("app");
    // More than one chunk, and more than what git sends without chunks.
    let noise: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(app.join("big"), &noise).unwrap();
    for arguments in
        [&["add", "big"][..], &["commit", "-q", "-m", "second"], &["push", "-q", "origin", "main"]]
    {
        let done = git(&proxy, &app, arguments).await;
        assert_eq!(done.code, Some(0), "{arguments:?} {done:?}");
    }
    let again = git(&proxy, dir.path(), &["clone", "-q", &url, "again"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(std::fs::read(dir.path().join("again/big")).unwrap(), noise);
    let records = proxy.records(3).await;
    let with_secret = records.iter().filter(|record| record.secrets == ["token"]).count();
    assert!(with_secret >= 6, "{records:#?}");
    // Nothing that the sandbox has holds the value.
    let found = finish(Command::new("grep").args(["-rlF", SECRET]).arg(dir.path())).await;
    assert_eq!(found.out, "");
    assert!(!format!("{records:?}").contains(SECRET));
}

#[tokio::test]
async fn a_credential_may_be_for_reading_one_repository_alone() {
    let server = with_repository().await;
    let mut policy = allow(vec![rule("git.test", server.port)]);
    let read = ["/git/app.git/info/refs", "/git/app.git/git-upload-pack"];
    let mut secret = binding("git.test", server.port);
    secret.methods = vec![Method::GET, Method::POST];
    secret.paths = read.map(|path| PathPattern::parse(path).unwrap()).to_vec();
    policy.secrets = vec![secret];
    let proxy = proxy_with(policy, Limits::default(), &server.root).await;
    let dir = tempfile::tempdir().unwrap();
    let cloned =
        git(&proxy, dir.path(), &["clone", "-q", &server.url("git.test", "/git/app.git"), "app"]).await;
    assert_eq!(cloned.code, Some(0), "{cloned:?}");
    let app = dir.path().join("app");
    git(&proxy, &app, &["commit", "-q", "--allow-empty", "-m", "second"]).await;
    let pushed = git(&proxy, &app, &["push", "-q", "origin", "main"]).await;
    assert_ne!(pushed.code, Some(0), "{pushed:?}");
    let other =
        git(&proxy, dir.path(), &["clone", "-q", &server.url("git.test", "/git/other.git"), "other"]).await;
    assert_ne!(other.code, Some(0), "{other:?}");
    let refused: Vec<_> = proxy
        .records(3)
        .await
        .iter()
        .map(line)
        .filter(|line| line.contains("denied (secret_misplaced)"))
        .collect();
    assert!(
        refused.iter().any(|line| line.starts_with("https git.test POST /git/app.git/git-receive-pack")),
        "{refused:?}"
    );
    assert!(
        refused.iter().any(|line| line.starts_with("https git.test GET /git/other.git/info/refs")),
        "{refused:?}"
    );
}
