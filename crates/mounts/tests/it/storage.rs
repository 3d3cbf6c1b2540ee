//! Servers of storage, and a sandbox that mounts it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_egress::{HostPattern, Operator, SecretValue};
use mooring_manifest::Manifest;
use mooring_mounts::ObjectStorage;
use mooring_sandbox::{
    CreateRequest, ExecRequest, Outcome, Plan, SandboxClient as _, SandboxError, SandboxSession, materialise,
};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const ID: &str = "test-id";
pub(crate) const SECRET: &str = "test-secret-0123456789";
/// The published key of the emulator's only account.
pub(crate) const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

fn counterpart(place: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/counterparts").join(place);
    assert!(path.exists(), "{} is missing: run `./scripts/setup --tests`", path.display());
    path
}

/// A server of one kind of storage; it ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) kind: &'static str,
    pub(crate) endpoint: String,
    folder: TempDir,
}

impl Server {
    pub(crate) fn start(kind: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free now, and asked for again at once.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let (program, arguments) = match kind {
            "s3" => ("storage/bin/moto_server", vec!["-H", "127.0.0.1", "-p", &port]),
            "azure" => (
                "node_modules/.bin/azurite-blob",
                vec![
                    "--blobHost",
                    "127.0.0.1",
                    "--blobPort",
                    &port,
                    "--disableTelemetry",
                    "--skipApiVersionCheck",
                    "--inMemoryPersistence",
                ],
            ),
            other => panic!("no server of {other}"),
        };
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(counterpart(program))
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let account = if kind == "azure" { "/devstoreaccount1" } else { "" };
        let server = Self { child, kind, endpoint: format!("http://127.0.0.1:{port}{account}"), folder };
        let deadline = Instant::now() + Duration::from_mins(1);
        while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
            assert!(Instant::now() < deadline, "{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Does something as the storage's official client does.
    pub(crate) fn client(&self, name: &str, directory: &Path, what: &[&str]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fill.py");
        let output = Command::new(counterpart("storage/bin/python"))
            .args([script, self.kind, &self.endpoint, name])
            .arg(directory)
            .args(what)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{}", self.log());
    }

    /// An entry that mounts it, and the secrets that open it.
    pub(crate) fn entry(&self, name: &str) -> (Value, Value) {
        let strategy = json!({"type": "in_container", "pattern": {"type": "rclone"}});
        let mut entry = json!({"mount_strategy": strategy});
        let credentials = match self.kind {
            "s3" => {
                entry["type"] = "s3_mount".into();
                entry["bucket"] = name.into();
                entry["endpoint_url"] = self.endpoint.clone().into();
                json!({"access_key_id": "id", "secret_access_key": "key"})
            }
            "azure" => {
                entry["type"] = "azure_blob_mount".into();
                entry["account"] = "devstoreaccount1".into();
                entry["container"] = name.into();
                entry["endpoint"] = self.endpoint.clone().into();
                json!({"account_key": "azure"})
            }
            other => panic!("no entry of {other}"),
        };
        (entry, credentials)
    }

    /// A manifest that mounts it at `data`.
    pub(crate) fn manifest(&self, name: &str) -> Manifest {
        let (entry, credentials) = self.entry(name);
        manifest(&json!({"data": entry}), &json!({"data": {"credentials": credentials}}))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn manifest(entries: &Value, mounts: &Value) -> Manifest {
    let extension = json!({"secrets": {"id": {}, "key": {}, "azure": {}, "wrong": {}}, "mounts": mounts});
    let whole = json!({"version": 1, "root": "/workspace", "entries": entries, "x-mooring": extension});
    let manifest = Manifest::from_value(&whole).unwrap();
    manifest.validate().unwrap();
    manifest
}

/// What the operator says: the tests' servers are on this machine.
pub(crate) fn operator() -> Operator {
    let mut operator = Operator::new(Arc::new(|name| {
        let value = match name {
            "id" => ID,
            "key" => SECRET,
            "azure" => AZURE_KEY,
            "wrong" => "d3Jvbmc=",
            _ => return None,
        };
        Some(SecretValue::new(value))
    }));
    operator.private = vec![HostPattern::parse("127.0.0.1").unwrap()];
    operator
}

/// Where the sandboxes of a test lie.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        // The second test in a process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn client(&self, operator: Operator) -> LocalSandboxClient {
        let storage = Arc::new(ObjectStorage::new(operator));
        LocalSandboxClient::new(LocalOptions::new(self.0.path())).with_storage(storage)
    }

    /// A sandbox that is up, with what its manifest says.
    pub(crate) async fn sandbox(&self, manifest: Manifest) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        let client = self.client(operator());
        let plan = Plan::new(&manifest, Path::new("/"), &client.support(), client.backend_id())?;
        let request = CreateRequest { session_id: "s".into(), manifest, workspace: None };
        let session = client.create(request).await?;
        session.start().await?;
        materialise(&plan, session.as_ref()).await?;
        Ok(session)
    }
}

/// What a command says, and how it ended.
pub(crate) async fn run(session: &dyn SandboxSession, command: &str) -> (Outcome, String) {
    let mut request = ExecRequest::shell(command);
    request.timeout = Some(Duration::from_mins(2));
    let result = session.exec(request).await.unwrap();
    let text = [result.stdout.data, result.stderr.data].concat();
    (result.outcome, String::from_utf8_lossy(&text).into_owned())
}

/// What a command says that must not fail.
pub(crate) async fn say(session: &dyn SandboxSession, command: &str) -> String {
    let (outcome, text) = run(session, command).await;
    assert_eq!(outcome, Outcome::Exited { code: 0 }, "{command}\n{text}");
    text
}
