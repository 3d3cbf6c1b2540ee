//! A run whose sandbox mounts storage: what the mount could not do is in the journal, since the command that looked has
//! only a number.

use std::io::BufRead as _;
use std::process::{Command, Stdio};

use crate::moor::{Moor, exec, say};

#[test]
fn what_a_mount_cannot_do_is_in_the_journal_and_in_the_story() {
    let moor = Moor::new();
    // A web server that is no object storage.
    let mut server = Command::new("/usr/bin/python3")
        .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
        .current_dir(moor.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.split_whitespace().nth(5).unwrap().to_owned();
    moor.write(
        "agent.toml",
        &format!(
            "model = \"script:s.jsonl\"\n[manifest.entries.data]\ntype = \"s3_mount\"\nbucket = \"sales\"\n\
             endpoint_url = \"http://127.0.0.1:{port}\"\n\
             mount_strategy = {{ type = \"in_container\", pattern = {{ type = \"rclone\" }} }}\n"
        ),
    );
    moor.write("s.jsonl", &(exec(0, &["ls data"]) + &say("done")));
    moor.write("home/config.toml", "[network]\nprivate = [\"127.0.0.1\"]\n");
    let ran = moor.run(&["run", "--agent", "agent.toml", "--json", "go"]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);

    let events = ran.json();
    let at = |kind: &str| events.iter().position(|event| event["type"] == kind);
    let failed = &events[at("mount_failed").unwrap()];
    assert_eq!((&failed["mount"], &failed["operation"]), (&"data".into(), &"list".into()), "{failed}");
    assert!(failed["reason"].as_str().unwrap().contains("there is no such bucket"), "{failed}");
    assert!(at("mount_failed") < at("tool_completed"), "it is there before what came of it");
    assert_eq!(ran.err, "");
    let shown = moor.run(&["show", &ran.run()]).out;
    assert!(shown.contains("  mount data cannot list  · there is no such bucket"), "{shown}");
}
