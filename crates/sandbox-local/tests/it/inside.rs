//! What a command can see and do, tried from inside.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use mooring_sandbox::ExecRequest;

use crate::setup::{Sandbox, exited, is_root, unique};

/// A program for `python3`, for what the shell cannot do: raw system calls.
async fn python(sandbox: &Sandbox, program: &str) -> String {
    let request = ExecRequest::argv(["/usr/bin/python3", "-c", program]).timeout(crate::setup::SOON);
    let result = sandbox.session.exec(request).await.unwrap();
    assert_eq!(result.outcome, exited(0), "{}", result.stderr.text());
    result.stdout.text()
}

#[tokio::test]
async fn the_root_holds_the_system_and_the_workspace_and_nothing_else() {
    let sandbox = Sandbox::new().await;
    let root = sandbox.out("ls /").await;
    for name in root.lines() {
        let known = [
            "bin",
            "dev",
            "etc",
            "home",
            "lib",
            "lib32",
            "lib64",
            "libx32",
            "proc",
            "run",
            "sbin",
            "tmp",
            "usr",
            "var",
            "workspace",
        ];
        assert!(known.contains(&name), "/{name} is visible");
    }
    assert_eq!(
        sandbox.out("ls -A /home /run /tmp /var/tmp /var/lib /var/log /dev/shm").await.matches(':').count(),
        7
    );
    assert_eq!(sandbox.out("find /home /run /tmp /var /dev/shm -type f").await, "");
}

#[tokio::test]
async fn nothing_of_the_host_can_be_read() {
    let sandbox = Sandbox::new().await;
    let secret = unique("secret");
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, &secret).unwrap();
    for path in [
        file.to_str().unwrap(),
        "/root",
        "/etc/shadow",
        "/etc/ssh",
        "/etc/ssl/private",
        "/etc/machine-id",
        "/sys",
        "/var/lib/dpkg",
        "/var/run/docker.sock",
        "/proc/1/root",
        "/proc/1/cwd",
        "/proc/1/fd",
        "/proc/kcore",
        "/dev/sda",
        "/dev/vda",
        "/dev/kvm",
        "/dev/mem",
        "/dev/vsock",
        "/dev/fuse",
    ] {
        let seen = sandbox.sh(&format!("cat {path} || ls -A {path}/")).await;
        assert!(seen.outcome != exited(0) && seen.stdout.data.is_empty(), "{path}: {}", seen.stdout.text());
    }
    // By whatever name: nothing below the root holds it.
    let found =
        sandbox.sh(&format!("grep -rl {secret} / --exclude-dir=proc --exclude-dir=usr 2>/dev/null")).await;
    assert_eq!(found.stdout.text(), "");
    // And no mount tells of the host's directories, but for the workspace's own.
    let mounts = sandbox.out("awk '{print $5}' /proc/self/mountinfo").await;
    for point in mounts.lines() {
        let known =
            ["/usr", "/etc/", "/dev/", "/proc", "/tmp", "/run", "/workspace", "/bin", "/sbin", "/lib"];
        assert!(point == "/" || known.iter().any(|start| point.starts_with(start)), "a mount at {point}");
    }
}

#[tokio::test]
async fn nothing_but_the_workspace_and_temporary_places_can_be_written() {
    let sandbox = Sandbox::new().await;
    for path in [
        "/x",
        "/usr/x",
        "/usr/bin/x",
        "/etc/x",
        "/bin/x",
        "/home/x",
        "/var/x",
        "/var/lib/x",
        "/dev/x",
        "/proc/x",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/etc/passwd",
        "/usr/bin/env",
        "/proc/1/oom_score_adj",
        "/proc/1/mem",
    ] {
        let written = sandbox.sh(&format!("echo x >> {path}")).await;
        assert_ne!(written.outcome, exited(0), "{path} was written");
    }
    assert_eq!(
        sandbox.out("for d in /tmp /var/tmp /run /dev/shm .; do echo x > $d/x; cat $d/x; done").await,
        "x\n".repeat(5)
    );
}

#[tokio::test]
async fn no_process_of_the_host_can_be_seen_or_signalled() {
    let sandbox = Sandbox::new().await;
    let mut other =
        std::process::Command::new("sleep").arg("1000").stdout(std::process::Stdio::null()).spawn().unwrap();
    let processes = sandbox.out("ls /proc | grep -c '^[0-9]'").await;
    assert!(processes.trim().parse::<u32>().unwrap() < 12, "{processes} processes are visible");
    let pid = other.id();
    let killed = sandbox.sh(&format!("kill -9 {pid}")).await;
    // The number may be free inside, or one of the sandbox's own; the host's process lives in any case.
    drop(killed);
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    other.wait().unwrap();
    let namespaces = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
    for name in namespaces {
        let inside = sandbox.out(&format!("readlink /proc/self/ns/{name}")).await;
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(inside.trim(), outside.to_str().unwrap(), "{name}");
    }
}

#[tokio::test]
async fn the_hosts_network_is_not_there_and_the_own_loopback_is() {
    let sandbox = Sandbox::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connected = sandbox.sh(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}")).await;
    assert_ne!(connected.outcome, exited(0));
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let away = sandbox.sh("exec 3<>/dev/tcp/192.0.2.1/80").await;
    assert!(away.stderr.text().contains("Network is unreachable"), "{}", away.stderr.text());
    assert_eq!(sandbox.out("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo\n");
    let program = "import socket\ns = socket.create_server(('127.0.0.1', 0))\n\
                   c = socket.create_connection(('localhost', s.getsockname()[1]))\nprint('connected')";
    assert_eq!(python(&sandbox, program).await, "connected\n");
    // The host's abstract sockets belong to its network too.
    let name = unique("abstract");
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name)
            .unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let program = format!(
        "import socket\ntry:\n  socket.socket(socket.AF_UNIX).connect('\\0{name}')\nexcept OSError as e: print(e.strerror)"
    );
    assert_eq!(python(&sandbox, &program).await, "Connection refused\n");
}

#[tokio::test]
async fn no_variable_of_the_host_is_inside() {
    // The harness's own environment: this process's.
    let sandbox = Sandbox::new().await;
    let host: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    let inside =
        sandbox.out("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | cut -d= -f1 | sort -u").await;
    let allowed = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "PWD", "SHLVL", "_"];
    for name in inside.lines() {
        assert!(
            allowed.contains(&name),
            "{name} is inside (the host has it: {})",
            host.contains(&name.to_owned())
        );
    }
}

#[tokio::test]
async fn the_supervisor_cannot_be_looked_into_or_ended() {
    let sandbox = Sandbox::new().await;
    for file in ["environ", "mem", "maps", "exe", "fd/0", "root", "cwd", "auxv", "stack"] {
        for command in ["cat", "readlink"] {
            let seen = sandbox.sh(&format!("{command} /proc/1/{file}")).await;
            assert!(seen.outcome != exited(0) && seen.stdout.data.is_empty(), "{command} {file}");
            let seen = sandbox.sh(&format!("{command} /proc/$PPID/{file}")).await;
            assert!(
                seen.outcome != exited(0) && seen.stdout.data.is_empty(),
                "{command} {file} of the reaper"
            );
        }
    }
    let program = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                   for pid in (1, os.getppid()):\n  \
                   print(libc.ptrace(16, pid, 0, 0), os.strerror(ctypes.get_errno()))";
    assert_eq!(python(&sandbox, program).await, "-1 Operation not permitted\n-1 Operation not permitted\n");
    sandbox.sh("for signal in $(seq 1 64); do kill -$signal 1; done 2>/dev/null").await;
    assert_eq!(sandbox.out("echo alive").await, "alive\n");
    // Not even by somebody who kills all that can be killed.
    sandbox.sh("kill -KILL -1").await;
    assert_eq!(sandbox.out("echo alive").await, "alive\n");
}

#[tokio::test]
async fn there_is_no_right_to_gain() {
    let sandbox = Sandbox::new().await;
    let status =
        sandbox.out("grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid)' /proc/self/status | tr '\\t' ' '").await;
    assert_eq!(
        status,
        "Uid: 1000 1000 1000 1000\nCapInh: 0000000000000000\nCapPrm: 0000000000000000\n\
         CapEff: 0000000000000000\nCapBnd: 0000000000000000\nCapAmb: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n"
    );
    for line in [
        "mount -t tmpfs x /tmp",
        "mount --bind /usr /workspace",
        "umount /proc",
        "unshare -U true",
        "unshare -Ur true",
        "unshare -n true",
        "chroot / true",
        "hostname other",
        "mknod n c 1 3",
        "su -c true",
        "ip link set lo down",
        "chmod u+s /usr/bin/env",
        "cp /usr/bin/env e; chmod u+s e",
        "cp /usr/bin/env f; chmod 2755 f",
        "install -m 4755 /usr/bin/env g",
        "nsenter -t 1 -m true",
        "dmesg",
        "date -s 2000-01-01",
    ] {
        let tried = sandbox.sh(line).await;
        assert_ne!(tried.outcome, exited(0), "{line}: {}", tried.stdout.text());
    }
    assert_eq!(sandbox.out("find . -perm /6000").await, "");
}

#[tokio::test]
async fn dangerous_system_calls_are_refused() {
    let sandbox = Sandbox::new().await;
    let program = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                   for name, args in {\n\
                   'io_uring_setup': (425, 1, 0), 'bpf': (321, 0, 0, 0), 'keyctl': (250, 0, -3, 0),\n\
                   'userfaultfd': (323, 1), 'perf_event_open': (298, 0, 0, -1, -1, 0), 'clone3': (435, 0, 0),\n\
                   'vsock': (41, 40, 1, 0), 'packet': (41, 17, 3, 0), 'alg': (41, 38, 5, 0), 'clone': (56, 0x10000011, 0, 0, 0, 0),\n\
                   }.items():\n  print(name, libc.syscall(*args), os.strerror(ctypes.get_errno()))";
    let told = python(&sandbox, program).await;
    let refused = "Operation not permitted";
    let expected = [
        ("io_uring_setup", refused),
        ("bpf", refused),
        ("keyctl", refused),
        ("userfaultfd", refused),
        ("perf_event_open", refused),
        ("clone3", "Function not implemented"),
        ("vsock", "Address family not supported by protocol"),
        ("packet", "Address family not supported by protocol"),
        ("alg", "Address family not supported by protocol"),
        ("clone", refused),
    ];
    let expected = expected.map(|(name, error)| format!("{name} -1 {error}"));
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn ordinary_tools_work() {
    let sandbox = Sandbox::new().await;
    let line = "whoami; id -un; hostname; echo 'import ssl, sqlite3, subprocess, multiprocessing; \
                print(multiprocessing.Pool(2).map(abs, [-1]))' > t.py; /usr/bin/python3 t.py; \
                git init -q . && git -c user.name=a -c user.email=b commit -q --allow-empty -m x && git log --format=%s; \
                echo 'int main(){return 0;}' > t.c && cc t.c -o t && ./t && echo compiled; \
                script -qc 'echo typed' /dev/null | tr -d '\\r'; getent hosts localhost | head -c 9 | wc -c; \
                perl -e 'print \"perl\\n\"'; date +%Z";
    let result = sandbox.sh(line).await;
    assert_eq!(
        result.stdout.text(),
        "agent\nagent\nsandbox\n[1]\nx\ncompiled\ntyped\n9\nperl\nUTC\n",
        "{}",
        result.stderr.text()
    );
}

#[tokio::test]
async fn the_session_says_what_isolation_it_has() {
    let sandbox = Sandbox::new().await;
    let mut isolation = sandbox.session.isolation().unwrap();
    assert_eq!(isolation.level, "namespaces");
    // The one that a kernel may lack.
    let landlock = isolation.mechanisms.remove("landlock").unwrap();
    assert!(landlock.starts_with("on, ABI ") || landlock == "not in this kernel", "{landlock}");
    let user = if is_root() { "mapped range, not root outside" } else { "the caller alone, as 1000" };
    let files = if is_root() { "idmapped mount" } else { "owned by the caller" };
    let expected = [
        ("capabilities", "none"),
        ("cgroup", "own"),
        ("cpu", "unlimited"),
        ("ipc", "own"),
        ("memory", "unlimited"),
        ("mount", "own root, system read-only"),
        ("network", "none but loopback"),
        ("no_new_privs", "on"),
        ("pid", "own"),
        ("pids", "unlimited"),
        ("seccomp", "on"),
        ("user", user),
        ("uts", "own"),
        ("workspace", files),
    ];
    let told: Vec<_> =
        isolation.mechanisms.iter().map(|(name, state)| (name.as_str(), state.as_str())).collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_listener_inside_is_not_reachable_from_the_host() {
    let sandbox = Sandbox::new().await;
    let program =
        "import socket\ns = socket.create_server(('0.0.0.0', 45917))\nprint('up', flush=True)\ns.accept()";
    let request = ExecRequest::argv(["/usr/bin/python3", "-c", program]);
    let process = sandbox.session.spawn(request).await.unwrap();
    process.output(mooring_sandbox::Cursor(0), 10, crate::setup::SOON).await.unwrap();
    let address = ([127, 0, 0, 1], 45917).into();
    let reached = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1));
    if let Ok(mut stream) = reached {
        // Something else on this host may listen there, but not ours, which would close at once.
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(stream.read(&mut [0]).is_err());
    }
}
