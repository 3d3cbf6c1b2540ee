//! `isolation: none`: asked for by name, told by name.

use mooring_manifest::{Manifest, User};
use mooring_sandbox::{CreateRequest, ExecRequest, Outcome, SandboxClient as _, SandboxError};
use mooring_sandbox_local::{IsolationLevel, LocalOptions, LocalSandboxClient};

use crate::setup::{Sandbox, exited, running, seen, unique, until};

async fn open() -> Sandbox {
    Sandbox::with(|options| options.isolation = IsolationLevel::None, Manifest::default(), None).await
}

#[tokio::test]
async fn it_says_so() {
    let sandbox = open().await;
    let isolation = sandbox.session.isolation().unwrap();
    assert_eq!(isolation.level, "none");
    assert_eq!(isolation.mechanisms["network"], "the host's");
    let inside = sandbox.out("readlink /proc/self/ns/pid").await;
    assert_eq!(inside.trim(), std::fs::read_link("/proc/self/ns/pid").unwrap().to_str().unwrap());
}

#[tokio::test]
async fn commands_and_files_work_in_the_workspaces_own_directory() {
    let sandbox = open().await;
    let root = sandbox.session.root().to_owned();
    assert!(std::path::Path::new(&root).starts_with(sandbox.state.path().canonicalize().unwrap()));
    assert_eq!(sandbox.out("pwd; echo x > f").await, format!("{root}\n"));
    assert_eq!(sandbox.session.read("f", 10).await.unwrap(), "x\n");
    assert_eq!(sandbox.session.read(&format!("{root}/f"), 10).await.unwrap(), "x\n");
    let escape = sandbox.session.read("/etc/passwd", 10_000).await;
    assert!(matches!(escape, Err(SandboxError::PathEscape { .. })), "{escape:?}");
    // The host's environment stays out all the same.
    let variables = sandbox.out("env | cut -d= -f1 | sort | tr '\\n' ' '").await;
    assert_eq!(variables, "HOME LANG LOGNAME PATH PWD SHELL SHLVL USER _ ");
}

#[tokio::test]
async fn nothing_survives_here_either() {
    let sandbox = open().await;
    let mark = unique("mark");
    let line =
        format!("(setsid bash -c 'trap \"\" TERM; exec -a {mark} sleep 1000' &) ; echo before; sleep 1000");
    let request = ExecRequest::shell(&line).timeout(std::time::Duration::from_millis(1500));
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(seen(&result), ("before\n".into(), String::new(), Outcome::TimedOut));
    assert_eq!(running(&mark), 0);
    let _process = sandbox.session.spawn(ExecRequest::shell(&line)).await.unwrap();
    until("it runs", || running(&mark) >= 1).await;
    sandbox.session.stop().await.unwrap();
    assert_eq!(running(&mark), 0);
    sandbox.session.start().await.unwrap();
    // Even when the supervisor is killed.
    let _process = sandbox.session.spawn(ExecRequest::shell(&line)).await.unwrap();
    until("it runs", || running(&mark) >= 1).await;
    let killed = sandbox.session.exec(ExecRequest::shell("kill -9 $(ps -o ppid= $PPID); sleep 1000")).await;
    assert!(matches!(killed, Err(SandboxError::Gone { .. })), "{killed:?}");
    until("all of it is gone", || running(&mark) == 0).await;
}

#[tokio::test]
async fn terminals_work() {
    let sandbox = open().await;
    let mut request = ExecRequest::shell("test -t 0 && echo yes");
    request.tty = Some(mooring_sandbox::TtySize::default());
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(seen(&result), ("yes\r\n".into(), String::new(), exited(0)));
}

#[tokio::test]
async fn what_it_cannot_do_is_refused_and_it_is_not_mixed_up_with_isolation() {
    let sandbox = open().await;
    assert!(!sandbox.client.support().users);
    let manifest = Manifest { users: vec![User { name: "alice".into() }], ..Manifest::default() };
    let request = CreateRequest { session_id: "x".into(), manifest, workspace: None };
    assert!(matches!(sandbox.client.create(request).await, Err(SandboxError::Unsupported { .. })));
    let isolating = LocalSandboxClient::new(LocalOptions::new(sandbox.state.path()));
    let refused = isolating.resume(sandbox.session.state()).await.unwrap_err();
    assert!(refused.to_string().contains("made with isolation None"), "{refused}");
}
