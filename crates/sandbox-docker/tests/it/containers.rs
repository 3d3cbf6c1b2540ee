//! What is a container's own: images, rights, network, workspaces.

use std::os::unix::fs::{MetadataExt as _, chown};

use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, SandboxClient as _, SandboxError, WriteOptions};
use mooring_sandbox_docker::{DockerOptions, DockerSandboxClient, Limits};

use crate::engine::{Bench, IMAGE, is_root, out, request, sh};

#[tokio::test]
async fn an_image_without_a_libc_runs_the_supervisor_and_keeps_its_variables() {
    let Some(bench) = Bench::new(|_| {}).await else { return };
    let session = bench.start(request()).await;
    assert_eq!(
        out(session.as_ref(), "ls /lib /lib64 2>&1 | grep -c 'No such'; echo $FROM_IMAGE").await,
        "2\nyes\n"
    );
    // A variable of the image's that is meant for a loader is the commands' alone.
    assert_eq!(out(session.as_ref(), "echo $LD_PRELOAD; echo fine").await, "/nowhere.so\nfine\n");
    bench.client.delete(&session.state()).await.unwrap();
}

#[tokio::test]
async fn the_container_is_hardened_and_the_session_says_so() {
    let Some(bench) = Bench::new(|options| {
        options.limits =
            Limits { memory_bytes: Some(256 << 20), pids: Some(100), cpus: Some(0.5), ..Limits::default() };
    })
    .await
    else {
        return;
    };
    let session = bench.start(request()).await;
    let told = session.isolation().unwrap();
    assert_eq!(told.level, "container");
    let mechanisms: Vec<String> =
        told.mechanisms.iter().map(|(name, state)| format!("{name}: {state}")).collect();
    assert_eq!(
        mechanisms,
        [
            "accounts: in /etc/passwd",
            "capabilities: none",
            "cpu: the engine's, 0.5",
            "ipc: own",
            "memory: the engine's, 268435456",
            "mount: the image's, a copy",
            "network: none but loopback",
            "no_new_privs: on",
            "pid: own",
            "pids: the engine's, 100",
            "seccomp: on",
            "uts: own",
        ]
    );
    let container = bench.docker.inspect_container(&format!("mooring-{}", session.id()), None).await.unwrap();
    let host = container.host_config.unwrap();
    assert_eq!(
        (
            host.network_mode,
            host.privileged,
            host.cap_drop,
            host.auto_remove,
            host.nano_cpus,
            host.memory_swap
        ),
        (
            Some("none".into()),
            Some(false),
            Some(vec!["ALL".into()]),
            Some(true),
            Some(500_000_000),
            Some(268_435_456)
        )
    );
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".into()]));
    // Of this host it sees the parts of the supervisor, which it cannot change.
    let mounts = out(
        session.as_ref(),
        "grep ' /.mooring' /proc/self/mountinfo | cut -d' ' -f6 | cut -d, -f1 | sort -u",
    )
    .await;
    assert_eq!(mounts, "ro\n");
    let status =
        out(session.as_ref(), "grep -E '^(Seccomp|CapBnd|CapEff)' /proc/self/status | tr '\\t' ' '").await;
    assert_eq!(
        status,
        "CapEff: 0000000000000000\nCapBnd: 0000000000000000\nSeccomp: 2\nSeccomp_filters: 2\n"
    );
    bench.client.delete(&session.state()).await.unwrap();
}

#[tokio::test]
async fn a_read_only_image_leaves_the_workspace_and_temporary_places_writable() {
    let Some(bench) = Bench::new(|options| options.read_only = true).await else { return };
    let session = bench.start(request()).await;
    for folder in ["/tmp", "/run", "/dev/shm", "."] {
        out(session.as_ref(), &format!("echo x > {folder}/x")).await;
    }
    assert!(sh(session.as_ref(), "touch /home/x").await.stderr.text().contains("Read-only file system"));
    assert_eq!(session.isolation().unwrap().mechanisms["accounts"], "numbers only: the image is read-only");
    bench.client.delete(&session.state()).await.unwrap();
}

fn manifest(additions: &str) -> Manifest {
    Manifest::from_json(&format!("{{\"x-mooring\": {additions}}}")).unwrap()
}

#[tokio::test]
async fn a_network_is_there_only_when_the_manifest_says_so() {
    let Some(bench) = Bench::new(|_| {}).await else { return };
    let manifest = manifest(r#"{"network": "unrestricted"}"#);
    let session = bench.start(CreateRequest { manifest, ..request() }).await;
    let interfaces = out(session.as_ref(), "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort").await;
    assert_eq!(interfaces, "eth0\nlo\n");
    assert_eq!(session.isolation().unwrap().mechanisms["network"], "the engine's bridge, unrestricted");
    assert!(session.egress().is_none(), "it would not be the only way out");
    bench.client.delete(&session.state()).await.unwrap();
}

#[tokio::test]
async fn of_the_operators_limits_and_the_manifests_the_tighter_holds() {
    let Some(bench) = Bench::new(|options| {
        options.limits =
            Limits { memory_bytes: Some(256 << 20), pids: Some(100), cpus: None, ..Limits::default() };
    })
    .await
    else {
        return;
    };
    let manifest = manifest(r#"{"resources": {"memory": "1GiB", "pids": 50, "cpu": 1.5}}"#);
    let session = bench.start(CreateRequest { manifest, ..request() }).await;
    let told = session.isolation().unwrap().mechanisms;
    assert_eq!(
        [&told["memory"], &told["pids"], &told["cpu"]],
        ["the engine's, 268435456", "the engine's, 50", "the engine's, 1.5"]
    );
    bench.client.delete(&session.state()).await.unwrap();
}

#[tokio::test]
async fn an_image_is_built_once_from_the_manifests_directory() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().to_owned();
    let Some(bench) = Bench::new(|options| options.base = Some(base)).await else { return };
    let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
    std::fs::create_dir(folder.path().join("image")).unwrap();
    let file = format!(
        "FROM {IMAGE}\nARG WHO\nCOPY hello /hello\nRUN echo built for $WHO > /built\nENV COLOUR=red\n"
    );
    write("image/Dockerfile", &file);
    write("image/hello", &format!("hello {}\n", folder.path().display()));
    let image = |additions: &str| {
        manifest(&format!(r#"{{"network": "deny", "image": {{"context": "image"{additions}}}}}"#))
    };
    let built = image(r#", "args": {"WHO": "moor"}"#);
    let session = bench.start(CreateRequest { manifest: built.clone(), ..request() }).await;
    let told = out(session.as_ref(), "cat /hello /built; echo $COLOUR").await;
    assert_eq!(told, format!("hello {}\nbuilt for moor\nred\n", folder.path().display()));
    let again = bench.client.create(CreateRequest { manifest: built, ..request() }).await.unwrap();
    let of = |session: &dyn mooring_sandbox::SandboxSession| session.state().data["image"].clone();
    assert_eq!(of(session.as_ref()), of(again.as_ref()));
    write("image/hello", "other\n");
    let changed = bench.client.create(CreateRequest { manifest: image(""), ..request() }).await.unwrap();
    assert_ne!(of(session.as_ref()), of(changed.as_ref()));

    write("image/Dockerfile", &format!("FROM {IMAGE}\nRUN echo about to fail; exit 3\n"));
    let failed = bench.client.create(CreateRequest { manifest: image(""), ..request() }).await.unwrap_err();
    assert!(failed.to_string().contains("returned a non-zero code: 3"), "{failed}");
    assert!(failed.to_string().contains("about to fail"), "{failed}");
    std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
    let outside = manifest(r#"{"image": {"context": "out"}}"#);
    let refused = bench.client.create(CreateRequest { manifest: outside, ..request() }).await.unwrap_err();
    assert!(refused.to_string().contains("must be a directory below"), "{refused}");
    for session in [session, again, changed] {
        let image = of(session.as_ref());
        bench.client.delete(&session.state()).await.unwrap();
        let force = bollard::query_parameters::RemoveImageOptions { force: true, ..Default::default() };
        let _ = bench.docker.remove_image(image.as_str().unwrap(), Some(force), None).await;
    }
}

#[tokio::test]
async fn a_callers_directory_is_the_workspace_and_its_files_stay_the_callers() {
    let Some(bench) = Bench::new(|_| {}).await else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "mine").unwrap();
    if is_root() {
        let request = CreateRequest { workspace: Some(folder.path().into()), ..request() };
        let refused = bench.client.create(request).await.unwrap_err();
        assert!(refused.to_string().contains("belongs to root"), "{refused}");
        chown(folder.path(), Some(2345), Some(2345)).unwrap();
    }
    let owner = std::fs::metadata(folder.path()).unwrap().uid();
    let session = bench.start(CreateRequest { workspace: Some(folder.path().into()), ..request() }).await;
    assert_eq!(out(session.as_ref(), "cat mine; echo new > new; id -un").await, "mineagent\n");
    session.write("by-call", "x".into(), WriteOptions::default()).await.unwrap();
    bench.client.delete(&session.state()).await.unwrap();
    for name in ["new", "by-call"] {
        assert_eq!(std::fs::metadata(folder.path().join(name)).unwrap().uid(), owner, "{name}");
    }
}

#[tokio::test]
async fn an_engine_or_an_image_that_is_not_there_is_told_with_what_to_do() {
    let Some(bench) = Bench::new(|options| options.image = Some("mooring-test/no-such-image".into())).await
    else {
        return;
    };
    let missing = bench.client.create(request()).await.unwrap_err().to_string();
    assert!(
        missing.contains("image 'mooring-test/no-such-image'") && missing.contains("docker pull"),
        "{missing}"
    );
    let nowhere = DockerSandboxClient::new(DockerOptions::new("/nowhere/docker.sock", bench.state.path()));
    match nowhere.create(request()).await.unwrap_err() {
        SandboxError::Isolation { primitive, reason, hint } => {
            assert_eq!(
                (primitive.as_str(), reason.as_str()),
                ("the Docker engine", "/nowhere/docker.sock: there is no such socket")
            );
            assert!(hint.contains("DOCKER_HOST"), "{hint}");
        }
        other => panic!("{other}"),
    }
    assert!(bench.client.version().await.unwrap().starts_with("Docker "));
}
