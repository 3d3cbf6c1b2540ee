//! The way out of a sandbox: connections that a supervisor accepted, handed to a handler.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use mooring_sandbox::{EGRESS_PORT, EgressHandler, SandboxError};
use mooring_supervisor::wire::{Call, Reply};
use tokio::sync::Semaphore;

use crate::channel;
use crate::connection::{CALL, Caller};

/// The most connections that are served at one time. More wait inside.
const CONNECTIONS: usize = 128;

/// Has the supervisor listen, and serves what comes for as long as the sandbox lives. Gives the address inside that is
/// this client's own.
pub(crate) async fn serve(
    caller: &Caller,
    handler: Arc<dyn EgressHandler>,
) -> Result<Ipv4Addr, SandboxError> {
    let call = Call::Listen { port: EGRESS_PORT };
    match caller.call("listen", call, Bytes::new(), CALL).await? {
        (Reply::Listening { listener, address }, _) => {
            tokio::spawn(accept(caller.clone(), listener, handler));
            Ok(address)
        }
        (other, _) => Err(SandboxError::Invalid { reason: format!("unexpected answer {other:?}") }),
    }
}

async fn accept(caller: Caller, listener: u64, handler: Arc<dyn EgressHandler>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // It is never closed.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let accepted = caller.call_unlimited("accept", Call::Accept { listener }, Bytes::new()).await;
        match accepted {
            Ok((Reply::Channel { channel }, _)) => {
                let stream = channel::open(caller.clone(), channel);
                let handler = Arc::clone(&handler);
                tokio::spawn(async move {
                    handler.connection(stream).await;
                    drop(permit);
                });
            }
            // The sandbox has ended.
            Err(error) if error.session_lost() => return,
            // One connection could not be had, for want of room; the others go on.
            _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}
