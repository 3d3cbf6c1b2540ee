//! SOCKS 5, spoken by curl and, where a client has to misbehave, by hand.

use crate::support::{Capture, allow, line, proxy, rule};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";

#[tokio::test]
async fn a_name_by_socks_is_looked_up_outside_and_its_requests_are_read() {
    let server = Capture::start(OK).await;
    let proxy = proxy(allow(vec![rule("files.test", server.port)])).await;
    let socks = format!("socks5h://127.0.0.1:{}", proxy.port);
    let output = proxy.curl(&["--proxy", &socks, &format!("http://files.test:{}/x", server.port)]).await;
    assert_eq!(output.out, "ok\n", "{output:?}");
    assert_eq!(proxy.record().await, "http files.test GET /x allowed");
    assert_eq!(proxy.asked(), ["files.test"]);
}

fn request(command: u8, name: &[u8], port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 5, command, 0, 3, name.len() as u8];
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

/// The null byte is how an allow-list of another agent was got around for months: the check read the name to its end,
/// the resolver to the null.
#[tokio::test]
async fn a_name_that_two_parsers_could_read_differently_is_refused() {
    let server = Capture::start(OK).await;
    let port = server.port;
    let proxy = proxy(allow(vec![rule("*.files.test", port)])).await;
    let mut requests: Vec<Vec<u8>> = [
        &b"evil.test\0.files.test"[..],
        b"evil.test\n.files.test",
        b"evil.test%00.files.test",
        b"evil.test#.files.test",
        b"evil.test/.files.test",
        b"a.files.test:80",
        b"a@b.files.test",
        "\u{ff41}.files.test".as_bytes(),
        b"\xff.files.test",
        b"2130706433",
        b"",
    ]
    .iter()
    .map(|name| request(1, name, port))
    .collect();
    let bind = request(2, b"a.files.test", port);
    let udp = request(3, b"a.files.test", port);
    let kind = vec![5, 1, 0, 5, 1, 0, 9, 0, 0];
    let authentication = vec![5, 1, 2];
    requests.extend([bind, udp, request(1, b"a.files.test", 0), kind, authentication]);
    let count = requests.len();
    let mut replies = Vec::new();
    for request in requests {
        let reply = proxy.raw(&request, 1).await;
        replies.push(reply.as_bytes().get(3).copied());
    }
    let mut expected = vec![Some(2); 11];
    // The last answer is two bytes: no method that both know.
    expected.extend([Some(7), Some(7), Some(2), Some(8)]);
    assert_eq!(replies.get(..count - 1), Some(&expected[..]));
    let records = proxy.records(count).await;
    let records: Vec<_> = records.iter().map(line).collect();
    insta::assert_snapshot!(records.join("\n"));
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn an_address_by_socks_needs_a_rule_of_its_own() {
    let server = Capture::start(OK).await;
    let proxy = proxy(allow(vec![rule("files.test", server.port)])).await;
    let mut bytes = vec![5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1];
    bytes.extend_from_slice(&server.port.to_be_bytes());
    let reply = proxy.raw(&bytes, 1).await;
    assert_eq!(reply.as_bytes().get(3), Some(&2));
    assert_eq!(
        proxy.record().await,
        "socks5 127.0.0.1 denied (host): 127.0.0.1 is not on this sandbox's network allow-list"
    );
}
