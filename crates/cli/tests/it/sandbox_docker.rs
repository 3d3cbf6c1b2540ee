//! `moor sandbox` with containers: what a command attaches to ends with it, and the workspace stays.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use mooring_testkit::{IMAGE, docker};
use serde_json::Value;

use crate::docker::{ask, moor};
use crate::moor::{Moor, Ran, exec, say};

/// Runs it; it must end so.
fn ran(user: &Moor, code: i32, args: &[&str]) -> Ran {
    let ran: Ran = moor(user, &[&["sandbox"], args].concat()).unwrap().output().unwrap().into();
    assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
    ran
}

fn inside(user: &Moor, sandbox: &str, line: &str) -> String {
    ran(user, 0, &["exec", sandbox, "--", "sh", "-c", line]).out
}

/// Ids of sandboxes are names on the engine, which others use, too.
fn name(user: &Moor, what: &str) -> String {
    let own = user.dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
    format!("{what}-{own}")
}

#[test]
fn a_workspace_in_a_volume_is_worked_in_by_hand() {
    let Some(socket) = docker() else { return };
    let user = Moor::new();
    let [one, two, three] = ["one", "two", "three"].map(|what| name(&user, what));
    user.write("project/main", "1\n");
    user.write(
        "m.yaml",
        "version: 1\nentries:\n  project: {type: local_dir, src: project}\nx-mooring: {setup: ['echo set up > made']}\n",
    );
    let create = ["create", "--sandbox", "docker", "--image", IMAGE, "--name", &one, "--manifest", "m.yaml"];
    assert_eq!(ran(&user, 0, &create).out, format!("{one}\n"));
    // The workspace stays, and what a command leaves ends with it.
    assert_eq!(
        inside(&user, &one, "cat made; echo 2 > project/main; sleep 1000 > /dev/null 2>&1 &"),
        "set up\n"
    );
    assert_eq!(inside(&user, &one, "cat project/main; ps | grep -c '[s]leep 1000'; true"), "2\n0\n");
    assert_eq!(ran(&user, 7, &["exec", &one, "--", "sh", "-c", "exit 7"]).out, "");
    let patch = ran(&user, 0, &["diff", &one]).out;
    assert!(patch.contains("-1\n+2\n"), "{patch}");

    user.write("tree/f", "in\n");
    ran(&user, 0, &["cp", "tree", &format!("{one}:")]);
    ran(&user, 0, &["cp", &format!("{one}:tree/f"), "back"]);
    assert_eq!(fs_err::read_to_string(user.path("back")).unwrap(), "in\n");
    ran(&user, 0, &["snapshot", &one, "--name", "s"]);
    assert!(ran(&user, 0, &["fork", &one, "--name", &two]).err.contains("copied"));
    ran(&user, 0, &["restore", "s", "--sandbox", "docker", "--image", IMAGE, "--name", &three]);
    for copy in [&two, &three] {
        assert_eq!(inside(&user, copy, "cat project/main tree/f; rm -r tree"), "2\nin\n");
    }
    ran(&user, 0, &["restore", "s", "--into", &two]);
    assert_eq!(ran(&user, 0, &["diff", &two, "--since", "s"]).out, "");

    // Two at once: the second is told, and the first goes on.
    let mut first =
        moor(&user, &["sandbox", "exec", "-i", &one, "--", "sh", "-c", "echo here; read line; echo $line"])
            .unwrap()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    let mut said = BufReader::new(first.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let told = ran(&user, 2, &["exec", &one, "true"]).err;
    assert!(told.contains("it runs in another process"), "{told}");
    first.stdin.take().unwrap().write_all(b"on\n").unwrap();
    said.read_line(&mut line).unwrap();
    assert_eq!((first.wait().unwrap().code(), line.as_str()), (Some(0), "here\non\n"));

    // A record keeps its volume.
    ran(&user, 0, &["prune", "--older-than", "0"]);
    assert_eq!(inside(&user, &one, "cat project/main"), "2\n");
    ran(&user, 0, &["rm", &one, &two, &three]);
    for id in [&one, &two, &three] {
        let gone = ask(&socket, "GET", &format!("volumes/mooring-{id}"), &Value::Null);
        assert!(gone["Name"].is_null(), "{gone}");
    }
}

#[test]
fn where_a_run_worked_in_a_container_is_looked_at() {
    let user = Moor::new();
    user.write("s.jsonl", &(exec(0, &["echo kept > kept"]) + &say("done")));
    let agent = format!(
        "model = \"script:s.jsonl\"\n[sandbox]\nbackend = \"docker\"\nimage = \"{IMAGE}\"\nsnapshots = \"end\"\n"
    );
    user.write("agent.toml", &agent);
    let Some(mut run) = moor(&user, &["run", "--agent", "agent.toml", "--json", "go"]) else { return };
    let done: Ran = run.output().unwrap().into();
    assert_eq!(done.code, Some(0), "{done:?}");
    let run = done.run();
    assert_eq!(inside(&user, &run, "cat kept"), "kept\n");
    assert!(ran(&user, 0, &["diff", &run]).out.contains("+kept\n"));
    crate::docker::remove_volumes(&done.out);
}

#[test]
fn one_whose_maker_was_killed_in_a_container_is_removed() {
    let Some(socket) = docker() else { return };
    let user = Moor::new();
    let one = name(&user, "one");
    user.write("m.yaml", "version: 1\nx-mooring: {setup: ['sleep 1000']}\n");
    let create = [
        "sandbox",
        "create",
        "--sandbox",
        "docker",
        "--image",
        IMAGE,
        "--name",
        &one,
        "--manifest",
        "m.yaml",
    ];
    let mut child = moor(&user, &create).unwrap().spawn().unwrap();
    let running = format!("containers/mooring-{one}/json");
    while ask(&socket, "GET", &running, &Value::Null)["State"]["Running"] != true {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ran(&user, 2, &["exec", &one, "true"]).err.contains("unfinished"));
    ran(&user, 0, &["rm", &one]);
    let volume = ask(&socket, "GET", &format!("volumes/mooring-{one}"), &Value::Null);
    assert!(volume["Name"].is_null(), "{volume}");
}
