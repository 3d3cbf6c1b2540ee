//! `--sandbox docker`, on a real engine.

use std::process::Command;

use mooring_testkit::{DOCKER, IMAGE, docker};

use crate::moor::{Moor, exec, say};

/// `moor` with the engine of the tests. `None`: there is none, and that was said.
fn moor(moor: &Moor, args: &[&str]) -> Option<Command> {
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
    let ran: crate::moor::Ran = first.output().unwrap().into();
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
    let ran: crate::moor::Ran = second.unwrap().output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("kept\\n"), "{}", ran.out);
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
        let delete = Command::new("curl")
            .args(["-sf", "-X", "DELETE", "--unix-socket"])
            .arg(&socket)
            .arg(url)
            .status();
        assert!(delete.unwrap().success(), "volume of {session}");
    }
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
    let ran: crate::moor::Ran = remote.env("DOCKER_HOST", "tcp://127.0.0.1:2375").output().unwrap().into();
    assert!(ran.err.contains("an engine on another machine cannot be used"), "{ran:?}");
    let mut nowhere =
        user.command(&["run", "--model", &script, "--sandbox", "docker", "--image", "x", "work"]);
    let ran: crate::moor::Ran = nowhere.env("DOCKER_HOST", "unix:///nowhere.sock").output().unwrap().into();
    assert!(ran.out.contains("the Docker engine is not available: /nowhere.sock"), "{ran:?}");
}

#[test]
fn doctor_tells_of_the_engine() {
    let user = Moor::new();
    let told = user.run(&["doctor"]).out;
    assert!(told.contains("sandbox (docker)"), "{told}");
    let Some(mut with) = moor(&user, &["doctor"]) else { return };
    let ran: crate::moor::Ran = with.output().unwrap().into();
    assert!(ran.out.contains("Docker ") && ran.out.contains(", API "), "{DOCKER}: {}", ran.out);
}
