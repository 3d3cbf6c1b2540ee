//! System calls that no command in a sandbox makes, each with its reason.
//!
//! A list of what is denied, not of what is allowed: a sandbox for any program cannot know what programs need.
//! The walls are the namespaces and the missing rights; this list takes away the kernel's least tried parts, where
//! walls have cracked before, and what reaches around them. A denied call fails with an error number; nothing is
//! killed for trying.
//!
//! `ptrace` and `process_vm_*` are allowed: debuggers are useful, and reach only processes of the same user in the
//! same sandbox. The supervisor and its reapers are not among these (see `drop_rights`).

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, EAFNOSUPPORT, ENOSYS, EPERM,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, sock_filter,
};

/// Denied whatever the arguments, with EPERM.
const DENIED: &[(i64, &str)] = &[
    // Mounts: would change what the sandbox sees; a capability is needed too, so this is the second lock.
    (libc::SYS_mount, "changes the view of the file system"),
    (libc::SYS_umount2, "could uncover what a mount hides"),
    (libc::SYS_pivot_root, "changes the root"),
    (libc::SYS_chroot, "changes the root"),
    (libc::SYS_fsopen, "mount"),
    (libc::SYS_fsconfig, "mount"),
    (libc::SYS_fsmount, "mount"),
    (libc::SYS_fspick, "mount"),
    (libc::SYS_move_mount, "mount"),
    (libc::SYS_open_tree, "mount"),
    (libc::SYS_mount_setattr, "mount"),
    (libc::SYS_setns, "enters another namespace"),
    (libc::SYS_open_by_handle_at, "opens files by number, past every mount (the 'shocker' escape)"),
    (libc::SYS_name_to_handle_at, "finds those numbers"),
    // The kernel itself.
    (libc::SYS_bpf, "runs code in the kernel; many of its flaws were here"),
    (libc::SYS_perf_event_open, "many flaws, and sees across sandboxes"),
    (libc::SYS_userfaultfd, "holds the kernel still in the middle of a copy: the exploit writer's tool"),
    (libc::SYS_io_uring_setup, "does system calls that no filter sees"),
    (libc::SYS_io_uring_enter, "as io_uring_setup"),
    (libc::SYS_io_uring_register, "as io_uring_setup"),
    (libc::SYS_init_module, "loads code into the kernel"),
    (libc::SYS_finit_module, "loads code into the kernel"),
    (libc::SYS_delete_module, "unloads code from the kernel"),
    (libc::SYS_kexec_load, "replaces the kernel"),
    (libc::SYS_syslog, "the kernel's messages, with the host's addresses and devices"),
    // Keys are not divided by namespaces of old kernels, and are the harness's user's.
    (libc::SYS_add_key, "the caller's keyring is shared with the host"),
    (libc::SYS_keyctl, "the caller's keyring is shared with the host"),
    (libc::SYS_request_key, "the caller's keyring is shared with the host, and this starts a program there"),
    // The whole machine.
    (libc::SYS_reboot, "the machine's"),
    (libc::SYS_swapon, "the machine's"),
    (libc::SYS_swapoff, "the machine's"),
    (libc::SYS_acct, "the machine's"),
    (libc::SYS_quotactl, "the disk's"),
    (libc::SYS_quotactl_fd, "the disk's"),
    (libc::SYS_settimeofday, "the machine's clock"),
    (libc::SYS_clock_settime, "the machine's clock"),
    (libc::SYS_clock_adjtime, "the machine's clock"),
    (libc::SYS_adjtimex, "the machine's clock"),
    (libc::SYS_vhangup, "the caller's terminal"),
    (libc::SYS_nfsservctl, "no longer exists; nothing may come back under its number"),
    (libc::SYS_lookup_dcookie, "looks into the kernel's path cache"),
    (libc::SYS_fanotify_init, "watches a whole file system, beyond the workspace"),
    (libc::SYS_move_pages, "moves other processes' memory"),
    (libc::SYS_migrate_pages, "moves other processes' memory"),
    (libc::SYS_mbind, "has leaked kernel memory; of no use here"),
];

/// Of x86 alone.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[(i64, &str)] = &[
    (libc::SYS_kexec_file_load, "replaces the kernel"),
    (libc::SYS_iopl, "talks to hardware"),
    (libc::SYS_ioperm, "talks to hardware"),
    (libc::SYS_modify_ldt, "16-bit segments: many flaws, no users"),
    (libc::SYS_uselib, "loads a library the old way; flaws, no users"),
    (libc::SYS_ustat, "the host's disks by number"),
    (libc::SYS_sysfs, "the kernel's file systems"),
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[(i64, &str)] = &[];

/// Denied with ENOSYS: callers have another way, and take it.
const ABSENT: &[(i64, &str)] = &[
    (libc::SYS_clone3, "its flags are in memory, where a filter cannot look; `clone` does the same"),
    (libc::SYS_openat2, "as `clone3`, for the mode of new files; `openat` does the same"),
    (452, "fchmodat2: `fchmodat` does the same"),
];

/// Of `clone` and `unshare`: everything that makes a namespace. A user namespace of one's own brings rights over
/// the kernel's least tried parts.
const NAMESPACES: u32 = 0x7e02_0000;
const NEW_TIME: u32 = 0x80;

/// Sockets of these families only: local, IPv4, IPv6, netlink. Others reach past the network namespace (vsock: to
/// the hypervisor) or are little tried (`AF_ALG` and the rest).
const FAMILIES: [u32; 4] = [1, 2, 10, 16];

/// Pastes on a console.
const TIOCLINUX: u32 = 0x541c;

/// `ioctl`s that type at a terminal as if somebody had.
const TYPING: [u32; 2] = [libc::TIOCSTI as u32, TIOCLINUX];

/// Set-user-id and set-group-id. On disk a workspace's files may be root's: a program with such a bit would be a
/// way up for other users of the host.
const SET_ID: u32 = 0o6000;

/// Flags of `open` that make a file, and so give the mode argument a meaning.
const MAKES_FILE: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: u32 = 0xc000_00f3;

/// Where `struct seccomp_data` has the call's number, its architecture and the low half of its arguments.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// The filter, to be loaded into a command's process.
pub(crate) fn filter() -> Vec<sock_filter> {
    let mut filter = Filter(Vec::new());
    filter.load(ARCH);
    filter.unless_equal(ARCHITECTURE, &[ret_errno(ENOSYS)]);
    filter.load(NUMBER);
    // The x32 numbers: another set of calls for the same kernel functions.
    #[cfg(target_arch = "x86_64")]
    filter.if_at_least(0x4000_0000, &[ret_errno(ENOSYS)]);
    for (number, _) in DENIED.iter().chain(DENIED_HERE) {
        filter.if_equal(*number as u32, &[ret_errno(EPERM)]);
    }
    for (number, _) in ABSENT {
        filter.if_equal(*number as u32, &[ret_errno(ENOSYS)]);
    }
    filter.if_call(libc::SYS_clone, |call| call.if_any_bit(argument(0), NAMESPACES, EPERM));
    filter.if_call(libc::SYS_unshare, |call| call.if_any_bit(argument(0), NAMESPACES | NEW_TIME, EPERM));
    filter.if_call(libc::SYS_ioctl, |call| {
        for request in TYPING {
            call.if_value(argument(1), request, EPERM);
        }
    });
    filter.if_call(libc::SYS_socket, |call| {
        call.load(argument(0));
        for family in FAMILIES {
            call.if_equal(family, &[ret(SECCOMP_RET_ALLOW)]);
        }
        call.0.push(ret_errno(EAFNOSUPPORT));
    });
    for (number, mode) in modes() {
        filter.if_call(number, |call| call.if_any_bit(argument(mode), SET_ID, EPERM));
    }
    for (number, flags) in opens() {
        filter.if_call(number, |call| {
            let mut made = Filter(Vec::new());
            made.if_any_bit(argument(flags + 1), SET_ID, EPERM);
            call.load(argument(flags));
            call.if_set(MAKES_FILE, &made.0);
        });
    }
    filter.0.push(ret(SECCOMP_RET_ALLOW));
    filter.0
}

/// Calls with a mode, and which argument it is.
fn modes() -> Vec<(i64, u32)> {
    let mut calls = vec![(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (libc::SYS_mknodat, 2)];
    #[cfg(target_arch = "x86_64")]
    calls.extend([(libc::SYS_chmod, 1), (libc::SYS_creat, 1), (libc::SYS_mknod, 1)]);
    calls
}

/// Calls with flags of `open`, and which argument these are; the mode follows.
fn opens() -> Vec<(i64, u32)> {
    let mut calls = vec![(libc::SYS_openat, 2)];
    #[cfg(target_arch = "x86_64")]
    calls.push((libc::SYS_open, 1));
    calls.shrink_to_fit();
    calls
}

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

const fn ret(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, value, 0, 0)
}

const fn ret_errno(errno: i32) -> sock_filter {
    ret(SECCOMP_RET_ERRNO | errno as u32)
}

/// A small assembler: every jump skips a block.
struct Filter(Vec<sock_filter>);

impl Filter {
    fn load(&mut self, offset: u32) {
        self.0.push(instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0));
    }

    fn if_equal(&mut self, value: u32, block: &[sock_filter]) {
        self.block(BPF_JEQ, value, false, block);
    }

    fn unless_equal(&mut self, value: u32, block: &[sock_filter]) {
        self.block(BPF_JEQ, value, true, block);
    }

    #[cfg(target_arch = "x86_64")]
    fn if_at_least(&mut self, value: u32, block: &[sock_filter]) {
        self.block(BPF_JGE, value, false, block);
    }

    fn if_set(&mut self, bits: u32, block: &[sock_filter]) {
        self.block(BPF_JSET, bits, false, block);
    }

    /// Runs `block` if the test holds (or, `inverted`, if not).
    fn block(&mut self, test: u32, value: u32, inverted: bool, block: &[sock_filter]) {
        let skip = block.len() as u8;
        let (jt, jf) = if inverted { (skip, 0) } else { (0, skip) };
        self.0.push(instruction(BPF_JMP | test | BPF_K, value, jt, jf));
        self.0.extend_from_slice(block);
    }

    /// What to do about one call; without a decision in `body` it is allowed.
    fn if_call(&mut self, number: i64, body: impl FnOnce(&mut Self)) {
        let mut inner = Self(Vec::new());
        body(&mut inner);
        inner.0.push(ret(SECCOMP_RET_ALLOW));
        self.if_equal(number as u32, &inner.0);
    }

    fn if_any_bit(&mut self, offset: u32, bits: u32, errno: i32) {
        self.load(offset);
        self.if_set(bits, &[ret_errno(errno)]);
    }

    fn if_value(&mut self, offset: u32, value: u32, errno: i32) {
        self.load(offset);
        self.if_equal(value, &[ret_errno(errno)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn decide(number: i64, arguments: [u64; 6]) -> u32 {
        decide_on(ARCHITECTURE, number as u32, arguments)
    }

    fn decide_on(architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [0_u32; 16];
        data[0] = number;
        data[1] = architecture;
        for (index, value) in arguments.into_iter().enumerate() {
            data[4 + 2 * index] = value as u32;
            data[5 + 2 * index] = (value >> 32) as u32;
        }
        let filter = filter();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = filter[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            match u32::from(step.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => accumulator = data[step.k as usize / 4],
                code if code == BPF_JMP | BPF_JEQ | BPF_K => at += jump(accumulator == step.k),
                code if code == BPF_JMP | BPF_JGE | BPF_K => at += jump(accumulator >= step.k),
                code if code == BPF_JMP | BPF_JSET | BPF_K => at += jump(accumulator & step.k != 0),
                code if code == BPF_RET | BPF_K => return step.k,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    const ALLOW: u32 = SECCOMP_RET_ALLOW;

    fn errno(number: i32) -> u32 {
        SECCOMP_RET_ERRNO | number as u32
    }

    #[test]
    fn what_is_listed_is_denied_and_the_rest_is_not() {
        for (number, why) in DENIED.iter().chain(DENIED_HERE) {
            assert_eq!(decide(*number, [0; 6]), errno(EPERM), "{number}: {why}");
        }
        for (number, why) in ABSENT {
            assert_eq!(decide(*number, [0; 6]), errno(ENOSYS), "{number}: {why}");
        }
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_futex] {
            assert_eq!(decide(number, [u64::MAX; 6]), ALLOW, "{number}");
        }
    }

    #[test]
    fn other_sets_of_call_numbers_are_closed() {
        assert_eq!(decide_on(0x4000_0003, libc::SYS_read as u32, [0; 6]), errno(ENOSYS), "32-bit");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(decide(0x4000_0000 | libc::SYS_mount, [0; 6]), errno(ENOSYS), "x32");
    }

    #[test]
    fn threads_and_forks_pass_but_namespaces_do_not() {
        assert_eq!(decide(libc::SYS_clone, [0x003d_0f00, 0, 0, 0, 0, 0]), ALLOW, "a thread");
        assert_eq!(decide(libc::SYS_clone, [17, 0, 0, 0, 0, 0]), ALLOW, "a fork");
        for flag in 0..32 {
            let bit = 1_u64 << flag;
            let denied = u64::from(NAMESPACES) & bit != 0;
            let expected = if denied { errno(EPERM) } else { ALLOW };
            assert_eq!(decide(libc::SYS_clone, [bit | 0x11, 0, 0, 0, 0, 0]), expected, "{bit:#x}");
        }
        assert_eq!(decide(libc::SYS_unshare, [0x80, 0, 0, 0, 0, 0]), errno(EPERM), "time namespace");
        assert_eq!(decide(libc::SYS_unshare, [0x400, 0, 0, 0, 0, 0]), ALLOW, "descriptor table");
    }

    #[test]
    fn no_file_becomes_set_user_id() {
        let set_id = 0o4755;
        assert_eq!(decide(libc::SYS_fchmodat, [0, 0, set_id, 0, 0, 0]), errno(EPERM));
        assert_eq!(decide(libc::SYS_fchmodat, [0, 0, 0o1777, 0, 0, 0]), ALLOW, "the sticky bit");
        let create = (libc::O_CREAT | libc::O_WRONLY) as u64;
        assert_eq!(decide(libc::SYS_openat, [0, 0, create, set_id, 0, 0]), errno(EPERM));
        assert_eq!(decide(libc::SYS_openat, [0, 0, create, 0o755, 0, 0]), ALLOW);
        let temporary = libc::O_TMPFILE as u64;
        assert_eq!(decide(libc::SYS_openat, [0, 0, temporary, 0o2755, 0, 0]), errno(EPERM));
        // Without O_CREAT the mode is whatever the register held.
        assert_eq!(decide(libc::SYS_openat, [0, 0, libc::O_DIRECTORY as u64, set_id, 0, 0]), ALLOW);
    }

    #[test]
    fn sockets_are_local_or_of_the_own_network() {
        for (family, allowed) in
            [(1, true), (2, true), (10, true), (16, true), (17, false), (38, false), (40, false)]
        {
            let expected = if allowed { ALLOW } else { errno(EAFNOSUPPORT) };
            assert_eq!(decide(libc::SYS_socket, [family, 0, 0, 0, 0, 0]), expected, "family {family}");
        }
    }

    #[test]
    fn nobody_types_for_somebody_else() {
        assert_eq!(decide(libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]), errno(EPERM));
        // The kernel looks at 32 bits only.
        assert_eq!(decide(libc::SYS_ioctl, [0, libc::TIOCSTI | 1 << 40, 0, 0, 0, 0]), errno(EPERM));
        assert_eq!(decide(libc::SYS_ioctl, [0, libc::TIOCGWINSZ, 0, 0, 0, 0]), ALLOW);
    }
}
