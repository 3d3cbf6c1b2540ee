//! Servers, sandboxes with mounts, and what is put where.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring_egress::{HostPattern, Operator, SecretValue};
use mooring_manifest::Manifest;
use mooring_mounts::Mounts;
use mooring_sandbox::{
    CreateRequest, ExecRequest, Outcome, SandboxClient as _, SandboxSession, SessionState,
};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use serde_json::{Value, json};

/// Azurite's only account and its published key.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// A key that is as long as a real one, and found nowhere by chance.
pub(crate) const SECRET: &str = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY";

/// A file of what `scripts/setup --tests` installs.
fn counterpart(place: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/counterparts").join(place);
    assert!(path.exists(), "{} is not installed: run scripts/setup --tests", path.display());
    path
}

/// A server that runs until this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    _data: tempfile::TempDir,
}

impl Server {
    /// moto, an S3.
    pub(crate) fn s3() -> Self {
        let mut command = Command::new(counterpart("storage/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        Self::start(command, "Running on ", |child| Box::new(child.stderr.take().unwrap()))
    }

    /// Azurite, an Azure Blob storage.
    pub(crate) fn azure() -> Self {
        let mut command = Command::new("node");
        command.arg(counterpart("node_modules/azurite/dist/src/blob/main.js"));
        command.args([
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            "0",
            "--disableTelemetry",
            "--skipApiVersionCheck",
        ]);
        command.args(["--inMemoryPersistence"]).stdout(Stdio::piped()).stderr(Stdio::null());
        Self::start(command, "listens on ", |child| Box::new(child.stdout.take().unwrap()))
    }

    fn start(
        mut command: Command,
        says: &str,
        output: impl Fn(&mut Child) -> Box<dyn std::io::Read + Send>,
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut child = command.current_dir(data.path()).stdin(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(output(&mut child)).lines();
        let url = loop {
            let line = lines.next().expect("the server ended").unwrap();
            if let Some((_, url)) = line.split_once(says) {
                break url.trim().trim_end_matches('/').to_owned();
            }
        };
        // Read on, so that it can write on.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, _data: data }
    }

    /// Runs Python with a provider's own client, for the bucket `data`, or the container where it begins with `# azure`.
    pub(crate) fn python(&self, script: &str) -> String {
        let prelude = if script.starts_with("# azure") { AZURE } else { S3 };
        let mut child = Command::new(counterpart("storage/bin/python"))
            .arg("-")
            .env("URL", &self.url)
            .env("KEY", KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("{prelude}\n{script}").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout).unwrap()
    }
}

const S3: &str = "
import boto3, os, hashlib
store = boto3.client('s3', endpoint_url=os.environ['URL'], aws_access_key_id='AKIAEXAMPLE',
    aws_secret_access_key='secret', region_name='us-east-1')
store.create_bucket(Bucket='data') if 'data' not in [b['Name'] for b in store.list_buckets()['Buckets']] else None
def put(key, body=b''): store.put_object(Bucket='data', Key=key, Body=body)
def get(key): return store.get_object(Bucket='data', Key=key)['Body'].read()
def keys(): return sorted(o['Key'] for o in store.list_objects_v2(Bucket='data').get('Contents', []))
";

const AZURE: &str = "
import os
from azure.storage.blob import BlobServiceClient
store = BlobServiceClient(os.environ['URL'] + '/devstoreaccount1', credential=os.environ['KEY'])
container = store.get_container_client('data')
container.exists() or container.create_container()
def put(key, body=b''): container.upload_blob(key, body, overwrite=True)
def get(key): return container.download_blob(key).readall()
def keys(): return sorted(container.list_blob_names())
";

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an in-container helper is asked for.
pub(crate) fn strategy() -> Value {
    json!({ "type": "in_container", "pattern": { "type": "rclone" } })
}

/// An entry for the bucket `data` of an S3.
pub(crate) fn s3(url: &str) -> Value {
    json!({ "type": "s3_mount", "bucket": "data", "endpoint_url": url, "mount_strategy": strategy() })
}

/// The credentials that go with it.
pub(crate) fn s3_keys() -> Value {
    json!({ "credentials": { "access_key_id": "id", "secret_access_key": "key" } })
}

/// A manifest with one mount at `m`.
pub(crate) fn manifest(entry: Value, options: Value) -> Manifest {
    let names = ["id", "key", "azure", "token-key"].map(|name| (name.to_owned(), json!({})));
    let secrets: serde_json::Map<String, Value> = names.into_iter().collect();
    Manifest::from_value(&json!({
        "entries": { "m": entry }, "x-mooring": { "secrets": secrets, "mounts": { "m": options } }
    }))
    .unwrap()
}

/// A sandbox, and what failed in its mounts.
pub(crate) struct Bench {
    pub(crate) session: Arc<dyn SandboxSession>,
    pub(crate) failures: Mutex<Vec<String>>,
    pub(crate) state: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug, PartialEq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A client whose mounts may reach this machine, and which knows some secrets.
pub(crate) fn client(state: &Path) -> LocalSandboxClient {
    LocalSandboxClient::new(LocalOptions { storage: Some(storage()), ..LocalOptions::new(state) })
}

/// Who serves them.
pub(crate) fn storage() -> Arc<Mounts> {
    let secrets: BTreeMap<&str, &str> =
        [("id", "AKIAEXAMPLE"), ("key", SECRET), ("azure", KEY), ("token-key", "c2VjcmV0IG9mIG5vYm9keQ==")]
            .into();
    let mut operator =
        Operator::new(Arc::new(move |name: &str| secrets.get(name).map(|value| SecretValue::new(*value))));
    operator.private.push(HostPattern::parse("127.0.0.1").unwrap());
    Arc::new(Mounts::new(operator))
}

impl Bench {
    pub(crate) async fn new(manifest: Manifest) -> Self {
        let state = tempfile::tempdir().unwrap();
        let client = client(state.path());
        let request = CreateRequest { session_id: "mounts".into(), manifest, workspace: None };
        let session = client.create(request).await.unwrap();
        session.start().await.unwrap();
        Self { session, failures: Mutex::default(), state }
    }

    pub(crate) fn kept(&self) -> SessionState {
        self.session.state()
    }

    pub(crate) async fn run(&self, command: &str) -> Ran {
        let request = ExecRequest::shell(command).timeout(Duration::from_mins(4));
        let done = self.session.exec(request).await.unwrap();
        let code = match done.outcome {
            Outcome::Exited { code } => code,
            other => panic!("{command}: {other:?}"),
        };
        Ran { code, out: done.stdout.text(), err: done.stderr.text() }
    }

    /// What a command that must succeed says.
    pub(crate) async fn said(&self, command: &str) -> String {
        let ran = self.run(command).await;
        assert_eq!(ran.code, 0, "{command}: {ran:?} {:?}", self.told());
        ran.out
    }

    pub(crate) fn told(&self) -> Vec<String> {
        let mut failures = self.failures.lock().unwrap();
        failures.extend(self.session.mount_failures().iter().map(ToString::to_string));
        failures.clone()
    }
}
