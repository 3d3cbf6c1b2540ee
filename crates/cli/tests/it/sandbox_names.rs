//! `moor sandbox`: what is removed or replaced is what was named, and nothing that has a name is lost.

use crate::moor::{Moor, Ran};
use crate::sandbox::{inside, ok, remove_all};

/// Sandboxes that go with the value.
struct Sandboxes(Moor);

impl Sandboxes {
    fn new(names: &[&str]) -> Self {
        let moor = Moor::new();
        for name in names {
            ok(&moor, &["sandbox", "create", "--name", name]);
        }
        Self(moor)
    }

    fn ids(&self, kind: &[&str]) -> Vec<String> {
        let listed = self.0.run(&[&["sandbox", "list", "--json"], kind].concat()).json();
        let mut ids: Vec<String> = listed.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    }

    fn refused(&self, args: &[&str]) -> String {
        let ran: Ran = self.0.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        ran.err
    }
}

impl Drop for Sandboxes {
    fn drop(&mut self) {
        remove_all(&self.0);
    }
}

#[test]
fn what_is_removed_or_replaced_is_named_in_full() {
    let some = Sandboxes::new(&["zzz-work", "yy2"]);
    let moor = &some.0;
    ok(moor, &["sandbox", "snapshot", "yy2", "--name", "zz"]);
    let told = some.refused(&["sandbox", "rm", "yy"]);
    assert!(told.contains("no snapshot 'yy'") && told.contains("Perhaps 'yy2'"), "{told}");
    let told = some.refused(&["sandbox", "restore", "zz", "--into", "zzz"]);
    assert!(told.contains("no sandbox 'zzz'") && told.contains("Perhaps 'zzz-work' is meant"), "{told}");
    let told = some.refused(&["sandbox", "rm", "zz", "nobody", "yy2"]);
    assert!(told.contains("'nobody'") && told.contains("nothing was removed"), "{told}");
    assert_eq!(some.ids(&[]), ["yy2", "zzz-work"]);
    assert_eq!(ok(moor, &["sandbox", "rm", "zz"]), "removed snapshot zz\n");
    assert_eq!(some.ids(&[]), ["yy2", "zzz-work"]);
    // Twice is once, and what went along is gone.
    ok(moor, &["sandbox", "rm", "yy2", "yy2", "yy2-begin"]);
    assert_eq!(
        (some.ids(&[]), some.ids(&["--snapshots"])),
        (vec!["zzz-work".into()], vec!["zzz-work-begin".into()])
    );
    // To look, a beginning will do.
    assert_eq!(inside(moor, "zzz", "echo here"), "here\n");
}

#[test]
fn a_snapshot_that_has_a_name_is_never_lost_to_another() {
    let some = Sandboxes::new(&["one"]);
    let moor = &some.0;
    inside(moor, "one", "echo mine > f");
    ok(moor, &["sandbox", "snapshot", "one", "--name", "two-begin"]);
    let told = some.refused(&["sandbox", "snapshot", "one", "--name", "two-begin"]);
    assert!(told.contains("there is a snapshot 'two-begin' already"), "{told}");
    ok(moor, &["sandbox", "create", "--name", "two"]);
    assert_eq!(ok(moor, &["sandbox", "diff", "two"]), "");
    assert_eq!(ok(moor, &["sandbox", "diff", "one", "--since", "two-begin"]), "");
    // What a sandbox began with goes with the last that tells its differences from it; others' snapshots stay.
    ok(moor, &["sandbox", "fork", "two", "--name", "three"]);
    ok(moor, &["sandbox", "restore", "two-begin", "--name", "four"]);
    ok(moor, &["sandbox", "rm", "two", "four"]);
    assert_eq!(some.ids(&["--snapshots"]), ["one-begin", "two-begin", "two-begin-2"]);
    assert_eq!(ok(moor, &["sandbox", "diff", "three"]), "");
    ok(moor, &["sandbox", "rm", "three", "one"]);
    assert_eq!(some.ids(&["--snapshots"]), ["two-begin"]);
}

#[test]
fn of_many_that_take_one_name_at_once_one_has_it() {
    let some = Sandboxes::new(&["one"]);
    for args in [["sandbox", "create", "--name", "same"], ["sandbox", "snapshot", "one", "--name=same"]] {
        let children: Vec<_> = (0..4)
            .map(|_| some.0.command(&args).stderr(std::process::Stdio::piped()).spawn().unwrap())
            .collect();
        let all: Vec<Ran> =
            children.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect();
        let codes = |code| all.iter().filter(|ran| ran.code == Some(code)).count();
        assert_eq!((codes(0), codes(2)), (1, 3), "{all:?}");
    }
    assert_eq!(inside(&some.0, "same", "echo whole"), "whole\n");
}
