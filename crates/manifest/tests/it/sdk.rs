//! The SDK itself, which `scripts/setup --tests` installs, and we say the same.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mooring_manifest::convert::{from_managed_agents, to_managed_agents};
use mooring_manifest::{Format, Manifest};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

struct Case {
    manifest: Value,
    scoped: Vec<String>,
    broad: Vec<String>,
}

/// What a script of `tests/sdk` answers to lines.
fn ask(script: &str, lines: String) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../../target/counterparts/venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup --tests", python.display());
    let mut child = Command::new(python)
        .arg(here.join("tests/sdk").join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What the SDK says, in the order of the cases.
fn sdk(cases: &[Case]) -> Vec<Value> {
    let lines: String = cases
        .iter()
        .map(|case| {
            json!({ "manifest": case.manifest, "scoped": case.scoped, "broad": case.broad }).to_string()
                + "\n"
        })
        .collect();
    let said = ask("verdicts.py", lines);
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), cases.len(), "the SDK answered everything");
    said
}

fn strategies() -> Vec<Value> {
    let patterns = [
        json!({ "type": "rclone" }),
        json!({ "type": "rclone", "config_file_path": "conf/rclone.conf" }),
        json!({ "type": "rclone", "extra_args": ["--allow-other", "--uid", "1000", "--gid=5", "--buffer_size=1M"] }),
        json!({ "type": "rclone", "extra_args": ["--allow-other=1"] }),
        json!({ "type": "rclone", "extra_args": ["--s3-env-auth"] }),
        json!({ "type": "rclone", "remote_name": "my remote" }),
        json!({ "type": "rclone", "remote_name": "-x" }),
        json!({ "type": "mountpoint" }),
        json!({ "type": "fuse" }),
        json!({ "type": "s3files" }),
        json!({ "type": "s3files", "options": { "extra_options": { "tls": null } } }),
    ];
    let inside = patterns.iter().map(|pattern| json!({ "type": "in_container", "pattern": pattern }));
    let others = [
        json!({ "type": "e2b_cloud_bucket" }),
        json!({ "type": "runloop_cloud_bucket", "pattern": { "type": "mountpoint" } }),
        json!({ "type": "blaxel_cloud_bucket" }),
        json!({ "type": "blaxel_drive" }),
        json!({ "type": "cloudflare_bucket_mount" }),
        json!({ "type": "modal_cloud_bucket" }),
        json!({ "type": "modal_cloud_bucket", "secret_name": "s", "secret_environment_name": "e" }),
        json!({ "type": "modal_cloud_bucket", "secret_environment_name": "e" }),
        json!({ "type": "modal_cloud_bucket", "secret_name": "" }),
        json!({ "type": "daytona_cloud_bucket", "pattern": { "type": "rclone", "mode": "nfs" } }),
        json!({ "type": "docker_volume", "driver": "rclone", "driver_options": { "o": "x" } }),
    ];
    inside.chain(others).collect()
}

fn mounts() -> Vec<Value> {
    let variants = |kind: &str, base: Value, credentials: &[Value]| {
        let all = credentials.iter().map(|credentials| {
            let mut mount = base.clone();
            mount["type"] = kind.into();
            mount.as_object_mut().unwrap().extend(credentials.as_object().unwrap().clone());
            mount
        });
        all.collect::<Vec<_>>()
    };
    let pair = |id: &str| json!({ id: "k", "secret_access_key": "s" });
    [
        variants(
            "s3_mount",
            json!({ "bucket": "b" }),
            &[
                json!({}),
                pair("access_key_id"),
                json!({ "access_key_id": "k", "secret_access_key": "s", "session_token": "t" }),
                json!({ "access_key_id": "k" }),
                json!({ "session_token": "t" }),
                json!({ "access_key_id": " ", "secret_access_key": "s" }),
                json!({ "region": "a,b" }),
            ],
        ),
        variants(
            "gcs_mount",
            json!({ "bucket": "b" }),
            &[
                json!({}),
                pair("access_id"),
                json!({ "access_id": "k" }),
                json!({ "service_account_file": "/keys/sa.json" }),
                json!({ "service_account_file": "keys/sa.json" }),
                json!({ "service_account_credentials": "{}" }),
                json!({ "access_token": "t" }),
                json!({ "access_token": "" }),
            ],
        ),
        variants(
            "r2_mount",
            json!({ "bucket": "b", "account_id": "a" }),
            &[
                json!({}),
                pair("access_key_id"),
                json!({ "access_key_id": "k" }),
                json!({ "account_id": "a,b" }),
            ],
        ),
        variants(
            "azure_blob_mount",
            json!({ "account": "a", "container": "c" }),
            &[json!({}), json!({ "account_key": "k" }), json!({ "identity_client_id": "i" })],
        ),
        variants(
            "box_mount",
            json!({ "path": "/" }),
            &[
                json!({}),
                json!({ "client_id": "c", "client_secret": "s" }),
                json!({ "token": "t" }),
                json!({ "box_config_file": "/etc/box.json" }),
            ],
        ),
        variants(
            "s3_files_mount",
            json!({ "file_system_id": "fs-1" }),
            &[json!({}), json!({ "extra_options": { "iam": null } })],
        ),
        variants("blaxel_drive_mount", json!({ "drive_name": "d" }), &[json!({})]),
    ]
    .concat()
}

/// Every provider, with every kind of credential, mounted in every way, with and without what code acknowledges.
#[test]
fn credentials_are_let_in_where_the_sdk_lets_them_in() {
    let mut cases = Vec::new();
    for mount in mounts() {
        for strategy in strategies() {
            let mut mount = mount.clone();
            mount["mount_strategy"] = strategy;
            let file = json!({ "type": "file", "content": "{}" });
            let entries =
                json!({ "data": { "type": "dir", "children": { "m": mount } }, "keys/sa.json": file });
            for (scoped, broad) in [
                (&[][..], &[][..]),
                (&["data/m"], &[]),
                (&[], &["/workspace/data/m"]),
                (&["data/m"], &["data/m"]),
                (&["data"], &["m"]),
            ] {
                let own = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
                cases.push(Case {
                    manifest: json!({ "entries": entries }),
                    scoped: own(scoped),
                    broad: own(broad),
                });
            }
        }
    }
    let (mut read, mut used, mut differ) = (0, 0, String::new());
    for (case, said) in cases.iter().zip(sdk(&cases)) {
        let Case { manifest, scoped, broad } = case;
        let ours = Manifest::from_value(manifest);
        if said["read"] != ours.is_ok() {
            writeln!(differ, "{manifest}\n  read: {:?}\n  the SDK: {}", ours.err(), said["why"]).unwrap();
            continue;
        }
        let Ok(mut ours) = ours else { continue };
        read += 1;
        for path in scoped {
            ours.acknowledge_exposure(path).unwrap();
        }
        for path in broad {
            ours.acknowledge_broad_exposure(path).unwrap();
        }
        let verdict = ours.validate();
        used += usize::from(verdict.is_ok());
        if said["used"] != verdict.is_ok() {
            writeln!(
                differ,
                "{manifest}, acknowledged {scoped:?} and {broad:?}\n  used: {verdict:?}\n  the SDK: {}",
                said["why"]
            )
            .unwrap();
        }
    }
    assert_eq!(differ, "");
    assert!(used > 50 && read - used > 200, "both verdicts come often: {used} of {read}");
}

#[test]
fn the_sdk_reads_what_we_write_and_drops_our_own_key() {
    let mut runner = TestRunner::deterministic();
    let mut drawn: Vec<Manifest> =
        (0..200).map(|_| crate::generated::manifest().new_tree(&mut runner).unwrap().current()).collect();
    drawn.push(Manifest::from_yaml(crate::extension::EVERYTHING).unwrap());
    let case =
        |manifest: &Manifest| Case { manifest: manifest.to_value(), scoped: Vec::new(), broad: Vec::new() };
    let said = sdk(&drawn.iter().map(case).collect::<Vec<_>>());
    for (manifest, said) in drawn.iter_mut().zip(said) {
        assert_eq!(said["read"], true, "{}: {}", manifest.to_json(), said["why"]);
        manifest.extension = mooring_manifest::Extension::default();
        assert_eq!(manifest.to_value(), said["dump"]);
    }
}

#[test]
fn exported_environments_have_the_form_that_the_service_takes() {
    let mut runner = TestRunner::deterministic();
    let mut lines = String::new();
    for _ in 0..50 {
        let environment = crate::convert::environment().new_tree(&mut runner).unwrap().current();
        let manifest = from_managed_agents(&environment.to_string(), Format::Json).unwrap().value;
        writeln!(lines, "{}", to_managed_agents(&manifest, "n").value).unwrap();
    }
    let everything = Manifest::from_yaml(crate::extension::EVERYTHING).unwrap();
    writeln!(lines, "{}", to_managed_agents(&everything, "all").value).unwrap();
    // The check is known to bite.
    lines += "{\"name\": \"n\", \"config\": {\"type\": \"cloud\", \"packages\": {\"pipp\": [\"x\"]}}}\n";
    let said = ask("environments.py", lines);
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[..51], ["ok"; 51]);
    assert!(said.len() == 52 && said[51].contains("pipp"), "{said:?}");
}
