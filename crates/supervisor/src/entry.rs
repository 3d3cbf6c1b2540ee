//! How a program becomes the supervisor.
//!
//! The client starts its own program again, under the name [`NAME`]. A constructor looks at that name before
//! `main` runs, and if it matches never lets `main` run. So there is no second program to build, install, find or
//! keep in step, and tests, examples and every program that links this crate work without set-up.

use std::ffi::{CStr, c_char, c_int};
use std::panic::catch_unwind;
use std::process::Command;

use crate::monitor;
use crate::sys::exit_now;

/// The name (`argv[0]`) under which a program that links this crate is the supervisor.
pub const NAME: &str = "moor-supervisor";

/// The same in a container, where standard input is the engine's: the socket is the one at [`DOOR_INSIDE`].
pub const NAME_INSIDE: &str = "moor-supervisor-inside";

/// Where a supervisor in a container connects to.
pub const DOOR_INSIDE: &str = "/.mooring/door/socket";

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

#[cfg(not(target_env = "gnu"))]
compile_error!(
    "only glibc's loader passes the arguments to a constructor; elsewhere call the supervisor from main"
);

/// Run by the loader, which passes what `main` would get.
#[used]
// SAFETY: `.init_array` holds pointers to functions of this type.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: Constructor = constructor;

/// A command that starts the supervisor. Its standard input must be the socket; its first frame a
/// [`Config`](crate::Config).
///
/// It inherits no environment: what a sandbox shows must not depend on who started it.
pub fn command() -> Command {
    use std::os::unix::process::CommandExt as _;
    keep();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).env_clear();
    command
}

/// Has the linker keep the constructor wherever this function is kept.
pub(crate) fn keep() {
    std::hint::black_box(&CONSTRUCTOR);
}

extern "C" fn constructor(argc: c_int, argv: *const *const c_char, _env: *const *const c_char) {
    if argc != 1 || argv.is_null() {
        return;
    }
    // SAFETY: with `argc` 1, `argv` holds one C string.
    let name = unsafe { CStr::from_ptr(*argv) };
    let door = match name.to_str() {
        Ok(NAME) => None,
        Ok(NAME_INSIDE) => Some(DOOR_INSIDE),
        _ => return,
    };
    // A panic must not run on into `main`.
    exit_now(catch_unwind(|| monitor::main(door)).unwrap_or(101))
}
