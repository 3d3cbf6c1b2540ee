//! The example as an ordinary user. When the tests run as root, they become one for this.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::example::check_example;
use crate::moor::{Moor, Ran, repository};

/// An id that no account of this machine has.
const USER: &str = "23456";

#[test]
fn the_example_runs_as_an_ordinary_user() {
    let moor = Moor::new();
    // Somebody else must be able to reach the program, the example and a home.
    let open = |path: &std::path::Path| {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    open(moor.dir.path());
    fs_err::copy(env!("CARGO_BIN_EXE_moor"), moor.path("moor")).unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(repository().join("examples/fix-the-bug"))
        .arg(moor.path("example"))
        .status()
        .unwrap();
    assert!(copied.success());
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let run = |args: &[&str]| -> Ran {
        let mut command = if root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(moor.path("moor"));
            command
        } else {
            Command::new(moor.path("moor"))
        };
        command.args(args).current_dir(moor.dir.path()).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("MOOR_HOME", moor.home()).output().unwrap().into()
    };
    let ran = run(&["run", "--agent", "example/agent.toml", "Make the tests pass."]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    check_example(&ran.json());
    let shown = run(&["show", &ran.run()]);
    assert!(shown.out.contains("completed · 5 turns"), "{}", shown.out);
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.code, Some(0), "{}", doctor.out);
}
