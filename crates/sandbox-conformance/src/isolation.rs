//! What a sandbox keeps apart: the host's network, files and processes.

use std::io::ErrorKind;
use std::net::TcpListener;

use crate::bench::{Bench, exited, unique};

pub(crate) async fn there_is_no_network_but_the_own_loopback(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nothing of what programs would use has a way: no interface, no route, no resolver that answers.
    let interfaces = sandbox.out("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await;
    assert_eq!(interfaces, "lo\n");
    assert_eq!(sandbox.out("tail -n +2 /proc/net/route").await, "");
    for line in [
        format!("wget -T 3 -q -O - http://127.0.0.1:{port}/"),
        "wget -T 3 -q -O - http://192.0.2.1/".into(),
        "wget -T 3 -q -O - http://example.com/".into(),
    ] {
        let tried = sandbox.sh(&format!("{line} || nc -w 3 127.0.0.1 {port} < /dev/null")).await;
        assert_ne!(tried.outcome, exited(0), "{line}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

pub(crate) async fn the_hosts_files_and_processes_are_not_there(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let secret = unique("secret");
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("file"), &secret).unwrap();
    let path = folder.path().join("file").display().to_string();
    assert_ne!(sandbox.sh(&format!("cat {path}")).await.outcome, exited(0));
    for path in ["/var/run/docker.sock", "/run/docker.sock", "/dev/kvm", "/dev/mem", "/dev/sda", "/dev/vda"] {
        assert_ne!(sandbox.sh(&format!("test -e {path}")).await.outcome, exited(0), "{path} is there");
    }
    for path in ["/proc/1/environ", "/proc/1/mem", "/proc/1/root/etc", "/proc/1/cwd", "/proc/kcore"] {
        let seen = sandbox.sh(&format!("head -c 1 {path} || ls {path}/")).await;
        assert_eq!(seen.stdout.text(), "", "{path} can be read");
    }
    let processes: u32 = sandbox.out("ls /proc | grep -c '^[0-9]'").await.trim().parse().unwrap();
    assert!(processes < 12, "{processes} processes are visible");
}

pub(crate) async fn the_sandbox_cannot_be_ended_from_inside(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.sh("i=1; while [ $i -le 64 ]; do kill -$i 1; i=$((i+1)); done 2>/dev/null").await;
    assert_eq!(sandbox.out("echo alive").await, "alive\n");
    // Not even by somebody who kills all that can be killed.
    sandbox.sh("kill -KILL -1").await;
    assert_eq!(sandbox.out("echo alive").await, "alive\n");
}

pub(crate) async fn a_core_is_never_dumped_and_descriptors_do_not_leak(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    assert_eq!(sandbox.out("ulimit -c").await, "0\n");
    // Standard streams, and the directory that `ls` reads.
    assert_eq!(sandbox.out("ls /proc/self/fd | wc -l").await.trim(), "4");
}
