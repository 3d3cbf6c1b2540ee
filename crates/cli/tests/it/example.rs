//! The shipped example, as the README runs it.

use serde_json::Value;

use crate::moor::{Moor, Ran, repository};

pub(crate) fn run_example(moor: &Moor, more: &[&str]) -> Ran {
    let agent = repository().join("examples/fix-the-bug/agent.toml");
    let mut args = vec!["run", "--agent", agent.to_str().unwrap()];
    args.extend_from_slice(more);
    args.push("Make the tests pass.");
    moor.run(&args)
}

pub(crate) fn check_example(events: &[Value]) {
    let outputs: Vec<&str> = events
        .iter()
        .filter(|event| event["type"] == "tool_completed")
        .map(|event| event["output"]["output"].as_str().unwrap())
        .collect();
    // The suite ran for real: it failed at first, and all of it passes in the end.
    assert!(outputs[0].contains("FAILED (failures=2)"), "{}", outputs[0]);
    assert!(outputs[0].contains("Process exited with code 1"), "{}", outputs[0]);
    assert_eq!(outputs[2], "Updated project/ledger.py");
    assert!(outputs[3].contains("Ran 6 tests") && outputs[3].trim_end().ends_with("OK"), "{}", outputs[3]);
    let last = events.last().unwrap();
    assert_eq!((last["type"].as_str(), last["status"].as_str()), (Some("run_finished"), Some("completed")));
    let ready = events.iter().find(|event| event["type"] == "sandbox_ready").unwrap();
    assert_eq!(ready["isolation"]["level"], "namespaces");
    assert_eq!(ready["staged"]["files"], 2);
}

#[test]
fn the_example_fixes_the_bug() {
    let moor = Moor::new();
    let ran = run_example(&moor, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    check_example(&ran.json());
    assert_eq!(moor.events(&ran.run()), ran.json(), "what was shown is what the journal holds");

    let runs = moor.run(&["runs", "--json"]).json();
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (runs[0]["id"].as_str(), runs[0]["status"].as_str()),
        (Some(ran.run().as_str()), Some("completed"))
    );
}

#[test]
fn a_named_workspace_keeps_the_result_and_is_never_overwritten() {
    let moor = Moor::new();
    let workspace = moor.path("kept");
    let more = ["--workspace", workspace.to_str().unwrap()];
    let ran = run_example(&moor, &more);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let fixed = fs_err::read_to_string(workspace.join("project/ledger.py")).unwrap();
    assert!(fixed.contains("share, rest = divmod(cents, len(people))"), "{fixed}");
    // Files belong to whoever ran it.
    let owner =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::uid(&fs_err::metadata(path).unwrap());
    assert_eq!(owner(&workspace.join("project/ledger.py")), owner(moor.dir.path()));

    let again = run_example(&moor, &more);
    assert_eq!((again.code, again.out.as_str()), (Some(2), ""));
    assert!(again.err.contains("would overwrite it"), "{}", again.err);
    assert_eq!(fs_err::read_to_string(workspace.join("project/ledger.py")).unwrap(), fixed);
    assert_eq!(moor.run(&["runs", "--json"]).json().len(), 1, "a refused run leaves no trace");
}

#[test]
fn show_tells_the_story() {
    let moor = Moor::new();
    let ran = run_example(&moor, &[]);
    let shown = moor.run(&["show", &ran.run()]);
    assert_eq!(shown.code, Some(0));
    let home = moor.home();
    insta::with_settings!({filters => vec![
        (r"run [0-9a-f-]{36}", "run RUN"),
        (r"workspace .*", "workspace DIR"),
        (r"· script:\S* ?…?", "· script:…"),
        (r"· \d+(\.\d)? m?s", "· TIME"),
        (r"in \d+\.\d+s", "in TIME"),
        (r"[0-9a-f]{12}", "HEX"),
    ]}, { insta::assert_snapshot!(shown.out) });
    assert!(shown.out.contains(home.to_str().unwrap()), "it names the workspace");
    let full = moor.run(&["show", "--full", &ran.run()]);
    assert!(full.out.contains("test_no_cent_is_lost") && !full.out.contains("more lines"), "{}", full.out);
}

#[test]
fn without_isolation_only_by_name_and_on_record() {
    let moor = Moor::new();
    let ran = run_example(&moor, &["--isolation", "none"]);
    assert_eq!(ran.code, Some(3), "no sandbox keeps it in, so it is asked for: {}", ran.err);
    let asked = ran.json().into_iter().find(|event| event["type"] == "approval_requested").unwrap();
    assert_eq!(asked["reason"], "it acts outside of a sandbox, and no rule allows it");
    // A rule can allow it.
    let example = repository().join("examples/fix-the-bug");
    let text = fs_err::read_to_string(example.join("agent.toml")).unwrap();
    let rule = "[[policy.rules]]\nsandbox = \"none\"\naction = \"allow\"\n";
    let copied = std::process::Command::new("cp").arg("-a").arg(&example).arg(moor.path("example")).status();
    assert!(copied.unwrap().success());
    fs_err::write(moor.path("example/agent.toml"), format!("{text}\n{rule}")).unwrap();
    let ran =
        moor.run(&["run", "--agent", "example/agent.toml", "--isolation", "none", "Make the tests pass."]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ready = ran.json().into_iter().find(|event| event["type"] == "sandbox_ready").unwrap();
    assert_eq!(ready["isolation"]["level"], "none");
    // The model is told where it really works.
    let workspace = ready["state"]["data"]["workspace"].as_str().unwrap();
    assert!(
        ran.json()[0]["instructions"]
            .as_str()
            .unwrap()
            .contains(&format!("The workspace root is `{workspace}`"))
    );
    assert!(moor.run(&["show", &ran.run()]).out.contains("no isolation"));
}
