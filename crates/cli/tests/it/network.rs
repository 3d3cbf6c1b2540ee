//! A run whose sandbox has a way out: what its manifest allows, with a secret that it never sees, and the record of it.

use std::io::BufRead as _;
use std::process::Command;

use mooring_testkit::{PYTHON, docker};

use crate::moor::{Moor, Ran, exec, say};
use crate::tls::TlsServer;

pub(crate) const VALUE: &str = "the-value-that-no-sandbox-sees";

/// Python's own HTTPS server: answers with the authorization that it got.
pub(crate) const SERVER: &str = "import http.server, ssl, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ('got ' + self.headers.get('Authorization', 'nothing') + '\\n').encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print(body.decode(), end='', flush=True)
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Echo)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";

fn agent(port: u16) -> String {
    format!(
        "name = \"caller\"\nmodel = \"script:caller.jsonl\"\n\
         [manifest.x-mooring.network]\nallow = [{{ host = \"localhost\", ports = [{port}] }}]\n\
         [manifest.x-mooring.secrets.api-key]\nenv = \"API_KEY\"\n\
         inject = [{{ host = \"localhost\", port = {port} }}]\n"
    )
}

#[test]
fn a_run_uses_a_secret_that_neither_its_sandbox_nor_its_journal_has() {
    // `localhost` is what the test has a name for; a program would not use the proxy for it by itself.
    let call = "curl -sS --noproxy '' -H \"Authorization: Bearer $API_KEY\" https://localhost:PORT/v1; \
                curl -sS https://evil.test/; curl -sS https://evil.test/";
    uses_a_secret("", call, |_| {});
}

#[test]
fn a_run_in_a_container_uses_a_secret_that_neither_has() {
    let Some(socket) = docker() else { return };
    let call = "export no_proxy= NO_PROXY=; python3 -c \"import os, urllib.request as u
print(u.urlopen(u.Request('https://localhost:PORT/v1', headers={'Authorization': 'Bearer ' + os.environ['API_KEY']})).read())\"
for i in 1 2; do python3 -c \"import urllib.request as u; u.urlopen('https://evil.test/')\"; done";
    let sandbox = format!("[sandbox]\nbackend = \"docker\"\nimage = \"{PYTHON}\"\n");
    let ran = uses_a_secret(&sandbox, call, |command| {
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    });
    crate::docker::remove_volumes(&ran.out);
}

/// A run whose agent makes this call in such a sandbox.
fn uses_a_secret(sandbox: &str, call: &str, change: impl Fn(&mut Command)) -> Ran {
    let moor = Moor::new();
    let mut server = TlsServer::start(&moor, |command, both| {
        command.args(["-c", SERVER]).arg(both);
    });
    let port = server.port;
    moor.write("caller.toml", &(agent(port) + sandbox));
    let call = call.replace("PORT", &port.to_string());
    moor.write("caller.jsonl", &(exec(0, &[&call]) + &say("called")));
    moor.write("home/config.toml", "[network]\nprivate = [\"localhost\"]\n");
    let mut command = moor.command(&["run", "--agent", "caller.toml", "call"]);
    command.env("MOOR_SECRET_API_KEY", VALUE).env("SSL_CERT_FILE", moor.path("authority.pem"));
    change(&mut command);
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(
        (ran.code, ran.last()["output"].as_str()),
        (Some(0), Some("called")),
        "{}\n{}",
        ran.out,
        ran.err
    );

    let output = ran.json().into_iter().find(|event| event["type"] == "tool_completed").unwrap();
    assert!(output["output"]["output"].as_str().unwrap().contains("got Bearer phantom_"), "{output}");
    let mut got = String::new();
    server.lines.read_line(&mut got).unwrap();
    assert_eq!(got, format!("got Bearer {VALUE}\n"));
    assert!(!ran.out.contains(VALUE) && !ran.err.contains(VALUE));
    assert_eq!(moor.events(&ran.run()), ran.json(), "what was shown is what the journal holds");

    let told: Vec<_> = ran
        .json()
        .into_iter()
        .filter(|event| event["type"] == "egress")
        .map(|event| {
            format!(
                "{} {} {} {} {} {}",
                event["count"],
                event["protocol"],
                event["host"],
                event["decision"],
                event["code"],
                event["secrets"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"1 "https" "localhost" "allow" null ["api-key"]"#,
            r#"2 "connect" "evil.test" "deny" "host" null"#,
        ]
    );
    let shown = moor.run(&["show", &ran.run()]).out;
    let network: Vec<_> = shown.lines().filter(|line| line.contains("network ")).collect();
    assert_eq!(
        network,
        [
            "  network allow GET localhost /v1  · with api-key",
            "  network refused evil.test 2 times  · evil.test is not on this sandbox's network allow-list",
        ]
    );
    let holds = |path: &std::path::Path| {
        let found = Command::new("grep").args(["-rqaF", VALUE]).arg(path).status().unwrap();
        found.success()
    };
    assert!(!holds(&moor.home()));
    ran
}

#[test]
fn a_secret_that_is_not_configured_fails_the_run_and_says_what_to_do() {
    let moor = Moor::new();
    moor.write("caller.toml", &agent(443));
    moor.write("caller.jsonl", &say("never"));
    let ran = moor.run(&["run", "--agent", "caller.toml", "call"]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    let message = ran.last()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("names the secret 'api-key', and it is not configured on this machine"),
        "{message}"
    );
}
