//! The front: finds out what a client speaks, and serves it. A connection is one task; ending it ends all it opened.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::body::{self, AnyBody};
use crate::connection::Connection;
use crate::forward::{Lane, answer};
use crate::host::Target;
use crate::record::{Protocol, Refusal, Stop};
use crate::socks::{self, Asked, Reply};
use crate::stream::Peeked;
use crate::tunnel::Tunnel;

/// Serves one client to its end.
pub(crate) async fn serve(connection: &Arc<Connection>, mut client: Peeked) {
    let head = connection.shared.limits.head;
    match timeout(head, client.look_for(1)).await {
        Ok(Ok(())) => {}
        // Nothing was asked for.
        Ok(Err(_)) | Err(_) => return,
    }
    if client.ahead().first() == Some(&socks::VERSION) {
        serve_socks(connection, client).await;
    } else {
        serve_http(connection, client).await;
    }
}

async fn serve_socks(connection: &Arc<Connection>, mut client: Peeked) {
    let mut entry = connection.entry(Protocol::Socks5);
    let asked = match timeout(connection.shared.limits.head, socks::read(&mut client)).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => return entry.stop(Stop::Failed(error.to_string())),
        Err(_) => return entry.stop(Stop::Failed("the SOCKS client did not complete its request".into())),
    };
    let (reply, stop) = match asked {
        Asked::Target(target) => match Tunnel::open(connection, target, entry).await {
            Ok(tunnel) => {
                if socks::reply(&mut client, Reply::Succeeded).await.is_ok() {
                    tunnel.run(connection, client).await;
                }
                return;
            }
            Err(stop) => {
                let _ = socks::reply(&mut client, Reply::from(&stop)).await;
                return;
            }
        },
        Asked::NoHost(name, error) => {
            entry.no_target(&name);
            (Reply::NotAllowed, Refusal::from(error).into())
        }
        Asked::Other(reply, why) => (reply, socks::refusal(why)),
    };
    entry.stop(stop);
    let _ = socks::reply(&mut client, reply).await;
}

/// Serves proxy requests until the client hangs up, or until one of them is `CONNECT`.
async fn serve_http(connection: &Arc<Connection>, client: Peeked) {
    let lane = Lane::new(None, false, None);
    let opened = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| async {
        let response = if request.method() == Method::CONNECT {
            match connect(connection, &request).await {
                Ok(tunnel) => {
                    *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
                    Response::new(body::text(String::new()))
                }
                Err(stop) => answer(&stop),
            }
        } else {
            lane.handle(connection, request).await
        };
        Ok::<_, Infallible>(response)
    });
    let served = builder(connection).serve_connection(TokioIo::new(client), service).without_shutdown().await;
    let parts = match served {
        Ok(parts) => parts,
        Err(error) => return note(connection, Protocol::Http, &error),
    };
    let client = Peeked::with_ahead(Box::new(parts.io.into_inner()), &parts.read_buf);
    let tunnel = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    match tunnel {
        Some(tunnel) => tunnel.run(connection, client).await,
        None => {
            let mut client = client;
            let _ = client.shutdown().await;
        }
    }
}

async fn connect(connection: &Connection, request: &Request<Incoming>) -> Result<Tunnel, Stop> {
    let mut entry = connection.entry(Protocol::Connect);
    let asked = request.uri().authority().map_or("", |authority| authority.as_str());
    let checked = Target::parse(asked, None).map_err(Stop::from).and_then(|target| {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let agrees = match (hosts.next(), hosts.next()) {
            (None, _) => true,
            // Some clients leave the port out here.
            (Some(host), None) => host
                .to_str()
                .is_ok_and(|host| Target::parse(host, Some(target.port)).is_ok_and(|host| host == target)),
            (Some(_), Some(_)) => false,
        };
        if agrees { Ok(target) } else { Err(Refusal::HostMismatch { target }.into()) }
    });
    match checked {
        Ok(target) => Tunnel::open(connection, target, entry).await,
        Err(stop) => {
            entry.no_target(asked.as_bytes());
            entry.stop(stop.clone());
            Err(stop)
        }
    }
}

/// Serves the requests inside of a tunnel.
pub(crate) async fn serve_requests(connection: &Arc<Connection>, client: Peeked, lane: Lane) {
    let protocol = if lane.secure { Protocol::Https } else { Protocol::Http };
    let service = service_fn(|request: Request<Incoming>| async {
        Ok::<Response<AnyBody>, Infallible>(lane.handle(connection, request).await)
    });
    if let Err(error) = builder(connection).serve_connection(TokioIo::new(client), service).await {
        note(connection, protocol, &error);
    }
}

fn builder(connection: &Connection) -> http1::Builder {
    let limits = &connection.shared.limits;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes.max(8192));
    builder
}

/// Records what the HTTP library refused by itself. A client that hangs up is none of it.
fn note(connection: &Connection, protocol: Protocol, error: &hyper::Error) {
    if error.is_parse() {
        connection.entry(protocol).stop(Stop::Refused(Refusal::Malformed(error.to_string())));
    }
}
