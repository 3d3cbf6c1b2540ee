//! An agent that works in the local sandbox.

use mooring::local::{LocalOptions, LocalSandboxClient};
use mooring::manifest::Format;
use mooring::{Agent, Error, Manifest, Run, Runtime, SnapshotStore, Snapshots, Status};
use serde_json::json;

use crate::words::{calls, says, script};

#[tokio::test]
async fn an_agent_works_on_what_its_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::load(
        "version: 1\nentries:\n  task.md: {type: file, content: \"Say hello.\\n\"}\n",
        Format::Yaml,
    )
    .unwrap();
    let agent = Agent::builder("worker")
        .model(script(&[calls(&[("exec_command", json!({"cmd": "cat task.md; pwd"}))]), says("done")]))
        .capability("shell")
        .manifest(manifest)
        .sandbox(LocalSandboxClient::new(LocalOptions::new(folder.path())))
        .build()
        .unwrap();
    let run = Run::start(&Runtime::in_memory(), &agent, "do the task").await.unwrap();
    assert_eq!(run.status(), Status::Completed, "{:?}", run.error());
    let events = run.events().await.unwrap();
    let read = events.iter().any(|record| match &record.event {
        mooring::Event::ToolCompleted(completed) => {
            completed.output.to_string().contains("Say hello.\\n/workspace")
        }
        _ => false,
    });
    assert!(read, "{events:?}");
}

#[tokio::test]
async fn a_fork_goes_on_in_the_workspace_of_the_nearest_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let write =
        |text: &str| calls(&[("exec_command", json!({"cmd": format!("echo {text} >> log; cat log")}))]);
    let agent = Agent::builder("worker")
        .model(script(&[write("one"), write("two"), says("done")]))
        .capability("shell")
        .sandbox(LocalSandboxClient::new(LocalOptions::new(folder.path().join("sandboxes"))))
        .snapshots(Snapshots::Turn)
        .build()
        .unwrap();
    let error = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap_err();
    assert!(matches!(&error, Error::Run(_)) && error.to_string().contains("with_snapshots"), "{error}");

    let store = SnapshotStore::open(&folder.path().join("snapshots")).unwrap();
    let run = Run::start(&Runtime::in_memory().with_snapshots(store), &agent, "go").await.unwrap();
    assert_eq!(run.status(), Status::Completed, "{:?}", run.error());
    let events = run.events().await.unwrap();
    let first = events
        .iter()
        .find(|record| matches!(&record.event, mooring::Event::SnapshotTaken(taken) if taken.turn == 1));
    let fork = run.fork(first.unwrap().seq, None).await.unwrap();
    assert_eq!(fork.status(), Status::Completed, "{:?}", fork.error());
    let outputs: Vec<String> = fork
        .events()
        .await
        .unwrap()
        .into_iter()
        .filter_map(|record| match record.event {
            mooring::Event::ToolCompleted(completed) => Some(completed.output["output"].to_string()),
            _ => None,
        })
        .collect();
    assert!(outputs[1].contains("one\\ntwo"), "the second command finds what the first wrote: {outputs:?}");
}

#[tokio::test]
async fn a_run_may_work_in_a_directory_of_the_callers() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("here");
    std::fs::create_dir(&here).unwrap();
    let agent = Agent::builder("worker")
        .model(script(&[calls(&[("exec_command", json!({"cmd": "echo hello > made"}))]), says("done")]))
        .capability("shell")
        .workspace(&here)
        .sandbox(LocalSandboxClient::new(LocalOptions::new(folder.path().join("sandboxes"))))
        .build()
        .unwrap();
    let run = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap();
    assert_eq!(run.status(), Status::Completed, "{:?}", run.error());
    assert_eq!(std::fs::read_to_string(here.join("made")).unwrap(), "hello\n");
}
