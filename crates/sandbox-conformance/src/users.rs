//! The manifest's users and groups.

use mooring_manifest::{Group, Manifest, User};
use mooring_sandbox::{ExecRequest, SandboxError};

use crate::archives::{file, reader, tar};
use crate::bench::{Bench, request, unique};

fn user(name: &str) -> User {
    User { name: name.into() }
}

pub(crate) async fn they_run_commands_and_own_what_they_make(bench: &Bench) {
    let manifest = Manifest {
        users: vec![user("alice"), user("bob")],
        groups: vec![Group { name: "team".into(), users: vec![user("bob")] }],
        ..Manifest::default()
    };
    if !bench.client.support().users {
        let request = mooring_sandbox::CreateRequest { manifest, ..request(&unique("s")) };
        let refused = bench.create(&bench.client, request).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Unsupported { .. }), "{refused}");
        return bench.left_out("it has one user, and refuses others");
    }
    let sandbox = bench.with_manifest(manifest).await;
    let run = async |user: &str, line: &str| {
        let mut request = ExecRequest::shell(line);
        request.user = Some(user.into());
        let result = sandbox.session.exec(request).await.unwrap();
        result.stdout.text() + &result.stderr.text()
    };
    assert_eq!(run("alice", "id -un; id -gn; id -Gn").await, "alice\nalice\nalice\n");
    assert_eq!(run("bob", "id -un; id -Gn; echo $USER").await, "bob\nbob team\nbob\n");
    sandbox.out("mkdir shared; chmod 777 shared").await;
    run("alice", "umask 077; echo secret > shared/hers").await;
    let number: u32 = run("alice", "id -u").await.trim().parse().unwrap();
    assert_eq!(sandbox.session.stat("shared/hers").await.unwrap().uid, number);
    assert!(run("bob", "cat shared/hers").await.contains("Permission denied"));
    assert!(sandbox.sh("cat shared/hers").await.stderr.text().contains("Permission denied"));
    let read = sandbox.session.read("shared/hers", 100).await;
    assert!(
        matches!(read, Err(SandboxError::File { .. })),
        "file operations are the default user's: {read:?}"
    );
    sandbox.session.remove("shared", true).await.unwrap();
}

pub(crate) async fn files_go_to_the_groups_that_the_sandbox_knows(bench: &Bench) {
    if !bench.client.support().users {
        return bench.left_out("it has one user");
    }
    let manifest = Manifest {
        groups: vec![Group { name: "team".into(), users: vec![user("bob")] }],
        ..Manifest::default()
    };
    let sandbox = bench.with_manifest(manifest).await;
    let archive = tar(|writer| {
        file(writer, "ours", "team");
        file(writer, "mine", "");
        file(writer, "unknown", "strangers");
    });
    sandbox.session.unpack(".", reader(archive)).await.unwrap();
    assert_eq!(
        sandbox.out("stat -c '%n %U %G' mine ours unknown").await,
        "mine agent agent\nours agent team\nunknown agent agent\n"
    );
}

pub(crate) async fn nobody_becomes_root(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let mut as_root = ExecRequest::argv(["id"]);
    as_root.user = Some("root".into());
    let refused = sandbox.session.exec(as_root).await;
    assert!(matches!(refused, Err(SandboxError::Start { .. })), "{refused:?}");
    let status =
        sandbox.out("id -u; grep -E '^(CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs)' /proc/self/status").await;
    let told: Vec<&str> = status.split_whitespace().collect();
    assert_ne!(told[0], "0");
    assert_eq!(
        told[1..],
        [
            "CapInh:",
            "0000000000000000",
            "CapPrm:",
            "0000000000000000",
            "CapEff:",
            "0000000000000000",
            "CapAmb:",
            "0000000000000000",
            "NoNewPrivs:",
            "1"
        ]
    );
    for line in [
        "mount -t tmpfs x /tmp",
        "chroot / true",
        "hostname other",
        "mknod n c 1 3",
        "su -c true",
        "chmod u+s /bin/sh",
        "cp /bin/sh e && chmod u+s e",
        "echo x > /proc/sys/kernel/hostname",
        "echo x >> /etc/passwd",
        "unshare -U true",
    ] {
        let tried = sandbox.sh(line).await;
        assert_ne!(tried.outcome, crate::bench::exited(0), "{line}: {}", tried.stdout.text());
    }
}
