//! Finding out what this host can isolate, by trying.
//!
//! Version numbers and configuration say little: a container's seccomp filter, AppArmor or a sysctl may refuse what
//! the kernel could do. So each mechanism is used once, in a child that then ends.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

use crate::config::Check;
use crate::isolate::cgroup::{Controller, Layout, make_folder};
use crate::isolate::{self, hint, identity, seccomp};
use crate::sys;

const USER: i32 = libc::CLONE_NEWUSER;
const MOUNT: i32 = USER | libc::CLONE_NEWNS;

/// All checks. Private workspaces would lie below `state_dir`.
pub(crate) fn checks(state_dir: &Path) -> Vec<Check> {
    let mut checks = vec![
        check("user namespace", "own users and groups", attempt(USER, false, || Ok(()))),
        check("mount namespace", "own file system", attempt(MOUNT, false, mount_tmpfs)),
        check("pid namespace", "own processes", attempt(USER | libc::CLONE_NEWPID, false, || Ok(()))),
        check("proc mount", "own /proc", attempt(MOUNT | libc::CLONE_NEWPID, false, mount_proc)),
        check(
            "network namespace",
            "no network but loopback",
            attempt(USER | libc::CLONE_NEWNET, false, sys::loopback_up),
        ),
        check(
            "ipc, uts and cgroup namespaces",
            "own",
            attempt(USER | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS, false, sys::unshare_cgroup),
        ),
        check("devpts", "own terminals", attempt(MOUNT, false, open_terminal)),
        check("seccomp", "filters system calls", attempt(USER, false, try_seccomp)),
        check("openat2", "confines file operations", try_openat2()),
        landlock(),
        users(),
        idmapped(state_dir),
        device(),
    ];
    checks.extend(Controller::ALL.map(controller));
    checks.extend(gates());
    checks
}

fn check(name: &str, purpose: &str, result: io::Result<()>) -> Check {
    let name = name.to_owned();
    match result {
        Ok(()) => Check { name, ok: true, detail: purpose.into(), hint: String::new() },
        Err(error) => {
            // Most that fails does so for want of the first.
            let known = if name == "proc mount" { "proc mount" } else { "user namespace" };
            Check { name, ok: false, detail: error.to_string(), hint: hint(known).into() }
        }
    }
}

/// Does something in a child with these namespaces, with all rights in them. `many`: over more users than one.
pub(crate) fn attempt(namespaces: i32, many: bool, body: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (go, give_go) = pipe_with(PipeFlags::CLOEXEC)?;
    let Some(child) = sys::clone_process(namespaces)? else {
        drop(give_go);
        let result = match rustix::io::read(&go, &mut [0]) {
            Ok(1) => identity::become_inside().map_err(io::Error::from).and_then(|()| body()),
            _ => Err(Errno::CANCELED.into()),
        };
        sys::exit_now(
            result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO).clamp(1, 255), |()| 0),
        );
    };
    let mapped = identity::write_map(child, many);
    if mapped.is_ok() {
        rustix::io::write(&give_go, b"!")?;
    } else {
        let _ = kill_process(child, Signal::KILL);
    }
    let status = waitpid(Some(child), WaitOptions::empty())?;
    mapped.map_err(io::Error::other)?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("the attempt was killed")),
    }
}

fn mount_tmpfs() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(mount("tmpfs", "/tmp", "tmpfs", MountFlags::NOSUID, None)?)
}

fn mount_proc() -> io::Result<()> {
    mount_tmpfs()?;
    Ok(mount("proc", "/tmp", "proc", MountFlags::NOSUID, None)?)
}

fn open_terminal() -> io::Result<()> {
    mount_tmpfs()?;
    mount("devpts", "/tmp", "devpts", MountFlags::NOSUID, c"newinstance,ptmxmode=0666,mode=0620")?;
    rustix::fs::open("/tmp/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(())
}

fn try_seccomp() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    sys::load_seccomp(&mut seccomp::filter())?;
    match openat2(CWD, "/", OFlags::PATH, Mode::empty(), ResolveFlags::empty()) {
        Err(Errno::NOSYS) => Ok(()),
        _ => Err(io::Error::other("the filter was loaded but does not filter")),
    }
}

fn try_openat2() -> io::Result<()> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match openat2(&root, "..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH) {
        Err(Errno::XDEV) => Ok(()),
        Err(errno) => Err(errno.into()),
        Ok(_) => Err(io::Error::other("it does not confine")),
    }
}

fn users() -> Check {
    let name = "more users than one".to_owned();
    let found = if identity::is_root() { Ok(()) } else { isolate::more_users() };
    match found {
        Ok(()) => Check {
            name,
            ok: true,
            detail: "for a manifest with users or groups".into(),
            hint: String::new(),
        },
        Err(detail) => {
            let hint = "needed only for manifests with users or groups: have a range of subordinate numbers given \
                        (`usermod --add-subuids`, `--add-subgids`), and install uidmap";
            Check { name, ok: false, detail, hint: hint.into() }
        }
    }
}

fn landlock() -> Check {
    let name = "landlock".to_owned();
    let entered = attempt(USER, false, || {
        rustix::thread::set_no_new_privs(true)?;
        match isolate::landlock::enter(&[]) {
            Ok(state) if state.starts_with("on") => Ok(()),
            Ok(_) => Err(Errno::NOSYS.into()),
            Err(failure) => Err(io::Error::other(failure)),
        }
    });
    match entered {
        Ok(()) => Check { name, ok: true, detail: "a second wall around files".into(), hint: String::new() },
        Err(error) => {
            let hint = "sandboxes do without it; Linux 5.19 or newer, with landlock among the kernel's `lsm=`, has it";
            Check { name, ok: false, detail: error.to_string(), hint: hint.into() }
        }
    }
}

fn idmapped(state_dir: &Path) -> Check {
    let name = "idmapped mount".to_owned();
    if !identity::is_root() {
        let detail = "not needed: an ordinary user's workspaces are that user's own".into();
        return Check { name, ok: true, detail, hint: String::new() };
    }
    let existing = state_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    match identity::mapped_workspace(existing, false) {
        Ok(_) => Check {
            name,
            ok: true,
            detail: "maps the owners of a workspace's files".into(),
            hint: String::new(),
        },
        Err(failure) => {
            let detail = format!("{}: {failure}", existing.display());
            Check { name, ok: false, detail, hint: hint("idmapped mount").into() }
        }
    }
}

/// What mounts of storage need.
fn device() -> Check {
    let name = "fuse device".to_owned();
    match isolate::storage::device() {
        Ok(_) => Check { name, ok: true, detail: "mounts storage".into(), hint: String::new() },
        Err(errno) => {
            Check { name, ok: false, detail: io::Error::from(errno).to_string(), hint: hint("fuse").into() }
        }
    }
}

fn controller(controller: Controller) -> Check {
    let name = format!("cgroup {}", controller.name());
    let made = Layout::of_this_process().map_err(|error| error.to_string()).and_then(|layout| {
        let place = layout.place(controller).ok_or("this system has no such controller")?;
        let mut last = String::from("no group can be made");
        for parent in &place.parents {
            match make_folder(parent, controller, place.version, "probe") {
                Ok(folder) => {
                    // It is empty; where it stays for another's sake it is in nobody's way.
                    let _ = fs::remove_dir(folder);
                    return Ok(format!("version {}, below {}", place.version, parent.display()));
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    });
    match made {
        Ok(detail) => Check { name, ok: true, detail, hint: String::new() },
        Err(detail) => {
            let hint = "needed only for limits: run as root, or have a group delegated (systemd: `Delegate=yes`; \
                        else `chown -R` a directory of that hierarchy)";
            Check { name, ok: false, detail, hint: hint.into() }
        }
    }
}

/// Switches of the system that close user namespaces to ordinary users, where there are such switches.
fn gates() -> Vec<Check> {
    let gates = [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
    ];
    let found = gates.into_iter().filter_map(|(name, closed, open)| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let value = fs::read_to_string(path).ok()?;
        let value = value.trim();
        let ok = value != closed || identity::is_root();
        let hint = if ok { String::new() } else { format!("sysctl -w {name}={open}") };
        Some(Check { name: name.into(), ok, detail: value.into(), hint })
    });
    found.collect()
}
