//! `moor sandbox`: what outlives a command, and what goes where.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use crate::moor::{Moor, Ran, exec, say};

/// Runs it; it must succeed.
pub(crate) fn ok(moor: &Moor, args: &[&str]) -> String {
    let ran: Ran = moor.run(args);
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
    ran.out
}

pub(crate) fn inside(moor: &Moor, sandbox: &str, line: &str) -> String {
    ok(moor, &["sandbox", "exec", sandbox, "--", "sh", "-c", line])
}

/// A sandbox `one` with a small project in it, which goes with the value.
struct One(Moor);

impl One {
    fn new() -> Self {
        let moor = Moor::new();
        moor.write("project/main.py", "print(1)\n");
        moor.write(
            "m.yaml",
            "version: 1\nentries:\n  project: {type: local_dir, src: project}\nx-mooring: {ports: [8123]}\n",
        );
        assert_eq!(ok(&moor, &["sandbox", "create", "--name", "one", "--manifest", "m.yaml"]), "one\n");
        Self(moor)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        remove_all(&self.0);
    }
}

/// So that nothing goes on when a test is over.
pub(crate) fn remove_all(moor: &Moor) {
    for sandbox in moor.run(&["sandbox", "list", "--json"]).json() {
        moor.run(&["sandbox", "rm", sandbox["id"].as_str().unwrap()]);
    }
}

#[test]
fn commands_run_in_it_and_what_they_leave_goes_on() {
    let one = One::new();
    let moor = &one.0;
    let ran =
        moor.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cat project/main.py; echo no >&2; exit 7"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(7), "print(1)\n", "no\n"));
    inside(moor, "one", "(sleep 0.3; echo later > later; exec sleep 60) > /dev/null 2>&1 &");
    assert_eq!(inside(moor, "one", "until cat later 2>/dev/null; do sleep 0.05; done"), "later\n");

    let mut child = moor
        .command(&["sandbox", "exec", "-i", "-e", "WORD=there", "--cwd", "project", "one", "--", "sh", "-c"])
        .arg("pwd; cat; echo $WORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), said.as_str()),
        (Some(0), "/workspace/project\ntyped\nthere\n")
    );
    assert_eq!(moor.run(&["sandbox", "exec", "--timeout", "1", "one", "sleep", "60"]).code, Some(124));
}

#[test]
fn snapshots_forks_and_differences() {
    let one = One::new();
    let moor = &one.0;
    inside(moor, "one", "echo 'print(2)' > project/main.py; ln -s /usr/bin/python3 py; mkfifo queue");
    let patch = ok(moor, &["sandbox", "diff", "one"]);
    assert!(patch.contains("-print(1)\n+print(2)\n") && patch.contains("# new FIFO: queue\n"), "{patch}");
    ok(moor, &["sandbox", "snapshot", "one", "--name", "s"]);

    // Nothing runs in it: shared. Something does: copied, and said so.
    let shared = moor.run(&["sandbox", "fork", "one", "--name", "two"]);
    assert_eq!((shared.out.as_str(), shared.err.as_str()), ("two\n", ""));
    inside(moor, "one", "sleep 60 > /dev/null 2>&1 &");
    let copied = moor.run(&["sandbox", "fork", "one", "--name", "three"]);
    assert_eq!(copied.out, "three\n");
    assert!(copied.err.contains("copied"), "{}", copied.err);
    for fork in ["two", "three"] {
        assert_eq!(ok(moor, &["sandbox", "diff", fork]), patch, "{fork}");
        inside(moor, fork, "rm -r project; echo mine > mine");
    }
    assert_eq!(ok(moor, &["sandbox", "diff", "one"]), patch);
    let own = ok(moor, &["sandbox", "diff", "two", "--since", "s"]);
    assert!(
        own.contains("deleted file mode 100644\n--- a/project/main.py") && own.contains("+mine\n"),
        "{own}"
    );

    // Back to what it was, in place and as a new one.
    ok(moor, &["sandbox", "restore", "s", "--into", "two"]);
    ok(moor, &["sandbox", "restore", "s", "--name", "four"]);
    for restored in ["two", "four"] {
        assert_eq!(ok(moor, &["sandbox", "diff", restored, "--since", "s"]), "", "{restored}");
        assert_eq!(inside(moor, restored, "readlink py; stat -c %F queue"), "/usr/bin/python3\nfifo\n");
    }
}

#[test]
fn files_go_in_and_out() {
    let one = One::new();
    let moor = &one.0;
    moor.write("tree/a/deep", "deep\n");
    moor.write("tree/run", "#!/bin/sh\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(moor.path("tree/run"), mode).unwrap();
    ok(moor, &["sandbox", "cp", "tree", "one:"]);
    ok(moor, &["sandbox", "cp", "tree/run", "one:project/renamed"]);
    assert_eq!(
        inside(moor, "one", "cat tree/a/deep; stat -c %a tree/run project/renamed"),
        "deep\n755\n755\n"
    );
    ok(moor, &["sandbox", "cp", "one:project", "out"]);
    ok(moor, &["sandbox", "cp", "one:tree/a/deep", "out/single"]);
    assert_eq!(fs_err::read_to_string(moor.path("out/main.py")).unwrap(), "print(1)\n");
    assert_eq!(fs_err::read_to_string(moor.path("out/single")).unwrap(), "deep\n");

    // What comes out lands where it was told to, whatever links say.
    inside(moor, "one", "mkdir evil; ln -s / evil/root; echo x > evil/file");
    ok(moor, &["sandbox", "cp", "one:evil", "evil"]);
    assert_eq!(fs_err::read_link(moor.path("evil/root")).unwrap().to_str(), Some("/"));
    let missing = moor.run(&["sandbox", "cp", "one:nowhere", "x"]);
    assert_eq!(missing.code, Some(2), "{}", missing.err);
    assert!(!moor.path("x").exists());
}

#[test]
fn a_server_inside_is_reached_from_here() {
    let one = One::new();
    let moor = &one.0;
    let serve = "cd project; python3 -m http.server 8123 --bind 127.0.0.1 > /dev/null 2>&1 & \
                 until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8123))' 2>/dev/null; \
                 do sleep 0.1; done";
    inside(moor, "one", serve);
    let mut child = moor.command(&["sandbox", "ports", "one"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let here = line.split(" -> ").next().unwrap();
    let mut stream = std::net::TcpStream::connect(here).unwrap();
    stream.write_all(b"GET /main.py HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.ends_with("print(1)\n"), "{answer}");
}

#[test]
fn a_run_takes_snapshots_where_its_agent_asks_for_them() {
    let moor = Moor::new();
    let script = [exec(0, &["echo 1 > f"]), exec(1, &["echo 2 >> f", "true"]), say("done")];
    moor.write("s.jsonl", &script.concat());
    for (when, turns) in [("turn", vec![0, 1, 2]), ("end", vec![0, 3])] {
        moor.write("agent.toml", &format!("model = \"script:s.jsonl\"\n[sandbox]\nsnapshots = \"{when}\"\n"));
        let ran = moor.run(&["run", "--agent", "agent.toml", "--json", "go"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let events = ran.json();
        let taken: Vec<_> = events.iter().filter(|event| event["type"] == "snapshot_taken").collect();
        assert_eq!(
            taken.iter().map(|event| event["turn"].as_u64().unwrap()).collect::<Vec<_>>(),
            turns,
            "{when}"
        );
        let run = ran.run();
        assert_eq!(inside(&moor, &run, "cat f"), "1\n2\n");
        assert!(ok(&moor, &["sandbox", "diff", &run]).contains("@@ -0,0 +1,2 @@\n+1\n+2\n"));
        let last = taken.last().unwrap()["snapshot"].as_str().unwrap();
        assert_eq!(ok(&moor, &["sandbox", "diff", &run, "--since", last]), "");
        let shown = ok(&moor, &["show", &run]);
        assert!(shown.contains(&format!("snapshot {last}")), "{shown}");
    }
}

#[test]
fn pruning_removes_what_is_old_and_leaves_what_is_used() {
    let moor = Moor::new();
    moor.write("s.jsonl", &[exec(0, &["echo 1 > f"]), say("done")].concat());
    let ran = moor.run(&["run", "--model", "script:s.jsonl", "--json", "go"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ok(&moor, &["sandbox", "create", "--name", "running"]);
    inside(&moor, "running", "sleep 60 > /dev/null 2>&1 &");
    let workspaces = || fs_err::read_dir(moor.path("home/sandboxes")).unwrap().count();
    assert_eq!(workspaces(), 2);
    let kept = ok(&moor, &["sandbox", "prune"]);
    assert!(kept.starts_with("0 workspaces removed"), "{kept}");
    let told = ok(&moor, &["sandbox", "prune", "--older-than", "0", "--dry-run"]);
    assert!(told.starts_with("would remove workspace") && told.lines().count() == 1, "{told}");
    let told = ok(&moor, &["sandbox", "prune", "--older-than", "0"]);
    assert!(told.contains("1 workspace removed"), "{told}");
    assert_eq!(inside(&moor, "running", "echo still there"), "still there\n");
    assert_eq!(ok(&moor, &["sandbox", "rm", "running"]), "removed sandbox running\n");
    assert_eq!(workspaces(), 0);
}

#[test]
fn what_is_not_there_is_told_with_the_next_step() {
    let moor = Moor::new();
    let told = |args: &[&str]| {
        let ran = moor.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
        ran.err
    };
    assert!(told(&["sandbox", "exec", "nobody", "true"]).contains("`moor sandbox list`"));
    assert!(told(&["sandbox", "restore", "nothing"]).contains("`moor sandbox list --snapshots`"));
    assert!(told(&["sandbox", "rm", "nobody"]).contains("no sandbox and no snapshot 'nobody'"));
    assert!(told(&["sandbox", "create", "--name", "not a name"]).contains("letters, digits"));
    assert!(told(&["sandbox", "cp", "a", "b"]).contains("SANDBOX:PATH"));
    assert!(told(&["sandbox", "shell", "nobody"]).contains("a shell needs a terminal"));
}
