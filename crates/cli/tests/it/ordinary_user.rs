//! The program as an ordinary user. When the tests run as root, they become one for this.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::example::check_example;
use crate::moor::{Moor, Ran, repository};

/// An id that no account of this machine has.
const USER: &str = "23456";

/// A program and a home for an ordinary user.
struct Ordinary {
    moor: Moor,
    root: bool,
}

impl Ordinary {
    fn new() -> Self {
        let moor = Moor::new();
        // Somebody else must be able to reach both.
        fs_err::set_permissions(moor.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        fs_err::copy(env!("CARGO_BIN_EXE_moor"), moor.path("moor")).unwrap();
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        Self { moor, root }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let moor = &self.moor;
        let mut command = if self.root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(moor.path("moor"));
            command
        } else {
            Command::new(moor.path("moor"))
        };
        command.args(args).current_dir(moor.dir.path()).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("MOOR_HOME", moor.home()).output().unwrap().into()
    }
}

#[test]
fn what_its_owner_may_not_read_is_in_snapshots_and_differences() {
    let user = Ordinary::new();
    let ok = |args: &[&str]| -> String {
        let ran = user.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
        ran.out
    };
    ok(&["sandbox", "create", "--name", "p"]);
    ok(&["sandbox", "exec", "p", "--", "sh", "-c", "mkdir d; echo 1 > d/x; echo 2 > y; chmod 000 d y"]);
    ok(&["sandbox", "snapshot", "p", "--name", "s"]);
    let told = ok(&["sandbox", "diff", "p"]);
    assert!(told.contains("+++ b/d/x") && told.contains("+++ b/y"), "{told}");
    ok(&["sandbox", "restore", "s", "--name", "q"]);
    let line = "stat -c '%a %n' d y; chmod 700 d y; cat d/x y";
    assert_eq!(ok(&["sandbox", "exec", "q", "--", "sh", "-c", line]), "0 d\n0 y\n1\n2\n");
    ok(&["sandbox", "rm", "p", "q"]);
}

#[test]
fn the_example_runs_as_an_ordinary_user() {
    let user = Ordinary::new();
    let moor = &user.moor;
    let copied = Command::new("cp")
        .arg("-r")
        .arg(repository().join("examples/fix-the-bug"))
        .arg(moor.path("example"))
        .status()
        .unwrap();
    assert!(copied.success());
    let run = |args: &[&str]| user.run(args);
    let ran = run(&["run", "--agent", "example/agent.toml", "Make the tests pass."]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    check_example(&ran.json());
    let shown = run(&["show", &ran.run()]);
    assert!(shown.out.contains("completed · 5 turns"), "{}", shown.out);
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.code, Some(0), "{}", doctor.out);
}
