//! The kernel's least tried parts, and its settings.

use crate::{Finding, Ground};

pub(crate) async fn makes_a_user_namespace_to_mount_in(ground: &Ground) -> Finding {
    let program = "
x86()
for name, flags in (('unshare', 0x10000000 | 0x20000), ('unshare', 0x10000000), ('unshare', 0x20000)):
    pid = os.fork()
    if pid == 0:
        result, _ = call(272, flags)
        os._exit(7 if result == 0 else 0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7: escaped(name, hex(flags))
result, _ = call(165, b'tmpfs', b'/tmp', b'tmpfs', 0, 0)
if result == 0:
    escaped('mount')
    call(166, b'/tmp', 2)
";
    // It would mount for real, and nothing gives a host without protections its `/tmp` back in between.
    let program =
        if ground.is_open() { program.split("result, _ = call(165").next().unwrap() } else { program };
    ground.inside(program).await
}

pub(crate) async fn makes_calls_that_kernels_were_broken_by(ground: &Ground) -> Finding {
    // One that is looked at by the kernel itself fails for its nonsensical arguments, or not at all.
    let program = "
x86()
calls = {
    'io_uring_setup': (425, 1, 0), 'bpf': (321, 0, 0, 0), 'keyctl': (250, 0, -3, 0), 'add_key': (248, 0, 0, 0, 0, 0),
    'userfaultfd': (323, -1), 'perf_event_open': (298, 0, 0, -1, -1, 0), 'open_by_handle_at': (304, -1, 0, 0),
    'fanotify_init': (300, -1, 0), 'move_mount': (429, -1, 0, -1, 0, 0),
    'modify_ldt': (154, 9, 0, 0),
}
for name, arguments in calls.items():
    result, error = call(*arguments)
    if error not in (errno.EPERM, errno.EACCES, errno.ENOSYS): escaped(name, result, errno.errorcode.get(error))
";
    ground.inside(program).await
}

pub(crate) async fn opens_a_socket_of_another_kind(ground: &Ground) -> Finding {
    let program = "
for name, family, kind in (('packet', 17, 3), ('vsock', 40, 1), ('alg', 38, 5), ('raw IPv4', 2, 3), ('xdp', 44, 3), ('bluetooth', 31, 3)):
    if tries(socket.socket, family, kind, 0 if family != 2 else 1): escaped(name)
";
    ground.inside(program).await
}

pub(crate) async fn changes_a_setting_of_the_kernel(ground: &Ground) -> Finding {
    // Opened and left alone: where this is possible, the damage would be real.
    let program = "
import glob
paths = ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/vm/drop_caches', '/proc/sysrq-trigger',
         '/proc/sys/net/ipv4/ip_forward', '/sys/kernel/uevent_helper', '/proc/1/oom_score_adj', '/proc/1/mem']
paths += glob.glob('/sys/fs/cgroup/**/release_agent') + glob.glob('/sys/fs/cgroup/*/cgroup.procs')
for path in paths:
    if tries(os.open, path, os.O_WRONLY) is not None: escaped(path)
";
    ground.inside(program).await
}
