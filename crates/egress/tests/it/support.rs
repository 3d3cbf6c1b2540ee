//! A proxy on loopback with a resolver that remembers what it was asked, and servers for it to reach.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring_egress::{
    Config, Egress, HostName, HostPattern, Limits, Policy, Record, Resolve, Rule, SecretBinding, SecretValue,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

/// Long enough for a busy machine.
pub(crate) const LONG: Duration = Duration::from_mins(1);
/// A secret as the tests bind it. It has characters that JSON, URLs and base64 write in other ways.
pub(crate) const SECRET: &str = "s3cr3t/V+lue\"of-the-real-kind";

/// Every name is 127.0.0.1, but for one that has no address and one that hides a metadata service.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Resolve for Names {
    fn resolve<'a>(
        &'a self,
        name: &'a HostName,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(name.to_string());
            let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
            match name.as_str() {
                "nowhere.test" => Ok(vec![]),
                "rebound.test" => Ok(vec![loopback, IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))]),
                _ => Ok(vec![loopback]),
            }
        })
    }
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) egress: Egress,
    pub(crate) port: u16,
    pub(crate) names: Arc<Names>,
    records: Arc<Mutex<Vec<Record>>>,
    listening: AbortHandle,
    /// Holds the files below.
    _dir: TempDir,
    /// The session's authority, for clients.
    pub(crate) ca: PathBuf,
    /// The session's authority and the servers' one, as a sandbox's bundle has the machine's.
    pub(crate) bundle: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

pub(crate) async fn proxy(policy: Policy) -> Proxy {
    proxy_with(policy, Limits::default(), "").await
}

pub(crate) async fn proxy_with(policy: Policy, limits: Limits, roots: &str) -> Proxy {
    let names = Arc::new(Names::default());
    let records = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&records);
    let mut config = Config::new(policy, Arc::new(move |record| seen.lock().unwrap().push(record)));
    config.resolver = Arc::clone(&names) as Arc<dyn Resolve>;
    config.limits = limits;
    config.extra_roots = roots.into();
    let egress = Egress::new(config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = egress.clone();
    let listening = tokio::spawn(async move { serving.listen_tcp(listener).await }).abort_handle();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let bundle = dir.path().join("bundle.pem");
    std::fs::write(&ca, egress.authority_pem()).unwrap();
    std::fs::write(&bundle, format!("{}{roots}", egress.authority_pem())).unwrap();
    Proxy { egress, port, names, records, listening, _dir: dir, ca, bundle }
}

impl Proxy {
    /// Waits until there are this many records, and gives them all, sorted by their end.
    pub(crate) async fn records(&self, count: usize) -> Vec<Record> {
        let enough = async {
            while self.records.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = timeout(LONG, enough).await;
        let records = self.records.lock().unwrap().clone();
        assert!(done.is_ok(), "no {count} records came: {records:#?}");
        records
    }

    /// The one record that there is, as people would read it.
    pub(crate) async fn record(&self) -> String {
        let records = self.records(1).await;
        assert_eq!(records.len(), 1, "{records:#?}");
        line(&records[0])
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.names.asked.lock().unwrap().clone()
    }

    /// Sends bytes as they are, and gives what comes back: until this many responses have, or the proxy closes.
    pub(crate) async fn raw(&self, bytes: &[u8], responses: usize) -> String {
        self.raw_until(bytes, |text| text.matches("HTTP/1.1 ").count() >= responses && text.ends_with('\n'))
            .await
    }

    /// Sends bytes as they are, and gives what comes back: until it is enough, or the proxy closes.
    pub(crate) async fn raw_until(&self, bytes: &[u8], enough: impl Fn(&str) -> bool) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = async {
            // A reset is an end as well.
            while stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {
                if enough(&String::from_utf8_lossy(&answer)) {
                    break;
                }
            }
        };
        timeout(LONG, read).await.expect("an answer comes, or the proxy closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs curl through the proxy, without the caller's configuration.
    pub(crate) async fn curl(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["-q", "-sS", "--max-time", "50", "--proxy"];
        let address = self.address();
        all.push(&address);
        all.extend(arguments);
        run("curl", &all).await
    }

    pub(crate) fn phantom(&self, name: &str) -> String {
        self.egress.phantoms().find(|(known, _)| *known == name).unwrap().1.to_owned()
    }
}

/// A record in one line, without what differs from run to run.
pub(crate) fn line(record: &Record) -> String {
    use mooring_egress::Verdict;
    let verdict = match &record.verdict {
        Verdict::Allowed => "allowed".to_owned(),
        Verdict::Failed(why) => format!("failed: {why}"),
        Verdict::Denied(refusal) => format!("denied ({}): {refusal}", refusal.code()),
    };
    let request = match (&record.method, &record.path) {
        (Some(method), Some(path)) => format!(" {method} {path}"),
        _ => String::new(),
    };
    let secrets =
        if record.secrets.is_empty() { String::new() } else { format!(" [{}]", record.secrets.join(", ")) };
    format!("{} {}{request}{secrets} {verdict}", record.protocol.as_str(), record.host)
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) async fn run(program: &str, arguments: &[&str]) -> Output {
    finish(Command::new(program).args(arguments).env_remove("CURL_CA_BUNDLE").env_remove("SSL_CERT_FILE"))
        .await
}

pub(crate) async fn finish(command: &mut Command) -> Output {
    let work = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LONG, work).await.expect("the program ends").expect("the program is installed");
    Output {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Allows a host on a port.
pub(crate) fn rule(host: &str, port: u16) -> Rule {
    let mut rule = Rule::host(HostPattern::parse(host).unwrap());
    rule.ports = vec![port];
    rule
}

/// Allows what the rules say, on loopback.
pub(crate) fn allow(rules: Vec<Rule>) -> Policy {
    let private = rules.iter().map(|rule| rule.host.clone()).collect();
    Policy { rules, private, ..Policy::default() }
}

/// The secret `token`, bound to a host.
pub(crate) fn binding(host: &str, port: u16) -> SecretBinding {
    let mut binding = SecretBinding::new("token", SecretValue::new(SECRET), HostName::parse(host).unwrap());
    binding.port = port;
    binding
}

/// A server that takes what one client after the other sends, and answers each with the same bytes.
pub(crate) struct Capture {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Capture {
    pub(crate) async fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let place = {
                    let mut all = all.lock().unwrap();
                    all.push(String::new());
                    all.len() - 1
                };
                let all = Arc::clone(&all);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    let mut answered = false;
                    while let Ok(count) = stream.read(&mut buffer).await {
                        if count == 0 {
                            break;
                        }
                        let whole = {
                            let mut all = all.lock().unwrap();
                            all[place].push_str(&String::from_utf8_lossy(&buffer[..count]));
                            all[place].clone()
                        };
                        if !answered && whole.contains("\r\n\r\n") {
                            answered = true;
                            let _ = stream.write_all(answer).await;
                        }
                    }
                });
            }
        });
        Self { port, seen, serving }
    }

    /// What each connection sent.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// lighttpd with TLS: files, a CGI script that tells what it was sent, and git behind a password.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) dir: TempDir,
    /// What signed its certificate.
    pub(crate) root: String,
    _process: Child,
}

/// Names that the server's certificate is for.
pub(crate) const SERVED: [&str; 3] = ["api.test", "git.test", "other.test"];

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let (root, certificate_and_key) = certificates();
        std::fs::write(at.join("server.pem"), certificate_and_key).unwrap();
        std::fs::create_dir_all(at.join("www/cgi")).unwrap();
        std::fs::create_dir_all(at.join("repos")).unwrap();
        std::fs::write(at.join("www/hello.txt"), "hello\n").unwrap();
        std::fs::write(at.join("www/cgi/echo.sh"), ECHO).unwrap();
        std::fs::write(at.join("users"), format!("agent:{SECRET}\n")).unwrap();
        let mut last = String::new();
        // The port may be taken between finding and using it.
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            std::fs::write(at.join("lighttpd.conf"), configuration(at, port)).unwrap();
            let mut process = Command::new("/usr/sbin/lighttpd")
                .args(["-D", "-f"])
                .arg(at.join("lighttpd.conf"))
                .kill_on_drop(true)
                .spawn()
                .expect("lighttpd is installed by scripts/setup --tests");
            for _ in 0..1000 {
                if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return Self { port, dir, root, _process: process };
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            last = std::fs::read_to_string(at.join("error.log")).unwrap_or_default();
        }
        panic!("lighttpd does not start: {last}");
    }

    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.port)
    }
}

/// Tells the sandbox all about its request: headers and body.
const ECHO: &str = "printf 'X-Echo: %s\\r\\nContent-Type: text/plain\\r\\n\\r\\n' \"$HTTP_AUTHORIZATION\"\nenv | grep -E '^(HTTP_|REQUEST_)' | sort\ncat\n";

fn configuration(at: &Path, port: u16) -> String {
    let at = at.display();
    format!(
        r#"server.modules = ("mod_openssl", "mod_setenv", "mod_auth", "mod_authn_file", "mod_alias", "mod_cgi")
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{at}/www"
server.errorlog = "{at}/error.log"
server.stream-request-body = 2
server.stream-response-body = 2
ssl.engine = "enable"
ssl.pemfile = "{at}/server.pem"
mimetype.assign = (".txt" => "text/plain", "" => "application/octet-stream")
$HTTP["url"] =~ "^/cgi/" {{ cgi.assign = (".sh" => "/bin/sh") }}
$HTTP["url"] =~ "^/packed" {{ setenv.add-response-header = ("Content-Encoding" => "gzip") }}
$HTTP["url"] =~ "^/git/" {{
  alias.url = ("/git/" => "/usr/lib/git-core/git-http-backend/")
  setenv.set-environment = ("GIT_PROJECT_ROOT" => "{at}/repos", "GIT_HTTP_EXPORT_ALL" => "1")
  cgi.assign = ("" => "")
  auth.backend = "plain"
  auth.backend.plain.userfile = "{at}/users"
  auth.require = ("/git/" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
}}
"#
    )
}

/// A root, and a certificate with its key for the served names, all in PEM.
pub(crate) fn certificates() -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "the authority of the test's servers");
    let root_key = KeyPair::generate().unwrap();
    let root = params.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(SERVED.map(String::from).to_vec()).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    (root, format!("{certificate}{}", key.serialize_pem()))
}
