//! Secrets: put in where they are bound, nowhere else, and taken out of what comes back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mooring_egress::{
    Config, Egress, HeaderName, HostName, HostPattern, Limits, Method, PathPattern, Policy, Rule,
    SecretBinding, SecretValue,
};

use crate::support::{Capture, Proxy, SECRET, Server, allow, binding, line, proxy, proxy_with, rule};

/// A proxy that may reach `api.test`, to which `token` is bound, and `other.test`, on the same server.
async fn brokered(server: &Server, change: impl FnOnce(&mut SecretBinding)) -> Proxy {
    let mut policy = allow(vec![rule("api.test", server.port), rule("other.test", server.port)]);
    let mut secret = binding("api.test", server.port);
    change(&mut secret);
    policy.secrets = vec![secret];
    proxy_with(policy, Limits::default(), &server.root).await
}

async fn fetch(proxy: &Proxy, arguments: &[&str]) -> String {
    let mut all = vec!["--cacert", proxy.bundle.to_str().unwrap()];
    all.extend(arguments);
    let output = proxy.curl(&all).await;
    format!("{}{}", output.out, output.err)
}

#[tokio::test]
async fn the_server_gets_the_secret_and_the_sandbox_never_sees_it() {
    let server = Server::start().await;
    let proxy = brokered(&server, |_| {}).await;
    let phantom = proxy.phantom("token");
    assert!(phantom.starts_with("phantom_") && phantom.len() == 48, "{phantom}");
    let header = format!("Authorization: Bearer {phantom}");
    // The server tells all that it got, in a header and in the body.
    let output = fetch(&proxy, &["-i", "-H", &header, &server.url("api.test", "/cgi/echo.sh")]).await;
    assert!(output.contains(&format!("x-echo: Bearer {phantom}")), "{output}");
    assert!(output.contains(&format!("HTTP_AUTHORIZATION=Bearer {phantom}")), "{output}");
    assert!(output.contains("HTTP_ACCEPT_ENCODING=identity"), "{output}");
    assert!(!output.contains(SECRET), "{output}");
    // What is checked above would hold as well if nothing had been put in; this would not.
    assert_eq!(proxy.record().await, "https api.test GET /cgi/echo.sh [token] allowed");
    let url = server.url("api.test", "/git/none/info/refs?service=git-upload-pack");
    let user = format!("agent:{phantom}");
    let output = fetch(&proxy, &["-o", "/dev/null", "-w", "%{http_code}", "-u", &user, &url]).await;
    assert_eq!(output, "404", "the password was right, and there is no such repository");
    let output = fetch(&proxy, &["-o", "/dev/null", "-w", "%{http_code}", "-u", "agent:wrong", &url]).await;
    assert_eq!(output, "401");
}

#[tokio::test]
async fn basic_authentication_is_looked_into_and_cleaned_in_every_alignment() {
    let server = Server::start().await;
    let proxy = brokered(&server, |_| {}).await;
    let phantom = proxy.phantom("token");
    for user in ["a", "ab", "abc"] {
        let output =
            fetch(&proxy, &["-u", &format!("{user}:{phantom}"), &server.url("api.test", "/cgi/echo.sh")])
                .await;
        let echoed = output.lines().find_map(|line| line.strip_prefix("HTTP_AUTHORIZATION=Basic ")).unwrap();
        let real = STANDARD.encode(format!("{user}:{SECRET}"));
        assert_eq!(echoed.len(), real.len(), "{echoed}");
        assert!(echoed.contains("*****************************"), "{echoed}");
    }
    assert_eq!(proxy.records(3).await.iter().filter(|record| record.secrets == ["token"]).count(), 3);
}

#[tokio::test]
async fn a_secret_goes_to_its_header_method_and_path_alone() {
    let server = Server::start().await;
    let proxy = brokered(&server, |secret| {
        secret.header = HeaderName::from_static("x-api-key");
        secret.methods = vec![Method::POST];
        secret.paths = vec![PathPattern::parse("/cgi/*").unwrap()];
    })
    .await;
    let phantom = proxy.phantom("token");
    let key = format!("X-Api-Key: {phantom}");
    let bearer = format!("Authorization: Bearer {phantom}");
    let here = server.url("api.test", "/cgi/echo.sh");
    let query = format!("{here}?key={phantom}");
    let other_path = server.url("api.test", "/hello.txt");
    let dots = server.url("api.test", "/cgi/../hello.txt");
    let split = format!("{}{phantom}{}", "x".repeat(40_000), "y".repeat(40_000));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    std::fs::write(&file, split).unwrap();
    let file = format!("@{}", file.display());
    for arguments in [
        &["-X", "POST", "-H", &key, &here][..],
        &["-H", &key, &here],
        &["-X", "POST", "-H", &bearer, &here],
        &["-X", "POST", "-H", &key, &other_path],
        &["-X", "POST", "--path-as-is", "-H", &key, &dots],
        &["-X", "POST", &query],
        &["--data-binary", &file, &here],
        &["-X", "POST", "-H", &key, "--data-binary", &file, &here],
        &["-X", "POST", "-H", &key, "-H", &bearer, &here],
    ] {
        fetch(&proxy, arguments).await;
    }
    let records = proxy.records(9).await;
    let lines: Vec<_> = records.iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_phantom_is_worth_nothing_at_another_host_or_in_the_open() {
    let server = Server::start().await;
    let open = Capture::start(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut other = rule("other.test", server.port);
    other.paths = vec![PathPattern::parse("/*").unwrap()];
    let rules = vec![rule("api.test", server.port), other, rule("*.open.test", open.port)];
    let policy = Policy { secrets: vec![binding("api.test", server.port)], ..allow(rules) };
    let proxy = proxy_with(policy, Limits::default(), &server.root).await;
    let phantom = proxy.phantom("token");
    let bearer = format!("Authorization: Bearer {phantom}");
    let in_name = format!("http://{}.open.test:{}/", phantom.to_lowercase(), open.port);
    // Another host whose requests are read, since its rule is about paths; the same host in the open; another in the
    // open; and the bound host, asked for under another host's name.
    let tunnel = format!("http://api.test:{}/cgi/echo.sh", server.port);
    let plain = format!("http://x.open.test:{}/", open.port);
    fetch(&proxy, &["-H", &bearer, &server.url("other.test", "/cgi/echo.sh")]).await;
    fetch(&proxy, &["-H", &bearer, &tunnel]).await;
    fetch(&proxy, &["--proxytunnel", "-H", &bearer, &tunnel]).await;
    fetch(&proxy, &["-H", &bearer, &plain]).await;
    fetch(&proxy, &["-d", &phantom, &plain]).await;
    fetch(&proxy, &["-H", &bearer, "-H", "Host: api.test", &server.url("other.test", "/cgi/echo.sh")]).await;
    // In lower case it is no phantom, and nothing to anyone.
    fetch(&proxy, &[&in_name]).await;
    let records = proxy.records(7).await;
    let lines: Vec<_> = records
        .iter()
        .map(|record| {
            line(record).replace(&server.port.to_string(), "PORT").replace(&phantom.to_lowercase(), "PHANTOM")
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    let seen = open.seen().join("");
    assert!(!seen.contains(&phantom) && !seen.contains(SECRET), "{seen}");
}

#[tokio::test]
async fn no_secret_is_sent_to_a_server_that_cannot_prove_its_name() {
    let server = Server::start().await;
    let mut policy = allow(vec![rule("api.test", server.port)]);
    policy.secrets = vec![binding("api.test", server.port)];
    // This proxy does not know the server's authority.
    let proxy = proxy(policy).await;
    let header = format!("Authorization: Bearer {}", proxy.phantom("token"));
    let output = fetch(&proxy, &["-H", &header, &server.url("api.test", "/cgi/echo.sh")]).await;
    assert!(output.contains("no trusted connection to api.test"), "{output}");
    assert!(output.contains("UnknownIssuer"), "{output}");
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_session_gets_nothing_and_the_record_says_why() {
    let server = Server::start().await;
    let proxy = brokered(&server, |_| {}).await;
    let output = proxy.curl(&[&server.url("api.test", "/hello.txt")]).await;
    assert_eq!(output.code, Some(60), "{output:?}");
    let record = proxy.record().await;
    assert!(
        record.starts_with("connect api.test failed: the client did not complete TLS as api.test"),
        "{record}"
    );
    assert!(record.contains("does it trust the CA bundle of this sandbox"), "{record}");
    // Another session's authority is no better.
    let stranger = brokered(&server, |_| {}).await;
    assert_ne!(stranger.phantom("token"), proxy.phantom("token"));
    let output =
        proxy.curl(&["--cacert", stranger.ca.to_str().unwrap(), &server.url("api.test", "/hello.txt")]).await;
    assert_eq!(output.code, Some(60), "{output:?}");
}

#[tokio::test]
async fn the_bound_host_cannot_be_fronted_by_another() {
    let server = Server::start().await;
    let proxy = brokered(&server, |_| {}).await;
    let through = format!("127.0.0.1:{}", proxy.port);
    let connect = format!("api.test:{}", server.port);
    let output = crate::support::run(
        "openssl",
        &["s_client", "-proxy", &through, "-connect", &connect, "-servername", "other.test"],
    )
    .await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(proxy.record().await.contains("denied (server_name)"));
}

#[tokio::test]
async fn a_response_that_cannot_be_searched_is_withheld() {
    let server = Server::start().await;
    std::fs::write(server.dir.path().join("www/packed.txt"), "\x1f\u{8b}any").unwrap();
    let proxy = brokered(&server, |_| {}).await;
    let output = fetch(&proxy, &["-w", "%{http_code}", &server.url("api.test", "/packed.txt")]).await;
    assert!(
        output.contains("is compressed although that was not asked for") && output.ends_with("502"),
        "{output}"
    );
    assert!(proxy.record().await.contains("denied (encoded_response)"));
}

/// A stream of events is passed on as it comes: its end is not held back for what might follow.
#[tokio::test]
async fn an_event_stream_is_not_delayed() {
    let server = Server::start().await;
    let script = "printf 'Content-Type: text/event-stream\\r\\n\\r\\ndata: one\\n\\n'\nwhile [ ! -e ../../go ]; do sleep 0.05; done\nprintf 'data: two\\n\\n'\n";
    std::fs::write(server.dir.path().join("www/cgi/events.sh"), script).unwrap();
    let proxy = brokered(&server, |_| {}).await;
    let url = server.url("api.test", "/cgi/events.sh");
    let mut curl = tokio::process::Command::new("curl")
        .args(["-q", "-sSN", "--proxy", &proxy.address(), "--cacert", proxy.ca.to_str().unwrap(), &url])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = tokio::io::BufReader::new(curl.stdout.take().unwrap());
    let mut first = [0; 11];
    let read = tokio::io::AsyncReadExt::read_exact(&mut out, &mut first);
    tokio::time::timeout(crate::support::LONG, read)
        .await
        .expect("the first event comes before the second")
        .unwrap();
    assert_eq!(&first, b"data: one\n\n");
    std::fs::write(server.dir.path().join("go"), "").unwrap();
    let mut rest = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut out, &mut rest);
    tokio::time::timeout(crate::support::LONG, read).await.unwrap().unwrap();
    assert_eq!(rest, "data: two\n\n");
}

#[test]
fn what_could_not_be_kept_is_refused_before_anything_starts() {
    let name = || HostName::parse("api.test").unwrap();
    let secret = |value: &str| SecretBinding::new("token", SecretValue::new(value), name());
    let start =
        |policy| Egress::new(Config::new(policy, std::sync::Arc::new(|_| {}))).unwrap_err().to_string();
    let rules = || vec![Rule::host(HostPattern::parse("api.test").unwrap())];
    let with = |secrets| Policy { rules: rules(), secrets, ..Policy::default() };
    let mut no_port = rules();
    no_port[0].ports.clear();
    let refusals = [
        start(Policy { unrestricted: true, ..with(vec![secret(SECRET)]) }),
        start(Policy { secrets: vec![secret(SECRET)], ..Policy::default() }),
        start(allow(no_port)),
        start(with(vec![secret("short")])),
        start(with(vec![secret("with-a-line-break\n")])),
        start(with(vec![secret(SECRET), secret("another-value-of-it")])),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
    assert!(!format!("{:?}", secret(SECRET)).contains(SECRET));
}
