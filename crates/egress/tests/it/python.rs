//! Python's requests, by HTTP and by SOCKS, as an agent's script uses it: told by the environment alone.

use std::path::Path;

use mooring_egress::environment;
use tokio::process::Command;

use crate::support::{SECRET, Server, allow, binding, finish, line, proxy_with, rule};

const SCRIPT: &str = "import os, requests
reply = requests.get(os.environ['URL'], headers={'Authorization': 'Bearer ' + os.environ['TOKEN']})
print(reply.status_code, reply.headers['X-Echo'])
if 'SOCKS' in os.environ:
    reply = requests.get(os.environ['URL'], proxies={'https': os.environ['SOCKS']},
                         headers={'Authorization': 'Bearer ' + os.environ['TOKEN']})
    print(reply.status_code, reply.headers['X-Echo'])
try:
    requests.get('https://evil.test/')
except requests.exceptions.ProxyError as error:
    print('403' in str(error))
";

#[tokio::test]
async fn requests_finds_the_proxy_and_trusts_it() {
    let server = Server::start().await;
    let mut policy = allow(vec![rule("api.test", server.port)]);
    policy.secrets = vec![binding("api.test", server.port)];
    let proxy = proxy_with(policy, mooring_egress::Limits::default(), &server.root).await;
    let phantom = proxy.phantom("token");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/counterparts/venv/bin/python");
    let mut command = Command::new(python);
    command
        .args(["-c", SCRIPT])
        .env_clear()
        .envs(environment(&proxy.address(), proxy.bundle.to_str()))
        .env("URL", server.url("api.test", "/cgi/echo.sh"))
        .env("TOKEN", &phantom)
        .env("SOCKS", format!("socks5h://127.0.0.1:{}", proxy.port));
    let output = finish(&mut command).await;
    let echo = format!("200 Bearer {phantom}\n");
    assert_eq!(output.out, format!("{echo}{echo}True\n"), "{output:?}");
    let records = proxy.records(3).await;
    let https: Vec<_> = records.iter().map(line).filter(|line| line.starts_with("https")).collect();
    assert_eq!(https, ["https api.test GET /cgi/echo.sh [token] allowed"; 2]);
    assert!(!format!("{records:?}").contains(SECRET));
}
