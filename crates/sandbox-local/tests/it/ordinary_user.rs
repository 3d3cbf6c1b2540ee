//! All other tests once more, as somebody without rights.

use mooring_testkit::tests_as_ordinary_user;

use crate::setup::is_root;

#[test]
fn everything_holds_for_an_ordinary_user_too() {
    if !is_root() {
        return;
    }
    let told = tests_as_ordinary_user(&["--test-threads", "4"], &[]);
    assert!(told.contains("inside::"), "the tests did run:\n{told}");
}
