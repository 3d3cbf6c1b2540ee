//! The whole way: programs in a local sandbox, their manifest, the proxy, servers.

use std::sync::Arc;
use std::time::Duration;

use mooring_egress::{EgressClient, HostPattern, Operator, SecretValue};
use mooring_manifest::Manifest;
use mooring_sandbox::{
    Access, CreateRequest, ExecRequest, SandboxClient, SandboxError, SandboxSession, SessionState,
};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Names, SECRET, Server};

const SOON: Duration = Duration::from_mins(1);

fn client(state: &TempDir, server: &Server, secret: Option<&'static str>) -> EgressClient {
    let local = LocalSandboxClient::new(LocalOptions::new(state.path()));
    EgressClient::new(Arc::new(local), operator(server, secret))
}

fn operator(server: &Server, secret: Option<&'static str>) -> Operator {
    let mut operator = Operator::new(Arc::new(move |name| {
        (name == "token").then_some(secret).flatten().map(SecretValue::new)
    }));
    operator.private =
        vec![HostPattern::parse("*.test.test").unwrap(), HostPattern::parse("api.test").unwrap()];
    operator.private.push(HostPattern::parse("git.test").unwrap());
    operator.resolver = Arc::new(Names::default());
    operator.extra_roots.clone_from(&server.root);
    operator
}

fn manifest(extension: &Value) -> Manifest {
    Manifest::from_value(&json!({ "version": 1, "root": "/workspace", "x-mooring": extension })).unwrap()
}

/// `token` for `api.test` and `git.test`; `other.test` is allowed by name, and leads to where the operator says no.
fn brokered(server: &Server) -> Manifest {
    let port = server.port;
    manifest(&json!({
        "network": { "allow": [
            { "host": "api.test", "ports": [port] },
            { "host": "git.test", "ports": [port] },
            { "host": "other.test", "ports": [port] },
        ] },
        "secrets": { "token": { "env": "TOKEN", "inject": [
            { "host": "api.test", "port": port, "paths": ["/cgi/*"] },
            { "host": "git.test", "port": port },
        ] } },
    }))
}

async fn create(client: &EgressClient, manifest: Manifest) -> Arc<dyn SandboxSession> {
    let request = CreateRequest { session_id: "s1".into(), manifest, workspace: None };
    let session = client.create(request).await.unwrap();
    session.start().await.unwrap();
    session
}

async fn sh(session: &Arc<dyn SandboxSession>, line: &str) -> String {
    let result = session.exec(ExecRequest::shell(line).timeout(SOON)).await.unwrap();
    format!("{}{}", result.stdout.text(), result.stderr.text())
}

fn told(access: &Access) -> String {
    let Access { protocol, host, method, path, decision, code, secrets, count, .. } = access;
    let request = method.as_ref().zip(path.as_ref()).map(|(method, path)| format!(" {method} {path}"));
    let code = code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
    format!("{count} {protocol} {host}{} {secrets:?} {decision}{code}", request.unwrap_or_default())
}

#[tokio::test]
async fn a_command_uses_a_secret_that_it_does_not_have() {
    let server = Server::start().await;
    let state = tempfile::tempdir().unwrap();
    let client = client(&state, &server, Some(SECRET));
    let session = create(&client, brokered(&server)).await;
    let url = server.url("api.test", "/cgi/echo.sh");
    let answer =
        sh(&session, &format!("curl -sS -H \"Authorization: Bearer $TOKEN\" {url}; echo \"is $TOKEN\""))
            .await;
    let phantom = answer.lines().find_map(|line| line.strip_prefix("is ")).unwrap().to_owned();
    assert!(phantom.starts_with("phantom_"), "{answer}");
    assert!(answer.contains(&format!("HTTP_AUTHORIZATION=Bearer {phantom}")), "{answer}");
    // Python's own library, with the certificates of the environment.
    let program = format!("import urllib.request; print(urllib.request.urlopen('{url}').status)");
    assert_eq!(sh(&session, &format!("/usr/bin/python3 -c \"{program}\"")).await, "200\n");
    sh(&session, "for i in 1 2 3; do curl -sS https://evil.test/; done").await;
    sh(
        &session,
        &format!("curl -sS -H \"Authorization: Bearer $TOKEN\" {}", server.url("api.test", "/hello.txt")),
    )
    .await;
    let answer = sh(&session, &format!("curl -sS {}", server.url("other.test", "/hello.txt"))).await;
    assert!(answer.contains("CONNECT tunnel failed, response 403"), "{answer}");
    // There is no other way: the server listens on this machine's loopback, which is not the sandbox's.
    let answer =
        sh(&session, &format!("curl -sSk --noproxy '*' https://127.0.0.1:{}/hello.txt", server.port)).await;
    assert!(answer.contains("Failed to connect"), "{answer}");
    let answer = sh(&session, "curl -sS --noproxy '*' https://api.test/").await;
    assert!(answer.contains("Could not resolve host"), "{answer}");

    let accesses = session.accesses();
    let lines: Vec<_> = accesses.iter().map(told).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    1 https api.test GET /cgi/echo.sh ["token"] allow
    1 https api.test GET /cgi/echo.sh [] allow
    3 connect evil.test [] deny (host)
    1 https api.test GET /hello.txt [] deny (secret_misplaced)
    1 connect other.test [] deny (address)
    "#);
    assert_eq!(session.accesses(), []);

    // The value is in no place that the sandbox sees, and in nothing that is recorded.
    let everywhere = sh(&session, "env; cat /proc/*/environ /proc/*/cmdline /tmp/* 2>/dev/null").await;
    assert!(everywhere.contains(&phantom) && !everywhere.contains(SECRET));
    let recorded =
        format!("{accesses:?}{}{:?}", serde_json::to_string(&session.state()).unwrap(), session.isolation());
    assert!(recorded.contains("token") && !recorded.contains(SECRET), "{recorded}");
    assert_eq!(
        session.isolation().unwrap().mechanisms["egress"],
        "allow-list of 3, by proxy; 2 places for secrets"
    );
    session.stop().await.unwrap();
}

#[tokio::test]
async fn git_in_a_sandbox_clones_with_a_credential_that_it_does_not_have() {
    let server = crate::git::with_repository().await;
    let state = tempfile::tempdir().unwrap();
    let client = client(&state, &server, Some(SECRET));
    let session = create(&client, brokered(&server)).await;
    let url = server.url("git.test", "/git/app.git");
    let helper = "!f() { echo username=agent; echo \"password=$TOKEN\"; }; f";
    let answer = sh(
        &session,
        &format!("git -c credential.helper='{helper}' clone -q {url} app && git -C app log --format=%s"),
    )
    .await;
    assert_eq!(answer, "first\n");
    assert!(session.accesses().iter().any(|access| access.secrets == ["token"]));
    session.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_that_comes_back_has_its_policy_and_another_phantom() {
    let server = Server::start().await;
    let state = tempfile::tempdir().unwrap();
    let first = client(&state, &server, Some(SECRET));
    let session = create(&first, brokered(&server)).await;
    let phantom = sh(&session, "echo $TOKEN").await;
    let known = first.resume(session.state()).await.unwrap();
    known.start().await.unwrap();
    assert_eq!(sh(&known, "echo $TOKEN").await, phantom, "it runs: it is the same");
    session.stop().await.unwrap();
    let saved: SessionState =
        serde_json::from_str(&serde_json::to_string(&session.state()).unwrap()).unwrap();
    drop((session, known, first));

    let second = client(&state, &server, Some(SECRET));
    let session = second.resume(saved.clone()).await.unwrap();
    session.start().await.unwrap();
    assert_ne!(sh(&session, "echo $TOKEN").await, phantom);
    let url = server.url("api.test", "/cgi/echo.sh");
    let answer = sh(&session, &format!("curl -sS {url} | grep METHOD; curl -sS https://evil.test/")).await;
    assert!(answer.starts_with("REQUEST_METHOD=GET\n") && answer.contains("403"), "{answer}");
    session.stop().await.unwrap();
    drop(session);

    let without = client(&state, &server, None);
    let error = without.resume(saved.clone()).await.unwrap_err();
    insta::assert_snapshot!(error, @"invalid request: the manifest names the secret 'token', and it is not configured on this machine; configure it (`moor` takes MOOR_SECRET_NAME, or [secrets] of config.toml), or remove it from the manifest");
    second.delete(&saved).await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_lives_on_knows_the_proxy_of_whichever_client_is_there() {
    let server = Server::start().await;
    let state = tempfile::tempdir().unwrap();
    let kept = state.path().join("kept");
    let lingering = || {
        let options = LocalOptions { linger: Some(SOON), ..LocalOptions::new(state.path()) };
        EgressClient::new(Arc::new(LocalSandboxClient::new(options)), operator(&server, Some(SECRET)))
            .keeping(&kept)
    };
    let first_client = lingering();
    let first = create(&first_client, brokered(&server)).await;
    let url = server.url("api.test", "/cgi/echo.sh");
    // It reads the certificates once, and goes on when the client that started it has gone.
    let program = format!(
        "import os, ssl, sys, time, urllib.request as u\ncontext = ssl.create_default_context()\n\
         open('up', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.02)\n\
         asked = u.Request('{url}', headers={{'Authorization': 'Bearer ' + os.environ['TOKEN']}})\n\
         said = u.build_opener(u.HTTPSHandler(context=context)).open(asked, timeout=20).read()\n\
         open('.said', 'wb').write(said); os.rename('.said', 'said')"
    );
    first.spawn(ExecRequest::argv(["/usr/bin/python3", "-c", &program])).await.unwrap();
    let wait = |file: &str| format!("for i in $(seq 500); do [ -e {file} ] && break; sleep 0.02; done");
    sh(&first, &wait("up")).await;
    let (phantom, state_of_it) = (sh(&first, "echo $TOKEN").await, first.state());
    first.leave().await;
    drop((first, first_client));

    let second_client = lingering();
    let second = second_client.resume(state_of_it).await.unwrap();
    second.start().await.unwrap();
    let said = sh(&second, &format!("touch go; {}; cat said; echo $TOKEN", wait("said"))).await;
    assert!(
        said.contains(&format!("HTTP_AUTHORIZATION=Bearer {phantom}")) && said.ends_with(&phantom),
        "{said}"
    );
    second.leave().await;
    let told: Vec<_> = second.accesses().iter().map(told).collect();
    assert_eq!(told, [r#"1 https api.test GET /cgi/echo.sh ["token"] allow"#]);

    let identity = kept.join("s1.egress");
    let text = std::fs::read_to_string(&identity).unwrap();
    assert!(text.contains(phantom.trim()) && !text.contains(SECRET));
    second_client.delete(&second.state()).await.unwrap();
    assert!(!identity.exists());
}

#[tokio::test]
async fn a_connection_that_is_open_when_its_client_leaves_is_cut_and_told() {
    let server = Server::start().await;
    let state = tempfile::tempdir().unwrap();
    let client = client(&state, &server, Some(SECRET));
    let session = create(&client, brokered(&server)).await;
    let open = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT api.test:{0} HTTP/1.1\\r\\nHost: api.test:{0}\\r\\n\\r\\n' >&3; \
         head -n 1 <&3; touch up; cat <&3; touch cut",
        server.port
    );
    session.spawn(ExecRequest::argv(["/bin/bash", "-c", &open])).await.unwrap();
    sh(&session, "for i in $(seq 500); do [ -e up ] && break; sleep 0.02; done").await;
    session.leave().await;
    let accesses = session.accesses();
    let told = accesses.iter().map(|access| (access.decision.as_str(), access.reason.as_deref()));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [("fail", Some("the process that carried it has left the sandbox"))]
    );
    let seen = sh(&session, "for i in $(seq 500); do [ -e cut ] && break; sleep 0.02; done; ls cut").await;
    assert_eq!(seen, "cut\n");
    session.stop().await.unwrap();
}

#[tokio::test]
async fn without_an_allow_list_nothing_listens_and_nothing_is_told() {
    let server = Server::start().await;
    for extension in [json!({}), json!({ "network": "deny" })] {
        let state = tempfile::tempdir().unwrap();
        let client = client(&state, &server, None);
        let session = create(&client, manifest(&extension)).await;
        assert_eq!(sh(&session, "env | grep -ci proxy; ls /tmp").await, "0\n");
        let answer = sh(&session, "curl -sS --proxy http://127.0.0.1:3128 http://evil.test/").await;
        assert!(answer.contains("Failed to connect to 127.0.0.1 port 3128"), "{answer}");
        assert!(!session.state().data.as_object().unwrap().contains_key("egress"));
        session.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_secret_that_is_not_configured_stops_the_session_before_it_is_made() {
    let server = Server::start().await;
    let state = tempfile::tempdir().unwrap();
    let client = client(&state, &server, None);
    let request = CreateRequest { session_id: "s1".into(), manifest: brokered(&server), workspace: None };
    let error = client.create(request).await.unwrap_err();
    assert!(
        matches!(&error, SandboxError::Invalid { reason } if reason.contains("the secret 'token'")),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn without_isolation_there_is_no_way_out_that_is_the_only_one() {
    let server = Server::start().await;
    let state = tempfile::tempdir().unwrap();
    let mut options = LocalOptions::new(state.path());
    options.isolation = mooring_sandbox_local::IsolationLevel::None;
    let local = Arc::new(LocalSandboxClient::new(options));
    let client = EgressClient::new(local, Operator::new(Arc::new(|_| Some(SecretValue::new(SECRET)))));
    assert!(!client.support().network.allow && !client.support().secrets);
    let request = CreateRequest { session_id: "s1".into(), manifest: brokered(&server), workspace: None };
    let error = client.create(request).await.unwrap_err();
    insta::assert_snapshot!(error, @"not supported: network access on the local sandbox: its sandboxes have other ways out, which an allow-list would not close; use isolation");
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
}
