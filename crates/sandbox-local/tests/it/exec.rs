//! Commands: how they are run, and what they see of the call.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{
    CommandLine, Cursor, ExecRequest, Outcome, SandboxError, Stdin, WriteOptions, collect,
};

use crate::setup::{SOON, Sandbox, exited, seen};

#[tokio::test]
async fn arguments_reach_the_program_as_they_are() {
    let sandbox = Sandbox::new().await;
    let request = ExecRequest::argv(["printf", "%s|", "a b", "$HOME", "*", "", "é\n"]);
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(seen(&result), ("a b|$HOME|*||é\n|".into(), String::new(), exited(0)));
}

#[tokio::test]
async fn both_streams_and_the_exit_code_come_back() {
    let sandbox = Sandbox::new().await;
    let result = sandbox.sh("echo out; echo err >&2; exit 7").await;
    assert_eq!(seen(&result), ("out\n".into(), "err\n".into(), exited(7)));
}

#[tokio::test]
async fn a_signal_is_told_as_a_signal() {
    let sandbox = Sandbox::new().await;
    assert_eq!(sandbox.sh("kill -SEGV $$").await.outcome, Outcome::Signalled { signal: 11 });
    assert_eq!(sandbox.sh("kill -KILL $$").await.outcome, Outcome::Signalled { signal: 9 });
}

#[tokio::test]
async fn the_default_directory_is_the_root_and_others_are_below_it_or_absolute() {
    let sandbox = Sandbox::new().await;
    assert_eq!(sandbox.out("mkdir -p deep/er; pwd").await, "/workspace\n");
    for (cwd, expected) in
        [("deep/er", "/workspace/deep/er\n"), ("/usr", "/usr\n"), ("/workspace/deep", "/workspace/deep\n")]
    {
        let result = sandbox.session.exec(ExecRequest::argv(["pwd"]).cwd(cwd)).await.unwrap();
        assert_eq!(result.stdout.text(), expected, "{cwd}");
    }
}

#[tokio::test]
async fn a_background_command_keeps_the_directory() {
    let sandbox = Sandbox::new().await;
    let out = sandbox.out("mkdir d; cd d && true & pwd; wait").await;
    assert_eq!(out, "/workspace\n");
    let result = sandbox.session.exec(ExecRequest::shell("true & pwd; wait").cwd("d")).await.unwrap();
    assert_eq!(seen(&result), ("/workspace/d\n".into(), String::new(), exited(0)));
}

#[tokio::test]
async fn variables_are_the_sandboxs_and_the_calls_and_none_of_the_hosts() {
    let sandbox = Sandbox::new().await;
    let mut request = ExecRequest::argv(["/usr/bin/env"]);
    request.env = BTreeMap::from([("LANG".into(), "C".into()), ("MINE".into(), "a=b c".into())]);
    let result = sandbox.session.exec(request).await.unwrap();
    let mut lines: Vec<String> = result.stdout.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "HOME=/workspace",
            "LANG=C",
            "LOGNAME=agent",
            "MINE=a=b c",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SHELL=/bin/bash",
            "USER=agent",
        ]
    );
}

#[tokio::test]
async fn standard_input_is_nothing_bytes_or_open() {
    let sandbox = Sandbox::new().await;
    assert_eq!(sandbox.out("cat").await, "");

    let big: Bytes = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut request = ExecRequest::argv(["cat"]);
    request.stdin = Stdin::Bytes(big.clone());
    request.output_limit = 8 << 20;
    let result = sandbox.session.exec(request).await.unwrap();
    assert!(result.stdout.data == big, "{} bytes of {} came back", result.stdout.data.len(), big.len());

    let mut request = ExecRequest::argv(["cat"]);
    request.stdin = Stdin::Open;
    let process = sandbox.session.spawn(request).await.unwrap();
    process.write_stdin("one ".into()).await.unwrap();
    let first = process.output(Cursor(0), 100, SOON).await.unwrap();
    assert_eq!((&first.pieces[0].data[..], first.outcome), (&b"one "[..], None));
    process.write_stdin("two".into()).await.unwrap();
    process.close_stdin().await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!(seen(&result), ("one two".into(), String::new(), exited(0)));

    let refused = process.write_stdin("three".into()).await;
    assert!(matches!(refused, Err(SandboxError::Invalid { .. })), "{refused:?}");
    process.release().await.unwrap();
}

#[tokio::test]
async fn an_input_that_nobody_reads_is_bounded() {
    let sandbox = Sandbox::new().await;
    let mut request = ExecRequest::argv(["sleep", "100"]);
    request.stdin = Stdin::Open;
    let process = sandbox.session.spawn(request).await.unwrap();
    let mut sent = 0;
    let refused = loop {
        match process.write_stdin(Bytes::from(vec![0; 1 << 20])).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!((1..8).contains(&sent), "{sent} MiB were taken");
    assert!(refused.to_string().contains("does not read its standard input"), "{refused}");
}

#[tokio::test]
async fn a_shell_can_be_named_and_can_be_a_login_shell() {
    let sandbox = Sandbox::new().await;
    let shell = |shell: Option<&str>, login| {
        let line = "echo $0; shopt -q login_shell 2>/dev/null && echo login; true".to_owned();
        ExecRequest::new(CommandLine::Shell { line, shell: shell.map(str::to_owned), login })
    };
    let out = async |request| sandbox.session.exec(request).await.unwrap().stdout.text();
    assert_eq!(out(shell(None, false)).await, "/bin/bash\n");
    assert_eq!(out(shell(None, true)).await, "/bin/bash\nlogin\n");
    assert_eq!(out(shell(Some("sh"), false)).await, "sh\n");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let sandbox = Sandbox::new().await;
    let options = WriteOptions { mode: Some(0o755), ..WriteOptions::default() };
    sandbox.session.write("noexec", "echo\n".into(), WriteOptions::default()).await.unwrap();
    sandbox.session.write("garbage", "\0\0".into(), options).await.unwrap();
    let start = async |request: ExecRequest| match sandbox.session.exec(request).await {
        Err(error @ SandboxError::Start { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        start(ExecRequest::argv(["no-such-program", "x"])).await,
        "cannot start no-such-program x: the program: No such file or directory (os error 2)"
    );
    assert_eq!(
        start(ExecRequest::argv(["./noexec"])).await,
        "cannot start ./noexec: the program: Permission denied (os error 13)"
    );
    assert_eq!(
        start(ExecRequest::argv(["./garbage"])).await,
        "cannot start ./garbage: the program: Exec format error (os error 8); a script needs a first line such as \
         #!/bin/sh"
    );
    assert_eq!(
        start(ExecRequest::argv(["true"]).cwd("nowhere")).await,
        "cannot start true: its working directory: No such file or directory (os error 2)"
    );
    let mut request = ExecRequest::argv(["true"]);
    request.user = Some("nobody-we-know".into());
    assert_eq!(
        start(request).await,
        "cannot start true: no user 'nobody-we-know': declare it in the manifest"
    );
    let mut request = ExecRequest::argv(["true"]);
    request.env = BTreeMap::from([("A=B".into(), "x".into())]);
    assert_eq!(start(request).await, "cannot start true: 'A=B' is no name for a variable");
    assert!(start(ExecRequest::argv(["a\0b"])).await.contains("a NUL byte"));
    let empty = sandbox.session.exec(ExecRequest::argv(Vec::<String>::new())).await;
    assert!(matches!(empty, Err(SandboxError::Invalid { .. })), "{empty:?}");
    // None of it harmed the session.
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

#[tokio::test]
async fn a_program_in_a_later_directory_of_path_is_found() {
    let sandbox = Sandbox::new().await;
    sandbox.out("mkdir bin1 bin2; printf '#!/bin/sh\necho mine\n' > bin2/tool; chmod +x bin2/tool").await;
    let mut request = ExecRequest::argv(["tool"]);
    request.env = BTreeMap::from([("PATH".into(), "/workspace/bin1:/nowhere:/workspace/bin2".into())]);
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(seen(&result), ("mine\n".into(), String::new(), exited(0)));
}

#[tokio::test]
async fn commands_run_side_by_side() {
    let sandbox = Sandbox::new().await;
    // Each waits for all others; one after the other they would never end.
    let line = "touch m$N; while [ $(ls m* | wc -l) -lt 20 ]; do sleep 0.02; done; echo $N";
    let commands = (0..20).map(|number| {
        let mut request = ExecRequest::shell(line).timeout(SOON);
        request.env = BTreeMap::from([("N".into(), number.to_string())]);
        sandbox.session.exec(request)
    });
    let results = futures::future::join_all(commands).await;
    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap().stdout.text(), format!("{number}\n"));
    }
}

#[tokio::test]
async fn a_signal_reaches_the_commands_group() {
    let sandbox = Sandbox::new().await;
    let line = "trap 'echo got it; exit 3' USR1; echo ready; while true; do sleep 0.02; done";
    let process = sandbox.session.spawn(ExecRequest::shell(line).timeout(SOON)).await.unwrap();
    process.output(Cursor(0), 100, SOON).await.unwrap();
    process.signal(libc::SIGUSR1).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!((result.stdout.text().as_str(), result.outcome), ("ready\ngot it\n", exited(3)));
    // Too late is no error; nonsense is one.
    process.signal(libc::SIGUSR1).await.unwrap();
    let running = sandbox.session.spawn(ExecRequest::argv(["sleep", "100"])).await.unwrap();
    assert!(matches!(running.signal(999).await, Err(SandboxError::Invalid { .. })));
}

#[tokio::test]
async fn a_released_process_is_forgotten() {
    let sandbox = Sandbox::new().await;
    let process = sandbox.session.spawn(ExecRequest::argv(["true"])).await.unwrap();
    collect(process.as_ref(), Some(SOON)).await.unwrap();
    process.release().await.unwrap();
    process.release().await.unwrap();
    let output = process.output(Cursor(0), 100, Duration::ZERO).await;
    assert!(matches!(output, Err(SandboxError::Invalid { .. })), "{output:?}");
}
