//! `moor sandbox restore`: a snapshot brings the files, and the manifest that it was taken with is found again.

use crate::moor::{Ran, exec, say};
use crate::network::VALUE;
use crate::sandbox_network::Networked;

#[test]
fn a_runs_snapshot_has_the_runs_manifest_again_with_what_this_machine_grants_now() {
    let net = Networked::new("environment: {value: {WORD: of-the-run}}\n");
    let moor = &net.moor;
    let manifest = fs_err::read_to_string(moor.path("m.yaml")).unwrap();
    moor.write("s.jsonl", &[exec(0, &["echo 1 > f"]), say("done")].concat());
    moor.write(
        "agent.toml",
        "model = \"script:s.jsonl\"\nmanifest = \"m.yaml\"\n[sandbox]\nsnapshots = \"end\"\n",
    );
    let ran: Ran = net.run(&["run", "--agent", "agent.toml", "--json", "go"]);
    assert_eq!(ran.code, Some(0), "{}\n{}\n{manifest}", ran.out, ran.err);
    let taken = ran.json().into_iter().rfind(|event| event["type"] == "snapshot_taken").unwrap();
    let snapshot = taken["snapshot"].as_str().unwrap();

    let refused = moor.run(&["sandbox", "restore", snapshot, "--name", "one"]);
    assert!(refused.err.contains("names the secret 'api-key', and it is not configured"), "{}", refused.err);
    let open = net.run(&["sandbox", "restore", snapshot, "--name", "one", "--isolation", "none"]);
    assert!(open.err.contains("not supported: network allow on the local sandbox"), "{}", open.err);
    let restored = net.run(&["sandbox", "restore", snapshot, "--name", "one"]);
    assert_eq!((restored.code, restored.out.as_str(), restored.err.as_str()), (Some(0), "one\n", ""));
    let seen = net.exec(&format!("cat f; echo $WORD; {}", net.ask()));
    assert!(seen.out.starts_with("1\nof-the-run\ngot Bearer phantom_"), "{seen:?}");
    assert!(!seen.out.contains(VALUE));
}

#[test]
fn a_manifest_that_nobody_has_any_more_is_told() {
    let net = Networked::new("environment: {value: {WORD: once}}\n");
    let ok = |args: &[&str]| {
        let ran = net.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
        ran.err
    };
    ok(&["sandbox", "create", "--name", "gone", "--manifest", "m.yaml"]);
    ok(&["sandbox", "snapshot", "gone", "--name", "s"]);
    ok(&["sandbox", "restore", "s", "--name", "first"]);
    assert_eq!(net.run(&["sandbox", "exec", "first", "--", "sh", "-c", "echo $WORD"]).out, "once\n");
    ok(&["sandbox", "rm", "gone"]);
    ok(&["sandbox", "rm", "first"]);
    let told = ok(&["sandbox", "restore", "s", "--name", "one"]);
    assert!(told.starts_with("no sandbox and no run has the manifest of snapshot s any more"), "{told}");
    assert_eq!(net.exec("echo $WORD").out, "\n");
}
