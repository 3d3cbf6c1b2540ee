//! Plain HTTP through the proxy: what is allowed, and what requests are made of that try to be two things.

use mooring_egress::{Method, PathPattern, Policy};

use crate::support::{Capture, allow, line, proxy, rule};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";

#[tokio::test]
async fn an_allowed_host_is_reached_with_a_request_written_anew() {
    let server = Capture::start(OK).await;
    let proxy = proxy(allow(vec![rule("*.files.test", server.port)])).await;
    let url = format!("http://A.files.test.:{}/x?y=z", server.port);
    let output =
        proxy.curl(&["-H", "Proxy-Authorization: x", "-H", "Accept:", "-H", "User-Agent: t", &url]).await;
    assert_eq!((output.code, output.out.as_str()), (Some(0), "ok\n"), "{output:?}");
    assert_eq!(proxy.record().await, "http a.files.test GET /x allowed");
    let record = &proxy.records(1).await[0];
    assert_eq!((record.port, record.bytes_up, record.bytes_down), (server.port, 0, 3));
    let expected =
        format!("GET /x?y=z HTTP/1.1\r\nhost: a.files.test:{}\r\nuser-agent: t\r\n\r\n", server.port);
    assert_eq!(server.seen(), [expected]);
}

#[tokio::test]
async fn nothing_is_allowed_by_default_and_a_refused_name_is_never_looked_up() {
    let proxy = proxy(Policy::default()).await;
    let output = proxy.curl(&["http://a-secret-in-a-name.evil.test/"]).await;
    insta::assert_snapshot!(output.out, @"mooring egress: a-secret-in-a-name.evil.test is not on this sandbox's network allow-list");
    let output = proxy.curl(&["-v", "https://a-secret-in-a-name.evil.test/"]).await;
    assert!(output.err.contains("HTTP/1.1 403 Forbidden"), "{output:?}");
    assert!(output.err.contains("proxy-status: mooring; error=http_request_denied"), "{output:?}");
    let output =
        proxy.curl(&["--proxy", &format!("socks5h://127.0.0.1:{}", proxy.port), "http://evil.test/"]).await;
    assert_eq!(output.code, Some(97), "{output:?}");
    let records: Vec<_> = proxy.records(3).await.iter().map(line).collect();
    assert_eq!(
        records,
        [
            "http a-secret-in-a-name.evil.test GET / denied (host): a-secret-in-a-name.evil.test is not on this \
             sandbox's network allow-list",
            "connect a-secret-in-a-name.evil.test denied (host): a-secret-in-a-name.evil.test is not on this sandbox's \
             network allow-list",
            "socks5 evil.test denied (host): evil.test is not on this sandbox's network allow-list",
        ]
    );
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_rule_holds_for_its_ports_methods_and_paths_alone() {
    let server = Capture::start(OK).await;
    let mut only = rule("files.test", server.port);
    only.methods = vec![Method::GET];
    only.paths = vec![PathPattern::parse("/pub/*").unwrap(), PathPattern::parse("/index").unwrap()];
    let proxy = proxy(allow(vec![only])).await;
    let mut seen = Vec::new();
    for (method, path) in [
        ("GET", "/pub/a"),
        ("GET", "/index"),
        ("GET", "/index?x=/pub/"),
        ("POST", "/pub/a"),
        ("GET", "/private"),
        ("GET", "/index/"),
        ("GET", "/pub/../private"),
        ("GET", "/pub/%2e%2E/private"),
        ("GET", "/pub/..%2fprivate"),
        ("GET", "/pub//x"),
        ("GET", "/pub/..;/private"),
    ] {
        let url = format!("http://files.test:{}{path}", server.port);
        let output =
            proxy.curl(&["--path-as-is", "-X", method, "-o", "/dev/null", "-w", "%{http_code}", &url]).await;
        seen.push(format!("{method} {path} {}", output.out));
    }
    assert_eq!(
        seen,
        [
            "GET /pub/a 200",
            "GET /index 200",
            "GET /index?x=/pub/ 200",
            "POST /pub/a 403",
            "GET /private 403",
            "GET /index/ 403",
            "GET /pub/../private 403",
            "GET /pub/%2e%2E/private 403",
            "GET /pub/..%2fprivate 403",
            "GET /pub//x 403",
            "GET /pub/..;/private 403",
        ]
    );
    assert_eq!(server.seen().len(), 3);
    let output = proxy.curl(&["http://files.test/"]).await;
    assert_eq!(
        output.out,
        "mooring egress: files.test:80 is not allowed: the network allow-list has this host with other ports\n"
    );
}

/// Each of these was sent by someone, somewhere, to get past a proxy.
#[tokio::test]
async fn a_request_that_names_two_hosts_or_none_is_refused() {
    let server = Capture::start(OK).await;
    let port = server.port;
    let proxy = proxy(allow(vec![rule("files.test", port)])).await;
    let here = format!("files.test:{port}");
    let cases = [
        ("another Host", format!("GET http://{here}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")),
        ("another port in Host", format!("GET http://{here}/ HTTP/1.1\r\nHost: files.test:1\r\n\r\n")),
        ("two Hosts", format!("GET http://{here}/ HTTP/1.1\r\nHost: {here}\r\nHost: {here}\r\n\r\n")),
        ("no Host", format!("GET http://{here}/ HTTP/1.1\r\n\r\n")),
        ("a user name", format!("GET http://{here}@evil.test/ HTTP/1.1\r\nHost: {here}\r\n\r\n")),
        ("a null byte", format!("GET http://evil.test\0.{here}/ HTTP/1.1\r\nHost: {here}\r\n\r\n")),
        ("an encoded dot", format!("GET http://files%2etest:{port}/ HTTP/1.1\r\nHost: {here}\r\n\r\n")),
        ("no proxy request", format!("GET / HTTP/1.1\r\nHost: {here}\r\n\r\n")),
        ("HTTPS without CONNECT", format!("GET https://{here}/ HTTP/1.1\r\nHost: {here}\r\n\r\n")),
        ("another scheme", format!("GET ftp://{here}/ HTTP/1.1\r\nHost: {here}\r\n\r\n")),
        ("a space before the colon", format!("GET http://{here}/ HTTP/1.1\r\nHost : {here}\r\n\r\n")),
        ("a folded header", format!("GET http://{here}/ HTTP/1.1\r\nHost: {here}\r\nX: a\r\n b\r\n\r\n")),
        (
            "two lengths",
            format!(
                "POST http://{here}/ HTTP/1.1\r\nHost: {here}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
            ),
        ),
        (
            "an odd coding",
            format!(
                "POST http://{here}/ HTTP/1.1\r\nHost: {here}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        ("CONNECT without a port", "CONNECT files.test HTTP/1.1\r\nHost: files.test\r\n\r\n".to_owned()),
        ("CONNECT with another Host", format!("CONNECT {here} HTTP/1.1\r\nHost: evil.test\r\n\r\n")),
        ("CONNECT to a user name", format!("CONNECT a@{here} HTTP/1.1\r\nHost: {here}\r\n\r\n")),
    ];
    let count = cases.len();
    let mut answers = Vec::new();
    for (what, request) in cases {
        let answer = proxy.raw(request.as_bytes(), 1).await;
        answers.push(format!("{what}: {}", answer.lines().next().unwrap_or("closed")));
    }
    insta::assert_snapshot!(answers.join("\n"));
    let records = proxy.records(count).await;
    let denied: Vec<_> =
        records.iter().map(|record| line(record).replace(&port.to_string(), "PORT")).collect();
    insta::assert_snapshot!(denied.join("\n"));
    assert_eq!(server.seen(), Vec::<String>::new());
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_second_request_cannot_be_smuggled_in_the_first() {
    let server = Capture::start(OK).await;
    let here = format!("files.test:{}", server.port);
    let proxy = proxy(allow(vec![rule("files.test", server.port)])).await;
    // One reads the length, and sees `GET /admin` as body; the other the chunks, and sees it as a request.
    let smuggled = "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n";
    for order in [
        "Content-Length: {n}\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: {n}",
    ] {
        let framing = order.replace("{n}", &smuggled.len().to_string());
        let request = format!("POST http://{here}/ HTTP/1.1\r\nHost: {here}\r\n{framing}\r\n\r\n{smuggled}");
        proxy.raw(request.as_bytes(), 1).await;
    }
    let expected = format!("POST / HTTP/1.1\r\nhost: {here}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(server.seen(), [expected.clone(), expected]);
}

#[tokio::test]
async fn a_header_named_in_connection_is_for_the_proxy_alone() {
    let server = Capture::start(OK).await;
    let here = format!("files.test:{}", server.port);
    let proxy = proxy(allow(vec![rule("files.test", server.port)])).await;
    let request = format!(
        "GET http://{here}/ HTTP/1.1\r\nHost: {here}\r\nConnection: close, x-hop, host\r\nX-Hop: 1\r\nX-End: 2\r\n\
         Upgrade: h2c\r\nTE: trailers\r\n\r\n"
    );
    proxy.raw(request.as_bytes(), 1).await;
    assert_eq!(server.seen(), [format!("GET / HTTP/1.1\r\nhost: {here}\r\nx-end: 2\r\n\r\n")]);
}

#[tokio::test]
async fn a_tunnel_to_an_allowed_host_is_no_way_to_others() {
    let server = Capture::start(OK).await;
    let port = server.port;
    let here = format!("files.test:{port}");
    let proxy = proxy(allow(vec![rule("files.test", port)])).await;
    let tunnel = format!("CONNECT {here} HTTP/1.1\r\nHost: {here}\r\n\r\n");
    for inside in [
        "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n".to_owned(),
        "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(),
        "\x05\x01\x00".to_owned(),
        "\0anything".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {here}\r\nConnection: close\r\n\r\n"),
    ] {
        proxy.raw(format!("{tunnel}{inside}").as_bytes(), 2).await;
    }
    let records = proxy.records(6).await;
    let inner: Vec<_> =
        records.iter().map(|record| line(record).replace(&port.to_string(), "PORT")).collect();
    insta::assert_snapshot!(inner.join("\n"));
    assert_eq!(server.seen().iter().filter(|seen| !seen.is_empty()).count(), 1);
}

#[tokio::test]
async fn a_name_must_not_lead_where_a_sandbox_must_not_go() {
    let server = Capture::start(OK).await;
    let named = rule("[::ffff:127.0.0.1]", server.port);
    let rules = vec![
        rule("public.test", server.port),
        rule("rebound.test", server.port),
        rule("nowhere.test", server.port),
        named,
    ];
    let mut policy = allow(rules);
    policy.private.retain(|pattern| pattern.to_string() != "public.test");
    let proxy = proxy(policy).await;
    for host in ["public.test", "rebound.test", "nowhere.test", "127.0.0.1", "169.254.169.254"] {
        proxy.curl(&["--noproxy", "", &format!("http://{host}:{}/", server.port)]).await;
    }
    let records = proxy.records(5).await;
    let records: Vec<_> =
        records.iter().map(|record| line(record).replace(&server.port.to_string(), "PORT")).collect();
    insta::assert_snapshot!(records.join("\n"));
}

#[tokio::test]
async fn unrestricted_reaches_any_name_and_still_no_private_address() {
    let server = Capture::start(OK).await;
    let mut policy = allow(vec![rule("files.test", server.port)]);
    policy.unrestricted = true;
    let proxy = proxy(policy).await;
    let there = proxy.curl(&[&format!("http://files.test:{}/", server.port)]).await;
    let inside = proxy.curl(&[&format!("http://other.test:{}/", server.port)]).await;
    assert_eq!(there.out, "ok\n");
    assert!(inside.out.contains("leads to an address that is private"), "{inside:?}");
    // Any bytes pass in a tunnel.
    let here = format!("files.test:{}", server.port);
    let answer = proxy
        .raw(format!("CONNECT {here} HTTP/1.1\r\nHost: {here}\r\n\r\n\0\x01any\r\n\r\n").as_bytes(), 2)
        .await;
    assert!(answer.contains("200 OK"), "{answer}");
}
