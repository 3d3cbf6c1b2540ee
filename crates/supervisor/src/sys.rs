//! The system calls that neither `std` nor `rustix` offers, each behind a safe function.
//!
//! The process has one thread, always: it is started by `exec` and makes none. Several comments below rest on it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::Pid;
use rustix::thread::{CapabilitySet, CapabilitySets};

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `fork`: `None` in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    clone_process(0)
}

/// `fork`, with the child in new namespaces: `None` in the child.
pub(crate) fn clone_process(namespaces: i32) -> io::Result<Option<Pid>> {
    let flags = i64::from(namespaces | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child gets a copy of this single-threaded process, like `fork`. No lock can be
    // held by another thread, and no pointer is passed.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(Pid::from_raw(pid as i32))
}

/// Closes every descriptor from 3 on, but for `keep`.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter(|fd| **fd > 2).map(|fd| *fd as u32).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            let to = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: only called in a child that is about to use nothing but `keep`; whoever owns the closed
            // descriptors in this process is never dropped (the child ends by `exit_now`).
            check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Ends the process without running what `exit` would: a forked child must not flush or unlink for its parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Changes a mount's attributes, with everything below it where `recursive`.
pub(crate) fn mount_setattr(
    tree: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    set: u64,
    id_map: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const IDMAP: u64 = 0x0010_0000;
    let attr = MountAttr {
        set: set | if id_map.is_some() { IDMAP } else { 0 },
        clear: 0,
        propagation: 0,
        user_namespace: id_map.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let mut flags = 0;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `path` is a C string and `attr` a `struct mount_attr` of the size given; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Loads a seccomp filter for this process and all that come from it. Needs `no_new_privs`.
pub(crate) fn load_seccomp(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to `filter`, which has the length given; the kernel copies it.
    check(i64::from(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    }))?;
    Ok(())
}

/// Brings up the loopback interface of this network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `ifreq` is plain data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the `ifreq` given, which outlives the call.
    check(i64::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }))?;
    Ok(())
}

/// Gives this process a cgroup namespace, whose root is the group that it is in.
pub(crate) fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: one thread, and no descriptor or directory is affected.
    check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }))?;
    Ok(())
}

/// Puts every signal back to what a fresh process has, but for SIGPIPE, which is ignored: a closed socket is an
/// error code here, not a death.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        let action = if signal == libc::SIGPIPE { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: SIG_DFL and SIG_IGN run no code of ours. It fails for SIGKILL and the like, which is right.
        unsafe { libc::signal(signal, action) };
    }
}

/// A command, ready to be started. Everything is prepared before, since its process shares this one's memory
/// until the program runs.
pub(crate) struct Launch {
    /// The paths to try, in order.
    pub(crate) programs: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    /// What becomes standard input, output and error.
    pub(crate) stdio: [OwnedFd; 3],
    /// Standard input is a terminal, to be the controlling one.
    pub(crate) terminal: bool,
    /// User, group and supplementary groups. `None`: as this process.
    pub(crate) identity: Option<(u32, u32, Vec<u32>)>,
    /// Give up all capabilities, and load the seccomp filter.
    pub(crate) confined: bool,
    /// How large its files may grow. `None`: as this process's.
    pub(crate) file_size: Option<u64>,
}

/// Where starting a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Stage {
    Session = 1,
    Terminal,
    Descriptors,
    Identity,
    Directory,
    Program,
}

impl Stage {
    pub(crate) fn from_raw(raw: i32) -> Self {
        [Self::Session, Self::Terminal, Self::Descriptors, Self::Identity, Self::Directory]
            .into_iter()
            .find(|stage| *stage as i32 == raw)
            .unwrap_or(Self::Program)
    }
}

struct Child<'a> {
    launch: &'a Launch,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    stage: AtomicI32,
    errno: AtomicI32,
}

/// Starts a command as a child of this process and returns once its program runs.
///
/// Like `posix_spawn`: the child borrows this process's memory until then (CLONE_VM and CLONE_VFORK), so nothing
/// is copied, and why it failed comes back without a pipe.
pub(crate) fn launch(launch: &Launch) -> Result<Pid, (Stage, io::Error)> {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let child = Child {
        launch,
        argv: pointers(&launch.argv),
        env: pointers(&launch.env),
        stage: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    };
    // u128: the stack must be aligned to 16 bytes.
    let mut stack = vec![0_u128; (64 << 10) / size_of::<u128>()];
    // SAFETY: one past the end of the allocation, which is where a stack that grows down begins.
    let top = unsafe { stack.as_mut_ptr().add(stack.len()) };
    // SAFETY: the child runs `child_main` on a stack of its own, and this thread, the only one, stands still until
    // the child has called `execve` or `_exit`; so `child` and `stack` outlive its use of them.
    let pid = unsafe {
        libc::clone(
            child_main,
            top.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw const child).cast_mut().cast::<c_void>(),
        )
    };
    let Some(pid) = (if pid > 0 { Pid::from_raw(pid) } else { None }) else {
        return Err((Stage::Session, io::Error::last_os_error()));
    };
    let stage = child.stage.load(Ordering::Relaxed);
    if stage == 0 {
        return Ok(pid);
    }
    let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    Err((Stage::from_raw(stage), io::Error::from_raw_os_error(child.errno.load(Ordering::Relaxed))))
}

extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: `launch` passes a `Child` that outlives this function, and stands still meanwhile.
    let child = unsafe { &*argument.cast::<Child<'_>>() };
    let (stage, errno) = run_child(child);
    child.errno.store(errno, Ordering::Relaxed);
    child.stage.store(stage as i32, Ordering::Relaxed);
    exit_now(127)
}

/// Becomes the command; returns only on failure. Allocates nothing and takes no lock.
fn run_child(child: &Child<'_>) -> (Stage, i32) {
    let launch = child.launch;
    let fail = |stage: Stage, errno: rustix::io::Errno| (stage, errno.raw_os_error());
    if let Err(errno) = rustix::process::setsid() {
        return fail(Stage::Session, errno);
    }
    if launch.terminal
        && let Err(errno) = rustix::process::ioctl_tiocsctty(&launch.stdio[0])
    {
        return fail(Stage::Terminal, errno);
    }
    for (target, fd) in launch.stdio.iter().enumerate() {
        // SAFETY: duplicates a descriptor that is open; 0 to 2 belong to nobody in this process.
        if unsafe { libc::dup2(fd.as_raw_fd(), target as RawFd) } < 0 {
            return (Stage::Descriptors, last_errno());
        }
    }
    // SAFETY: SIG_DFL runs no code of ours; handlers are not shared with the parent (no CLONE_SIGHAND).
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: all zeros is the empty set on Linux.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: reads a valid set; the mask is this task's own.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
    if let Some((uid, gid, groups)) = &launch.identity
        && let Err(errno) = become_user(*uid, *gid, groups)
    {
        return (Stage::Identity, errno);
    }
    if launch.confined {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        if let Err(errno) = rustix::thread::set_capabilities(None, sets) {
            return fail(Stage::Identity, errno);
        }
    }
    if let Err(errno) = rustix::process::chdir(launch.cwd.as_c_str()) {
        return fail(Stage::Directory, errno);
    }
    let mut errno = libc::ENOENT;
    for program in &launch.programs {
        // SAFETY: path, arguments and environment are C strings in arrays that end with a null pointer.
        unsafe { libc::execve(program.as_ptr(), child.argv.as_ptr(), child.env.as_ptr()) };
        match last_errno() {
            // A later directory of PATH may hold it; that one was there but not to be run is remembered.
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => errno = libc::EACCES,
            other => return (Stage::Program, other),
        }
    }
    (Stage::Program, errno)
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Raw system calls on purpose: glibc's wrappers change all threads, and would take this process for its parent.
fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), i32> {
    // SAFETY: an array and its length.
    let groups = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    // SAFETY: plain numbers.
    if groups < 0 || unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: plain numbers.
    if unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } < 0 {
        return Err(last_errno());
    }
    Ok(())
}
