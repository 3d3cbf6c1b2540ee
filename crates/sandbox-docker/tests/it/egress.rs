//! An allow-list, kept by the proxy outside: a container has no other way out.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use mooring_egress::{EgressClient, HostPattern, Operator};
use mooring_manifest::Manifest;
use mooring_sandbox::{CreateRequest, SandboxClient as _};

use mooring_testkit::PYTHON;

use crate::engine::{Bench, out, request, sh};

/// A server that answers each request alike. Gives its port.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nserved");
        }
    });
    port
}

#[tokio::test]
async fn what_is_allowed_is_reached_through_the_proxy_and_nothing_else() {
    let Some(bench) = Bench::new(|options| options.image = Some(PYTHON.into())).await else { return };
    let port = server();
    let mut operator = Operator::new(Arc::new(|_: &str| None));
    operator.private.push(HostPattern::parse("localhost").unwrap());
    let client = EgressClient::new(Arc::new(bench.client), operator);
    let manifest = format!(
        r#"{{"x-mooring": {{"network": {{"allow": [{{"host": "localhost", "ports": [{port}]}}]}}}}}}"#
    );
    let manifest = Manifest::from_json(&manifest).unwrap();
    let session = client.create(CreateRequest { manifest, ..request() }).await.unwrap();
    session.start().await.unwrap();
    let get = |proxy: &str, url: &str| {
        format!(
            "no_proxy= NO_PROXY= http_proxy={proxy} python3 -c \"import urllib.request as u; print(u.urlopen('{url}', timeout=10).read())\""
        )
    };
    let proxy = "http://127.0.0.1:3128";
    assert_eq!(out(session.as_ref(), &get(proxy, &format!("http://localhost:{port}/"))).await, "b'served'\n");
    let other = sh(session.as_ref(), &get(proxy, "http://example.com/")).await;
    assert!(other.stderr.text().contains("403"), "{other:?}");
    // Busybox's client too, as the environment of every command tells it.
    let wget = |url: &str| format!("no_proxy= NO_PROXY= wget -q -O - {url}");
    assert_eq!(out(session.as_ref(), &wget(&format!("http://localhost:{port}/"))).await, "served");
    let other = sh(session.as_ref(), &wget("http://example.com/")).await;
    assert!(other.stderr.text().contains("403"), "{other:?}");
    let told: Vec<String> = session
        .accesses()
        .iter()
        .map(|access| format!("{} {} {}", access.count, access.host, access.decision))
        .collect();
    assert_eq!(told, ["2 localhost allow", "2 example.com deny"]);
    // Around the proxy there is nothing.
    let around = sh(session.as_ref(), &get("", &format!("http://127.0.0.1:{port}/"))).await;
    assert!(around.stderr.text().contains("Connection refused"), "{around:?}");
    assert_eq!(out(session.as_ref(), "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await, "lo\n");
    client.delete(&session.state()).await.unwrap();
}

#[tokio::test]
async fn an_unrestricted_network_is_the_engines_own() {
    let Some(bench) = Bench::new(|_| {}).await else { return };
    let client = EgressClient::new(Arc::new(bench.client), Operator::new(Arc::new(|_: &str| None)));
    let manifest = Manifest::from_json(r#"{"x-mooring": {"network": "unrestricted"}}"#).unwrap();
    let session = client.create(CreateRequest { manifest, ..request() }).await.unwrap();
    session.start().await.unwrap();
    let interfaces = out(session.as_ref(), "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort").await;
    assert_eq!(interfaces, "eth0\nlo\n");
    client.delete(&session.state()).await.unwrap();
}
