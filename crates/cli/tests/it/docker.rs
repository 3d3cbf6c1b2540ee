//! `--sandbox docker`, on a real engine.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use mooring_testkit::{DOCKER, IMAGE, docker};
use serde_json::{Value, json};

use crate::moor::{Moor, Ran, exec, say};

/// `moor` with the engine of the tests. `None`: there is none, and that was said.
pub(crate) fn moor(moor: &Moor, args: &[&str]) -> Option<Command> {
    let mut command = moor.command(args);
    command.env("DOCKER_HOST", format!("unix://{}", docker()?.display()));
    Some(command)
}

#[test]
fn an_agent_works_in_a_container_and_goes_on_in_it() {
    let user = Moor::new();
    let script = exec(1, &["pwd; id -un; cat /proc/1/comm; echo kept > kept; ls /lib 2>&1"]) + &say("done");
    let script = user.write("one.jsonl", &script);
    let agent = format!(
        "model = \"script:{}\"\n[sandbox]\nbackend = \"docker\"\nimage = \"{IMAGE}\"\nmemory = \"256MiB\"\n",
        script.display()
    );
    let agent = user.write("agent.toml", &agent).display().to_string();
    let Some(mut first) = moor(&user, &["run", "--agent", &agent, "--session", "s", "--json", "work"]) else {
        return;
    };
    let ran: Ran = first.output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for expected in
        ["/workspace\\nagent\\n", "No such file or directory", "\"container\"", "the engine's, 268435456"]
    {
        assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
    }
    let again = user.write("two.jsonl", &(exec(1, &["cat kept"]) + &say("there it is")));
    let model = format!("script:{}", again.display());
    let second =
        moor(&user, &["run", "--agent", &agent, "--model", &model, "--session", "s", "--json", "again"]);
    let ran: Ran = second.unwrap().output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("kept\\n"), "{}", ran.out);
    remove_volumes(&ran.out);
}

#[test]
fn a_snapshot_of_a_run_in_a_container_goes_on_in_a_local_sandbox() {
    let user = Moor::new();
    let made =
        "mkdir -p d; echo kept > d/kept; chmod 640 d/kept; ln -s d/kept link; touch -d @1000000000 d/kept";
    user.write("s.jsonl", &(exec(0, &[made]) + &say("done")));
    let agent = format!(
        "model = \"script:s.jsonl\"\n[sandbox]\nbackend = \"docker\"\nimage = \"{IMAGE}\"\nsnapshots = \"end\"\n"
    );
    user.write("agent.toml", &agent);
    let Some(mut run) = moor(&user, &["run", "--agent", "agent.toml", "go"]) else { return };
    let ran: Ran = run.output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let taken = ran.json().into_iter().rfind(|event| event["type"] == "snapshot_taken").unwrap();
    let snapshot = taken["snapshot"].as_str().unwrap();
    let restored = user.run(&["sandbox", "restore", snapshot, "--name", "here"]);
    assert_eq!((restored.code, restored.out.as_str()), (Some(0), "here\n"), "{restored:?}");
    let found = user.run(&[
        "sandbox",
        "exec",
        "here",
        "--",
        "sh",
        "-c",
        "cat link; stat -c '%a %U %Y' d/kept; readlink link",
    ]);
    assert_eq!(found.out, "kept\n640 agent 1000000000\nd/kept\n", "{found:?}");
    assert_eq!(user.run(&["sandbox", "rm", "here"]).code, Some(0));
    remove_volumes(&ran.out);
}

/// Sessions outlive their runs, and so do their volumes; these are nobody's.
pub(crate) fn remove_volumes(events: &str) {
    let socket = docker().unwrap();
    let mut sessions: Vec<&str> =
        events.split("\"session_id\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    sessions.sort_unstable();
    sessions.dedup();
    assert!(!sessions.is_empty(), "{events}");
    for session in sessions {
        let url = format!("http://docker/volumes/mooring-{session}");
        let mut delete = Command::new("curl");
        delete.args(["-sf", "-X", "DELETE", "--unix-socket"]).arg(&socket).arg(url);
        // A container that ended with its command goes in a moment.
        let removed = (0..100).any(|_| {
            let removed = delete.status().unwrap().success();
            if !removed {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            removed
        });
        assert!(removed, "volume of {session}");
    }
}

/// What the engine says to a request of its API.
pub(crate) fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> Value {
    let asked = Command::new("curl")
        .args(["-sS", "-g", "-X", method, "-H", "Content-Type: application/json", "--unix-socket"])
        .arg(socket)
        .args(["--data", &body.to_string(), &format!("http://docker/{path}")])
        .output()
        .unwrap();
    serde_json::from_slice(&asked.stdout).unwrap_or_default()
}

#[test]
fn after_a_killed_harness_a_prune_leaves_nothing_but_what_is_named() {
    let Some(socket) = docker() else { return };
    let user = Moor::new();
    user.write("s.jsonl", &(exec(0, &["echo kept > kept; trap '' TERM HUP; sleep 1000"]) + &say("done")));
    let agent = format!("model = \"script:s.jsonl\"\n[sandbox]\nbackend = \"docker\"\nimage = \"{IMAGE}\"\n");
    user.write("agent.toml", &agent);
    let mut run =
        moor(&user, &["run", "--agent", "agent.toml", "go"]).unwrap().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let event = |line: std::io::Result<String>| -> Value { serde_json::from_str(&line.unwrap()).unwrap() };
    let ready = lines.by_ref().map(event).find(|event| event["type"] == "sandbox_ready").unwrap();
    lines.by_ref().map(event).find(|event| event["type"] == "tool_requested").unwrap();
    let session = ready["session_id"].as_str().unwrap().to_owned();
    run.kill().unwrap();
    run.wait().unwrap();

    // Volumes of a session that nobody knows, and of another user's on the same engine.
    let volume = |name: &str| ask(&socket, "GET", &format!("volumes/mooring-{name}"), &Value::Null);
    let labels = volume(&session)["Labels"].clone();
    let (lost, others) = (format!("{session}-lost"), format!("{session}-others"));
    for (id, state) in [(&lost, labels["dev.mooring.state"].as_str().unwrap()), (&others, "/home/other")] {
        let mut labels = labels.clone();
        labels["dev.mooring.session"] = id.as_str().into();
        labels["dev.mooring.state"] = state.into();
        ask(&socket, "POST", "volumes/create", &json!({"Name": format!("mooring-{id}"), "Labels": labels}));
    }
    let prune = |args: &[&str]| {
        let mut all = vec!["sandbox", "prune"];
        all.extend(args);
        let ran: Ran = moor(&user, &all).unwrap().output().unwrap().into();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.out
    };
    let there = || [&session, &lost, &others].map(|id| volume(id)["Name"].is_string());
    prune(&[]);
    let told = prune(&["--older-than", "0", "--dry-run"]);
    assert!(told.contains(&format!("would remove workspace {lost}, a volume\n")), "{told}");
    assert_eq!(there(), [true, true, true]);
    let told = prune(&["--older-than", "0"]);
    assert!(told.contains("1 workspace removed"), "{told}");
    assert_eq!(there(), [true, false, true]);
    let filters = format!("containers/json?all=1&filters={{\"label\":[\"dev.mooring.session={session}\"]}}");
    assert_eq!(ask(&socket, "GET", &filters, &Value::Null), json!([]), "a container is left");

    // The run goes on in its workspace, and what it leaves is nobody's once its journal is gone.
    let resumed = moor(&user, &["resume", ready["run"].as_str().unwrap(), "--json"]);
    let ran: Ran = resumed.unwrap().output().unwrap().into();
    assert_eq!((ran.code, ran.last()["output"].as_str()), (Some(0), Some("done")), "{ran:?}");
    for entry in fs_err::read_dir(user.home()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("journal") {
            fs_err::remove_file(path).unwrap();
        }
    }
    prune(&["--older-than", "0"]);
    assert_eq!(there(), [false, false, true]);
    assert_eq!(fs_err::read_dir(user.path("home/docker")).unwrap().count(), 0);
    ask(&socket, "DELETE", &format!("volumes/mooring-{others}"), &Value::Null);
}

#[test]
fn what_a_backend_does_not_have_is_refused_before_anything_starts() {
    let user = Moor::new();
    let script = format!("script:{}", user.write("s.jsonl", &say("done")).display());
    let refused = |args: &[&str]| {
        let mut all = vec!["run", "--model", &script];
        all.extend(args);
        all.push("work");
        let ran = user.run(&all);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        ran.err
    };
    assert!(refused(&["--image", "x"]).contains("the local sandbox starts no images"));
    assert!(refused(&["--sandbox", "docker", "--isolation", "none"]).contains("that is the local sandbox's"));
    let mut remote =
        user.command(&["run", "--model", &script, "--sandbox", "docker", "--image", "x", "work"]);
    let ran: Ran = remote.env("DOCKER_HOST", "tcp://127.0.0.1:2375").output().unwrap().into();
    assert!(ran.err.contains("an engine on another machine cannot be used"), "{ran:?}");
    let mut nowhere =
        user.command(&["run", "--model", &script, "--sandbox", "docker", "--image", "x", "work"]);
    let ran: Ran = nowhere.env("DOCKER_HOST", "unix:///nowhere.sock").output().unwrap().into();
    assert!(ran.out.contains("the Docker engine is not available: /nowhere.sock"), "{ran:?}");
}

#[test]
fn a_prune_without_the_engine_says_what_stays() {
    let user = Moor::new();
    fs_err::create_dir_all(user.path("home/docker/lost")).unwrap();
    let mut prune = user.command(&["sandbox", "prune", "--older-than", "0"]);
    let ran: Ran = prune.env("DOCKER_HOST", "unix:///nowhere.sock").output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("the Docker engine is not available: /nowhere.sock"), "{ran:?}");
    assert!(user.path("home/docker/lost").exists());
}

#[test]
fn doctor_tells_of_the_engine() {
    let user = Moor::new();
    let told = user.run(&["doctor"]).out;
    assert!(told.contains("sandbox (docker)"), "{told}");
    let Some(mut with) = moor(&user, &["doctor"]) else { return };
    let ran: Ran = with.output().unwrap().into();
    assert!(ran.out.contains("Docker ") && ran.out.contains(", API "), "{DOCKER}: {}", ran.out);
}
