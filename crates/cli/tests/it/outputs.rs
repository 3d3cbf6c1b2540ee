//! What a run leaves: copied out with `--outputs`, and what its manifest's set-up made, kept for the next run.

use std::os::unix::fs::symlink;

use crate::moor::{Moor, exec, say};

const MANIFEST: &str = "entries:\n  in.txt: {type: file, content: in}\nx-mooring:\n  setup: ['cat /proc/sys/kernel/random/uuid > made']\n  \
                        outputs: [report.md, {path: out/deep, required: false}]\n";

fn moor(commands: &[&str]) -> Moor {
    let moor = Moor::new();
    moor.write("m.yaml", MANIFEST);
    moor.write("worker.toml", "name = \"worker\"\nmodel = \"script:worker.jsonl\"\n");
    moor.write("worker.jsonl", &(exec(0, commands) + &say("done")));
    moor
}

const RUN: [&str; 8] = ["run", "--agent", "worker.toml", "--manifest", "m.yaml", "--outputs", "copied", "go"];

#[test]
fn outputs_are_copied_once_the_run_is_over_and_nothing_is_overwritten() {
    let moor = moor(&[
        "echo hello > report.md; mkdir -p out/deep/er; echo x > out/deep/er/x; ln -s er/x out/deep/x",
    ]);
    let ran = moor.run(&RUN);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    assert_eq!(fs_err::read_to_string(moor.path("copied/report.md")).unwrap(), "hello\n");
    assert_eq!(fs_err::read_to_string(moor.path("copied/out/deep/x")).unwrap(), "x\n");
    assert!(!moor.path("copied/in.txt").exists() && !moor.path("copied/made").exists());
    let again = moor.run(&RUN);
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.err.contains("report.md is there already"), "{}", again.err);
    assert!(again.out.is_empty(), "nothing ran: {}", again.out);
}

#[test]
fn a_link_that_leads_out_is_not_copied() {
    let moor = moor(&["echo hello > report.md; mkdir -p out/deep; ln -s ../../../../etc/passwd out/deep/x"]);
    let ran = moor.run(&RUN);
    assert_ne!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    assert!(ran.err.contains("a symbolic link to ../../../../etc/passwd, outside"), "{}", ran.err);
    assert!(moor.path("copied/out/deep/x").symlink_metadata().is_err());
    // Nor is one on this side followed that somebody put there.
    let moor = self::moor(&["echo hello > report.md"]);
    symlink("/nowhere", moor.path("report.md")).unwrap();
    let mut here = RUN;
    here[6] = ".";
    let ran = moor.run(&here);
    assert_eq!(ran.code, Some(2), "{ran:?}");
}

#[test]
fn a_set_up_is_run_once_and_then_said_to_be_cached() {
    let moor = moor(&["cp made report.md"]);
    let mut made = Vec::new();
    for (number, word) in [(1, "setup run"), (2, "setup cached")] {
        let at = format!("copied{number}");
        let mut args = RUN;
        args[6] = &at;
        let ran = moor.run(&args);
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
        made.push(fs_err::read_to_string(moor.path(&at).join("report.md")).unwrap());
        let shown = moor.run(&["show", &ran.run()]).out;
        assert!(shown.contains(word), "{shown}");
    }
    assert_eq!(made[0], made[1]);
    // By hand as well; and once it is removed, anew.
    let create = ["sandbox", "create", "--manifest", "m.yaml", "--name"];
    let by_hand = |name| moor.run(&[&create[..], &[name]].concat());
    let cached = by_hand("one");
    assert!(cached.err.contains("setup cached"), "{cached:?}");
    let pruned = moor.run(&["sandbox", "prune", "--older-than", "0"]);
    assert!(pruned.out.contains("removed snapshot setup-"), "{pruned:?}");
    let anew = by_hand("two");
    assert_eq!(anew.code, Some(0), "{anew:?}");
    assert!(!anew.err.contains("setup cached"), "{anew:?}");
}
