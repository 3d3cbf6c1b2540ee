//! A tunnel that `CONNECT` or SOCKS opened. What it carries decides how it goes on: TLS to a host that needs no secret
//! passes unread, once its server name has been checked; TLS to a host that needs one is ended here; plain HTTP is read;
//! anything else is refused, since nothing about it can be checked.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use crate::connection::Connection;
use crate::forward::Lane;
use crate::hello;
use crate::host::Target;
use crate::policy::Handling;
use crate::proxy;
use crate::record::{Entry, Refusal, Stop};
use crate::stream::{Metered, Peeked};

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// Open at the other end, and not used yet.
pub(crate) struct Tunnel {
    target: Target,
    handling: Handling,
    upstream: TcpStream,
    entry: Entry,
}

impl Tunnel {
    /// Asks the policy, then connects. What went wrong is in the entry.
    pub(crate) async fn open(
        connection: &Connection,
        target: Target,
        mut entry: Entry,
    ) -> Result<Self, Stop> {
        entry.target(&target);
        let shared = &connection.shared;
        let opened = match shared.policy.target(&target) {
            Ok(grant) => {
                shared.upstream.connect(&target, grant, &shared.limits).await.map(|stream| (grant, stream))
            }
            Err(refusal) => Err(refusal.into()),
        };
        match opened {
            Ok((grant, upstream)) => Ok(Self { target, handling: grant.handling, upstream, entry }),
            Err(stop) => {
                entry.stop(stop.clone());
                Err(stop)
            }
        }
    }

    /// Carries what the client sends, to its end.
    pub(crate) async fn run(self, connection: &Arc<Connection>, client: Peeked) {
        let Self { target, handling, upstream, mut entry } = self;
        if let Err(stop) = carry(connection, &target, handling, upstream, client, &mut entry).await {
            entry.stop(stop);
        }
    }
}

async fn carry(
    connection: &Arc<Connection>,
    target: &Target,
    handling: Handling,
    upstream: TcpStream,
    mut client: Peeked,
    entry: &mut Entry,
) -> Result<(), Stop> {
    if handling == Handling::Open {
        return relay(client, upstream, entry).await;
    }
    let head = connection.shared.limits.head;
    let late = |_| Stop::Failed("the client opened a tunnel and did not go on".into());
    match timeout(head, client.look_for(1)).await.map_err(late)? {
        Ok(()) => {}
        // Opened and closed: a client that only looks whether there is a way.
        Err(_) => return Ok(()),
    }
    match (client.ahead().first(), handling) {
        (Some(&TLS_HANDSHAKE), Handling::Intercepted) => {
            let stream = timeout(head, accept(connection, target, client)).await.map_err(late)??;
            entry.forget();
            let lane = Lane::new(Some(target.clone()), true, Some(upstream));
            proxy::serve_requests(connection, Peeked::new(Box::new(stream)), lane).await;
            Ok(())
        }
        (Some(&TLS_HANDSHAKE), _) => {
            timeout(head, hello::check(&mut client, target)).await.map_err(late)??;
            relay(client, upstream, entry).await
        }
        // Methods of HTTP begin with a letter.
        (Some(byte), _) if byte.is_ascii_alphabetic() => {
            entry.forget();
            let lane = Lane::new(Some(target.clone()), false, Some(upstream));
            proxy::serve_requests(connection, client, lane).await;
            Ok(())
        }
        _ => Err(Refusal::Opaque(target.clone()).into()),
    }
}

/// Ends TLS here, as the target.
async fn accept(
    connection: &Connection,
    target: &Target,
    client: Peeked,
) -> Result<tokio_rustls::server::TlsStream<Peeked>, Stop> {
    let failed = |why: String| Stop::Failed(format!("the client did not complete TLS as {target}: {why}"));
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), client)
        .await
        .map_err(|error| failed(error.to_string()))?;
    hello::matches(start.client_hello().server_name(), target)?;
    let config = connection.shared.authority.server(&target.host).map_err(failed)?;
    start.into_stream(config).await.map_err(|error| {
        failed(format!("{error} (does it trust the CA bundle of this sandbox, and speak HTTP/1.1?)"))
    })
}

/// Moves bytes both ways until both ends are done.
async fn relay(client: Peeked, mut upstream: TcpStream, entry: &Entry) -> Result<(), Stop> {
    let mut client = Metered::new(client, Arc::clone(&entry.meter));
    let done = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
    done.map(drop).map_err(|error| Stop::Failed(format!("the connection broke off: {error}")))
}
