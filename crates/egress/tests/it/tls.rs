//! TLS that passes unread: the name in its hello must be the tunnel's. Clients are curl and OpenSSL.

use crate::support::{Server, allow, finish, line, proxy, rule, run};
use tokio::process::Command;

#[tokio::test]
async fn tls_to_a_host_without_secrets_passes_unread() {
    let server = Server::start().await;
    let proxy = proxy(allow(vec![rule("api.test", server.port)])).await;
    let root = server.dir.path().join("root.pem");
    std::fs::write(&root, &server.root).unwrap();
    let root = root.to_str().unwrap();
    // curl trusts the server's own authority alone, so nobody stands between.
    let output = proxy.curl(&["--cacert", root, &server.url("api.test", "/hello.txt")]).await;
    assert_eq!(output.out, "hello\n", "{output:?}");
    let socks = format!("socks5h://127.0.0.1:{}", proxy.port);
    let output =
        proxy.curl(&["--proxy", &socks, "--cacert", root, &server.url("api.test", "/hello.txt")]).await;
    assert_eq!(output.out, "hello\n", "{output:?}");
    let records = proxy.records(2).await;
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_eq!(lines, ["connect api.test allowed", "socks5 api.test allowed"]);
    assert!(records.iter().all(|record| record.bytes_up > 300 && record.bytes_down > 500), "{records:?}");
}

/// The server serves three names. The allow-list has one of them.
#[tokio::test]
async fn another_name_in_the_hello_than_in_the_tunnel_is_refused() {
    let server = Server::start().await;
    let proxy = proxy(allow(vec![rule("api.test", server.port), rule("127.0.0.1", server.port)])).await;
    let through = format!("127.0.0.1:{}", proxy.port);
    let mut codes = Vec::new();
    for (tunnel, name) in [
        ("api.test", &["-servername", "api.test"][..]),
        ("api.test", &["-servername", "API.test"]),
        ("api.test", &["-servername", "other.test"]),
        ("api.test", &["-servername", "api.test.evil.test"]),
        ("api.test", &["-noservername"]),
        ("127.0.0.1", &["-noservername"]),
        ("127.0.0.1", &["-servername", "other.test"]),
    ] {
        let connect = format!("{tunnel}:{}", server.port);
        let mut arguments = vec!["s_client", "-proxy", &through, "-connect", &connect];
        arguments.extend(name);
        codes.push(run("openssl", &arguments).await.code);
    }
    assert_eq!(codes, [Some(0), Some(0), Some(1), Some(1), Some(1), Some(0), Some(1)]);
    let records = proxy.records(7).await;
    let records: Vec<_> =
        records.iter().map(|record| line(record).replace(&server.port.to_string(), "PORT")).collect();
    insta::assert_snapshot!(records.join("\n"));
}

/// A hello that hides a name shows a false one: that of the server's front, which may be allowed.
#[tokio::test]
async fn a_hidden_server_name_is_refused() {
    let server = Server::start().await;
    let proxy = proxy(allow(vec![rule("api.test", server.port)])).await;
    // OpenSSL cannot do it, so its hello is given one.
    let hello = client_hello("api.test").await;
    let here = format!("api.test:{}", server.port);
    let tunnel = format!("CONNECT {here} HTTP/1.1\r\nHost: {here}\r\n\r\n").into_bytes();
    let shown = proxy.raw_until(&[&tunnel[..], &hello].concat(), |text| text.len() > 500).await;
    assert!(shown.len() > 500, "the server answers a hello that hides nothing: {shown}");
    let hidden = proxy.raw(&[&tunnel[..], &with_hidden_name(&hello)].concat(), 2).await;
    assert!(hidden.ends_with("\r\n\r\n"), "nothing but the tunnel's own answer: {hidden}");
    let lines: Vec<_> = proxy.records(2).await.iter().map(line).collect();
    assert!(
        lines[1].contains("denied (server_name)") && lines[1].contains("encrypted client hello"),
        "{lines:?}"
    );
}

/// The first bytes that OpenSSL sends.
async fn client_hello(name: &str) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = tokio::spawn({
        let name = name.to_owned();
        async move {
            finish(Command::new("openssl").args(["s_client", "-connect", &address, "-servername", &name]))
                .await
        }
    });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut header = [0; 5];
    stream.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut body).await.unwrap();
    drop(stream);
    client.await.unwrap();
    [&header[..], &body].concat()
}

/// The same hello with an encrypted one in an extension at its end.
fn with_hidden_name(hello: &[u8]) -> Vec<u8> {
    // Outer; the cipher; which key; an encapsulated key and a payload that nobody will open.
    let extension = [0xfe, 0x0d, 0, 12, 0, 0, 1, 0, 1, 7, 0, 1, 0xff, 0, 1, 0xff];
    let mut hello = hello.to_vec();
    let mut at = 5 + 4 + 34;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    hello.extend_from_slice(&extension);
    // Lengths of the extensions, of the message and of the record.
    for place in [at, 7, 3] {
        let length = u16::from_be_bytes([hello[place], hello[place + 1]]) + extension.len() as u16;
        hello[place..place + 2].copy_from_slice(&length.to_be_bytes());
    }
    hello
}
