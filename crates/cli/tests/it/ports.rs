//! A port that a manifest exposes: a server that a run starts is reached from this machine, whatever the sandbox.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use mooring_testkit::{PYTHON, docker};
use serde_json::Value;

use crate::docker::remove_volumes;
use crate::moor::{Moor, Ran, exec, say};

/// Python's own server, for two requests.
const SERVE: &str = "import http.server as h
server = h.HTTPServer(('127.0.0.1', 8000), h.SimpleHTTPRequestHandler)
for _ in range(2): server.handle_request()";

fn agent(moor: &Moor, sandbox: &str) -> String {
    moor.write(
        "s.jsonl",
        &(exec(0, &[&format!("echo served > file; python3 -c \"{SERVE}\"")]) + &say("done")),
    );
    let agent = format!("model = \"script:s.jsonl\"\n{sandbox}\n[manifest.x-mooring]\nports = [8000]\n");
    moor.write("agent.toml", &agent).display().to_string()
}

/// Runs it, asks its server twice while it runs, and gives what the run printed.
fn served(mut run: Command) -> String {
    let mut child = run.stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut exposed = None;
    while lines.read_line(&mut printed).unwrap() > 0 {
        let event: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        match event["type"].as_str().unwrap() {
            "sandbox_ready" => exposed = event["ports"][0]["address"].as_str().map(str::to_owned),
            "tool_requested" => {
                let address = exposed.as_ref().unwrap();
                for _ in 0..2 {
                    assert_eq!(get(address), "served\n");
                }
            }
            _ => {}
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{printed}");
    // It ends with the run.
    let address = exposed.unwrap();
    let refused = Command::new("curl").args(["-sS", &format!("http://{address}/file")]).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("Failed to connect") || told.contains("Could not connect"), "{told}");
    printed
}

/// The server needs a moment to listen.
fn get(address: &str) -> String {
    let got = Command::new("curl")
        .args(["-sS", "--retry", "60", "--retry-all-errors", "--retry-delay", "1", "--max-time", "60"])
        .arg(format!("http://{address}/file"))
        .output()
        .unwrap();
    String::from_utf8(got.stdout).unwrap()
}

#[test]
fn a_server_of_a_local_run_is_reached() {
    let moor = Moor::new();
    // The number is taken here: then it is another one.
    let _taken = std::net::TcpListener::bind("127.0.0.1:8000");
    let agent = agent(&moor, "");
    let printed = served(moor.command(&["run", "--agent", &agent, "--json", "serve"]));
    let run = printed.split("\"run\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let told = moor.run(&["show", &run]).out;
    let line = told.lines().find(|line| line.contains("port 8000 of the sandbox is at 127.0.0.1:")).unwrap();
    assert!(!line.ends_with(":8000"), "{line}");
}

#[test]
fn a_server_of_a_run_in_a_container_is_reached() {
    let Some(socket) = docker() else { return };
    let moor = Moor::new();
    let agent = agent(&moor, &format!("[sandbox]\nbackend = \"docker\"\nimage = \"{PYTHON}\""));
    let mut run = moor.command(&["run", "--agent", &agent, "--json", "serve"]);
    run.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    remove_volumes(&served(run));
}

#[test]
fn without_isolation_a_port_is_this_machines_own_and_that_is_said() {
    let moor = Moor::new();
    let agent = agent(&moor, "[sandbox]\nisolation = \"none\"");
    let ran: Ran = moor.run(&["run", "--agent", &agent, "--json", "serve"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("port 8000 on the local sandbox: this backend has no way in"), "{}", ran.err);
}
