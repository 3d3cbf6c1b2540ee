//! Users and groups of a manifest: for root, and for an ordinary user with a range of subordinate numbers.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use mooring_manifest::{Manifest, User};
use mooring_sandbox::{CreateRequest, ExecRequest, SandboxClient as _, SandboxError};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};

use crate::setup::{Sandbox, is_root};

#[tokio::test]
async fn the_manifests_users_run_commands_and_own_what_they_make() {
    if is_root() {
        users_are_apart().await;
    }
}

async fn users_are_apart() {
    let user = |name: &str| User { name: name.into() };
    let manifest = Manifest {
        users: vec![user("alice"), user("bob")],
        groups: vec![mooring_manifest::Group { name: "team".into(), users: vec![user("bob")] }],
        ..Manifest::default()
    };
    let sandbox = Sandbox::with(|_| {}, manifest, None).await;
    let run = async |user: &str, line: &str| {
        let mut request = ExecRequest::shell(line);
        request.user = Some(user.into());
        let result = sandbox.session.exec(request).await.unwrap();
        result.stdout.text() + &result.stderr.text()
    };
    assert_eq!(run("alice", "id").await, "uid=2000(alice) gid=2000(alice) groups=2000(alice)\n");
    assert_eq!(
        run("bob", "id; echo $USER").await,
        "uid=2001(bob) gid=2001(bob) groups=2001(bob),3000(team)\nbob\n"
    );
    sandbox.out("mkdir -m 777 shared").await;
    run("alice", "umask 077; echo secret > shared/hers").await;
    assert_eq!(sandbox.session.stat("shared/hers").await.unwrap().uid, 2000);
    assert!(run("bob", "cat shared/hers").await.contains("Permission denied"));
    assert!(sandbox.sh("cat shared/hers").await.stderr.text().contains("Permission denied"));
    let read = sandbox.session.read("shared/hers", 100).await;
    assert!(
        matches!(read, Err(SandboxError::File { .. })),
        "file operations are the default user's: {read:?}"
    );
    assert!(run("alice", "kill -9 -1; cat /proc/1/environ").await.contains("Permission denied"));
    sandbox.session.remove("shared", true).await.unwrap();
    // What others than the caller left is removed, too.
    run("alice", "mkdir -p /workspace/x").await;
    sandbox.out("mkdir -m 777 again").await;
    run("alice", "umask 077; mkdir again/hers; echo x > again/hers/file").await;
    sandbox.client.delete(&sandbox.session.state()).await.unwrap();
    assert_eq!(std::fs::read_dir(sandbox.state.path().join("sandboxes")).unwrap().count(), 0);
}

/// Run by the test below as that user.
#[tokio::test]
async fn helper_ordinary_user() {
    if std::env::var("MOORING_TEST_SUBORDINATE").is_err() {
        return;
    }
    users_are_apart().await;
    let state = tempfile::tempdir().unwrap();
    let client = LocalSandboxClient::new(LocalOptions::new(state.path()));
    assert!(client.support().users);
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest { users: vec![User { name: "alice".into() }], ..Manifest::default() };
    let workspace = Some(folder.path().to_owned());
    let request = CreateRequest { session_id: "named".into(), manifest, workspace };
    let refused = client.create(request).await.unwrap_err();
    assert!(matches!(&refused, SandboxError::Unsupported { .. }), "{refused}");
    assert!(refused.to_string().contains("leave out the workspace"), "{refused}");
}

/// A user whom the administrator gave a range, on a machine that is this one but for three files.
#[test]
fn an_ordinary_user_with_a_range_has_users_too() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(folder.path(), 0o1777);
    let program = folder.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program, 0o755);
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap() + "ann:x:54322:54322::/tmp:/bin/sh\n";
    let groups = std::fs::read_to_string("/etc/group").unwrap() + "ann:x:54322:\n";
    let range = "ann:1000000:65536\n".to_owned();
    let files = [("passwd", accounts), ("group", groups), ("subuid", range.clone()), ("subgid", range)];
    let mut script = String::from("set -e\n");
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        open(&path, 0o644);
        if !std::path::Path::new("/etc").join(name).exists() {
            std::fs::write(format!("/etc/{name}"), "").unwrap();
        }
        script += &format!("mount --bind {} /etc/{name}\n", path.display());
    }
    script += "exec setpriv --reuid 54322 --regid 54322 --clear-groups -- \
               \"$0\" --exact users::helper_ordinary_user --nocapture\n";
    let run = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(&program)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TMPDIR", folder.path())
        .env("MOORING_TEST_SUBORDINATE", "1")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && told.contains("1 passed"), "newuidmap (uidmap) is needed:\n{told}");
}
