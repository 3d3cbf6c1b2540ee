//! All other tests once more, as somebody without rights but to the engine's socket.

use mooring_testkit::tests_as_ordinary_user;

use crate::engine::{DOCKER, docker, is_root};

#[test]
fn everything_holds_for_an_ordinary_user_too() {
    let Some(socket) = docker().filter(|_| is_root()) else { return };
    let engine = format!("unix://{}", socket.display());
    // What is tried from inside does not depend on who is outside.
    let told =
        tests_as_ordinary_user(&["--test-threads", "3", "--skip", "escape::"], &[(DOCKER, engine.as_str())]);
    assert!(told.contains("conformance::"), "the tests did run:\n{told}");
}
