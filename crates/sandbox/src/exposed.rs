//! A port of a sandbox at this machine's loopback address, for as long as somebody holds it.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::{ByteStream, SandboxError, SandboxSession};

/// Connections at one time.
const MOST: usize = 256;

/// Connections to an address of this machine go to a port in a sandbox. Dropping it ends them all.
#[derive(Debug)]
pub struct ExposedPort {
    inside: u16,
    address: SocketAddr,
    serving: JoinHandle<std::io::Error>,
}

impl ExposedPort {
    /// Serves the port `inside` of a session at port `here` of the loopback address, IPv4. `None`: at the same number,
    /// or at a free one where that is taken. The session is not kept alive by it, and need not run yet.
    ///
    /// # Errors
    /// [`SandboxError::Unsupported`] where the backend has no way in; [`SandboxError::Port`] where nobody can listen here.
    pub async fn open(
        session: &Arc<dyn SandboxSession>,
        inside: u16,
        here: Option<u16>,
    ) -> Result<Self, SandboxError> {
        if session.ports().is_none() {
            return Err(SandboxError::Unsupported {
                operation: format!("port {inside}"),
                backend: session.state().backend,
                reason: "nothing in its sandboxes can be reached from outside".into(),
            });
        }
        let listener = listen(inside, here).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listener.map_err(|error| SandboxError::Port {
            port: inside,
            reason: format!("cannot listen for it at 127.0.0.1:{}: {error}", here.unwrap_or(inside)),
        })?;
        let serving = tokio::spawn(serve(listener, inside, Arc::downgrade(session)));
        Ok(Self { inside, address, serving })
    }

    /// The port in the sandbox.
    pub fn inside(&self) -> u16 {
        self.inside
    }

    /// Where it is reached on this machine.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until no connection can be taken any more, and says why.
    pub async fn failed(&mut self) -> std::io::Error {
        (&mut self.serving).await.unwrap_or_else(std::io::Error::other)
    }

    /// Ends it. The address is free when this returns.
    pub async fn close(mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }
}

impl Drop for ExposedPort {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn listen(inside: u16, here: Option<u16>) -> std::io::Result<TcpListener> {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
    match here {
        Some(port) => bind(port).await,
        None => match bind(inside).await {
            Ok(listener) => Ok(listener),
            // Taken, or below 1024.
            Err(_) => bind(0).await,
        },
    }
}

async fn serve(listener: TcpListener, inside: u16, session: Weak<dyn SandboxSession>) -> std::io::Error {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= MOST {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connect(stream, inside, Weak::clone(&session)))),
            Err(error) => return error,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Carries one connection. One that finds nobody is reset, so that its client is not told of an empty answer.
async fn connect(mut here: TcpStream, inside: u16, session: Weak<dyn SandboxSession>) {
    match connected(inside, &session).await {
        // Either side may end it in any way.
        Some(mut there) => drop(tokio::io::copy_bidirectional(&mut here, &mut there).await),
        None => drop(here.set_zero_linger()),
    }
}

async fn connected(inside: u16, session: &Weak<dyn SandboxSession>) -> Option<ByteStream> {
    let session = session.upgrade()?;
    session.ports()?.connect(inside).await.ok()
}
