//! An agent that works in the local sandbox.

use mooring::local::{LocalOptions, LocalSandboxClient};
use mooring::manifest::Format;
use mooring::{Agent, Manifest, Run, Runtime, Status};
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
