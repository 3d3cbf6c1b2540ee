//! Commands: how they are run, and what they see of the call.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mooring_sandbox::{
    CommandLine, Cursor, ExecRequest, Outcome, SandboxError, Stdin, WriteOptions, collect,
};

use crate::bench::{Bench, SOON, exited, seen};

pub(crate) async fn arguments_reach_the_program_as_they_are(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let request = ExecRequest::argv(["printf", "%s|", "a b", "$HOME", "*", "", "é\n"]);
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(seen(&result), ("a b|$HOME|*||é\n|".into(), String::new(), exited(0)));
}

pub(crate) async fn both_streams_and_the_exit_code_come_back(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let result = sandbox.sh("echo out; echo err >&2; exit 7").await;
    assert_eq!(seen(&result), ("out\n".into(), "err\n".into(), exited(7)));
}

pub(crate) async fn a_signal_is_told_as_a_signal(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    assert_eq!(sandbox.sh("kill -SEGV $$").await.outcome, Outcome::Signalled { signal: 11 });
    assert_eq!(sandbox.sh("kill -KILL $$").await.outcome, Outcome::Signalled { signal: 9 });
    // A shell's word for it is an exit code.
    assert_eq!(sandbox.sh("sh -c 'kill -KILL $$'; exit $?").await.outcome, exited(137));
}

pub(crate) async fn the_default_directory_is_the_root_and_others_are_below_it_or_absolute(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let root = sandbox.session.root().to_owned();
    assert_eq!(sandbox.out("mkdir -p deep/er; pwd").await, format!("{root}\n"));
    let below = format!("{root}/deep");
    for (cwd, expected) in
        [("deep/er", format!("{below}/er")), ("/usr", "/usr".into()), (&below, below.clone())]
    {
        let result = sandbox.session.exec(ExecRequest::argv(["pwd"]).cwd(cwd)).await.unwrap();
        assert_eq!(result.stdout.text(), format!("{expected}\n"), "{cwd}");
    }
}

pub(crate) async fn a_background_command_keeps_the_directory(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let root = sandbox.session.root().to_owned();
    assert_eq!(sandbox.out("mkdir d; cd d && true & pwd; wait").await, format!("{root}\n"));
    let result = sandbox.session.exec(ExecRequest::shell("true & pwd; wait").cwd("d")).await.unwrap();
    assert_eq!(seen(&result), (format!("{root}/d\n"), String::new(), exited(0)));
}

pub(crate) async fn variables_are_the_sandboxs_and_the_calls_and_none_of_the_hosts(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let mut request = ExecRequest::argv(["env"]);
    request.env = BTreeMap::from([("LANG".into(), "C".into()), ("MINE".into(), "a=b c".into())]);
    let result = sandbox.session.exec(request).await.unwrap();
    let text = result.stdout.text();
    let inside: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    for (name, value) in [
        ("HOME", sandbox.session.root()),
        ("LANG", "C"),
        ("LOGNAME", "agent"),
        ("MINE", "a=b c"),
        ("USER", "agent"),
    ] {
        assert_eq!(inside.get(name), Some(&value), "{name} in {text}");
    }
    assert!(inside.contains_key("PATH"), "{text}");
    // This process's own, which is the harness's. Most systems share these few.
    let shared =
        ["HOME", "HOSTNAME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "USER", "_"];
    for (name, value) in std::env::vars().filter(|(name, _)| !shared.contains(&name.as_str())) {
        assert_ne!(inside.get(name.as_str()), Some(&value.as_str()), "{name} of the host is inside");
    }
}

pub(crate) async fn the_manifests_environment_is_in_every_command(bench: &Bench) {
    let mut manifest = mooring_manifest::Manifest::default();
    let variables = serde_json::json!({"environment": {"value": {"SHARED": "yes", "LANG": "fr_FR"}}});
    manifest.environment = mooring_manifest::Manifest::from_json(&variables.to_string()).unwrap().environment;
    let sandbox = bench.with_manifest(manifest).await;
    assert_eq!(sandbox.out("echo $SHARED $LANG").await, "yes fr_FR\n");
}

pub(crate) async fn standard_input_is_nothing_bytes_or_open(bench: &Bench) {
    let sandbox = bench.sandbox().await;
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

pub(crate) async fn an_input_that_nobody_reads_is_bounded(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let mut request = ExecRequest::argv(["sleep", "100"]);
    request.stdin = Stdin::Open;
    let process = sandbox.session.spawn(request).await.unwrap();
    let mut sent = 0;
    let refused = loop {
        match process.write_stdin(Bytes::from(vec![0; 1 << 20])).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 64, "64 MiB were taken");
    };
    assert!(refused.to_string().contains("does not read its standard input"), "{refused}");
}

pub(crate) async fn a_shell_can_be_named_and_can_be_a_login_shell(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("echo 'FROM_PROFILE=yes' > .profile").await;
    let shell = |shell: Option<&str>, login| {
        let line = "echo $FROM_PROFILE".to_owned();
        ExecRequest::new(CommandLine::Shell { line, shell: shell.map(str::to_owned), login })
    };
    let out = async |request| sandbox.session.exec(request).await.unwrap().stdout.text();
    assert_eq!(out(shell(None, false)).await, "\n");
    assert_eq!(out(shell(Some("sh"), true)).await, "yes\n");
    assert_eq!(out(shell(Some("sh"), false)).await, "\n");
    assert_eq!(out(shell(Some("echo"), false)).await, "-c echo $FROM_PROFILE\n");
}

pub(crate) async fn what_cannot_start_says_why(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let options = WriteOptions { mode: Some(0o755), ..WriteOptions::default() };
    sandbox.session.write("noexec", "echo\n".into(), WriteOptions::default()).await.unwrap();
    sandbox.session.write("garbage", "\0\0".into(), options).await.unwrap();
    let start = async |request: ExecRequest| match sandbox.session.exec(request).await {
        Err(error @ SandboxError::Start { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let with = |change: fn(&mut ExecRequest)| {
        let mut request = ExecRequest::argv(["true"]);
        change(&mut request);
        request
    };
    for (request, told) in [
        (ExecRequest::argv(["no-such-program", "x"]), "No such file or directory"),
        (ExecRequest::argv(["./noexec"]), "Permission denied"),
        (ExecRequest::argv(["./garbage"]), "Exec format error"),
        (ExecRequest::argv(["true"]).cwd("nowhere"), "its working directory: No such file or directory"),
        (with(|request| request.user = Some("nobody-we-know".into())), "declare it in the manifest"),
        (
            with(|request| request.env = BTreeMap::from([("A=B".into(), "x".into())])),
            "'A=B' is no name for a variable",
        ),
        (ExecRequest::argv(["a\0b"]), "a NUL byte"),
    ] {
        let command = format!("{:?}", request.command);
        let error = start(request).await;
        assert!(error.starts_with("cannot start ") && error.contains(told), "{command}: {error}");
    }
    let empty = sandbox.session.exec(ExecRequest::argv(Vec::<String>::new())).await;
    assert!(matches!(empty, Err(SandboxError::Invalid { .. })), "{empty:?}");
    // None of it harmed the session.
    assert_eq!(sandbox.out("echo fine").await, "fine\n");
}

pub(crate) async fn a_program_in_a_later_directory_of_path_is_found(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let root = sandbox.session.root();
    sandbox.out("mkdir bin1 bin2; printf '#!/bin/sh\necho mine\n' > bin2/tool; chmod +x bin2/tool").await;
    let mut request = ExecRequest::argv(["tool"]);
    request.env = BTreeMap::from([("PATH".into(), format!("{root}/bin1:/nowhere:{root}/bin2"))]);
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(seen(&result), ("mine\n".into(), String::new(), exited(0)));
}

pub(crate) async fn commands_run_side_by_side(bench: &Bench) {
    let sandbox = bench.sandbox().await;
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

pub(crate) async fn a_signal_reaches_the_commands_group(bench: &Bench) {
    const SIGUSR1: i32 = 10;
    let sandbox = bench.sandbox().await;
    let line = "trap 'echo got it; exit 3' USR1; echo ready; while true; do sleep 0.02; done";
    let process = sandbox.session.spawn(ExecRequest::shell(line).timeout(SOON)).await.unwrap();
    process.output(Cursor(0), 100, SOON).await.unwrap();
    process.signal(SIGUSR1).await.unwrap();
    let result = collect(process.as_ref(), Some(SOON)).await.unwrap();
    assert_eq!((result.stdout.text().as_str(), result.outcome), ("ready\ngot it\n", exited(3)));
    // Too late is no error; nonsense is one.
    process.signal(SIGUSR1).await.unwrap();
    let running = sandbox.session.spawn(ExecRequest::argv(["sleep", "100"])).await.unwrap();
    assert!(matches!(running.signal(999).await, Err(SandboxError::Invalid { .. })));
}

pub(crate) async fn a_released_process_is_forgotten(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let process = sandbox.session.spawn(ExecRequest::argv(["true"])).await.unwrap();
    collect(process.as_ref(), Some(SOON)).await.unwrap();
    process.release().await.unwrap();
    process.release().await.unwrap();
    let output = process.output(Cursor(0), 100, Duration::ZERO).await;
    assert!(matches!(output, Err(SandboxError::Invalid { .. })), "{output:?}");
}
