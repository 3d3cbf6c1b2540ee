//! Bounds: on what is open at once, on how long, and on how much is read before anything is known.

use std::time::Duration;

use mooring_egress::{Limits, Policy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Capture, LONG, allow, line, proxy_with, rule};

const SILENT: &[u8] = b"";

async fn closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match timeout(LONG, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_cut_and_recorded() {
    let server = Capture::start(SILENT).await;
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    let proxy = proxy_with(allow(vec![rule("files.test", server.port)]), limits, "").await;
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    let here = format!("files.test:{}", server.port);
    stream
        .write_all(format!("GET http://{here}/ HTTP/1.1\r\nHost: {here}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert!(closed(&mut stream).await);
    assert_eq!(
        proxy.record().await,
        "http files.test GET / failed: nothing moved on the connection for too long"
    );
}

#[tokio::test]
async fn no_connection_lives_longer_than_one_may() {
    let server = Capture::start(SILENT).await;
    let limits = Limits { total: Duration::from_millis(100), ..Limits::default() };
    let proxy = proxy_with(allow(vec![rule("files.test", server.port)]), limits, "").await;
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    let here = format!("files.test:{}", server.port);
    stream.write_all(format!("CONNECT {here} HTTP/1.1\r\nHost: {here}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(closed(&mut stream).await);
    assert_eq!(
        proxy.record().await,
        "connect files.test failed: the connection was open for longer than one may be"
    );
}

#[tokio::test]
async fn a_client_that_does_not_go_on_is_cut() {
    let server = Capture::start(SILENT).await;
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    let proxy = proxy_with(allow(vec![rule("files.test", server.port)]), limits, "").await;
    let here = format!("files.test:{}", server.port);
    let tunnel = format!("CONNECT {here} HTTP/1.1\r\nHost: {here}\r\n\r\n");
    let hello = format!("{tunnel}\x16\x03\x01\x02\0");
    for begun in ["", "\x05", "\x05\x01", "GET http://files", &tunnel, &hello] {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        assert!(closed(&mut stream).await, "{begun:?}");
    }
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let proxy = proxy_with(Policy::default(), limits, "").await;
    let mut first = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    first.write_all(b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n").await.unwrap();
    first.read_u8().await.unwrap();
    let mut second = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    assert!(closed(&mut second).await);
    let records = proxy.records(2).await;
    assert_eq!(
        line(&records[1]),
        "unknown  denied (too_many): this sandbox has 1 connections open, which is the most it may have: close some first"
    );
    // A place becomes free with its connection.
    drop(first);
    let served = async {
        loop {
            let answer = proxy.raw(b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", 1).await;
            if answer.starts_with("HTTP/1.1 403") {
                break;
            }
        }
    };
    timeout(LONG, served).await.unwrap();
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let limits = Limits { head_bytes: 8192, ..Limits::default() };
    let proxy = proxy_with(Policy::default(), limits, "").await;
    let request =
        format!("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let answer = proxy.raw(request.as_bytes(), 1).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(proxy.record().await.contains("denied (malformed)"));
}
