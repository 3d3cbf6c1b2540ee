//! SOCKS 5, as far as a sandbox needs it: `CONNECT` to a name or an address, without authentication. No `BIND`, no UDP,
//! no SOCKS 4. A name is read by the one parser of host names, so that it cannot mean one thing here and another later.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::host::{Host, HostError, Target};
use crate::record::{Refusal, Stop};
use crate::stream::Peeked;

/// The first byte of a client that speaks it.
pub(crate) const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const CONNECT: u8 = 1;

/// What a client is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    Succeeded = 0,
    NotAllowed = 2,
    HostUnreachable = 4,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

/// What a client asked for, or why that cannot be.
pub(crate) enum Asked {
    Target(Target),
    /// What was sent instead of a name.
    NoHost(Vec<u8>, HostError),
    Other(Reply, &'static str),
}

/// Reads the greeting and the request. The answer to the request is left to the caller.
pub(crate) async fn read(stream: &mut Peeked) -> io::Result<Asked> {
    let [_version, methods] = bytes(stream).await?;
    let mut offered = vec![0; usize::from(methods)];
    stream.read_exact(&mut offered).await?;
    if !offered.contains(&NO_AUTHENTICATION) {
        stream.write_all(&[VERSION, 0xff]).await?;
        return Err(io::Error::other("the SOCKS client insists on authentication, and there is none"));
    }
    stream.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let [version, command, _reserved, kind] = bytes(stream).await?;
    if version != VERSION {
        return Err(io::Error::other("the SOCKS client changed its version"));
    }
    let host = match kind {
        1 => Ok(Host::address(Ipv4Addr::from(bytes::<4>(stream).await?).into())),
        4 => Ok(Host::address(Ipv6Addr::from(bytes::<16>(stream).await?).into())),
        3 => {
            let [length] = bytes(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await?;
            Host::parse_bytes(&name).map_err(|error| (name, error))
        }
        _ => return Ok(Asked::Other(Reply::AddressNotSupported, "SOCKS with an unknown kind of address")),
    };
    let port = u16::from_be_bytes(bytes(stream).await?);
    if command != CONNECT {
        return Ok(Asked::Other(
            Reply::CommandNotSupported,
            "SOCKS commands other than CONNECT are not served",
        ));
    }
    if port == 0 {
        return Ok(Asked::Other(Reply::NotAllowed, "port 0"));
    }
    Ok(match host {
        Ok(host) => Asked::Target(Target { host, port }),
        Err((name, error)) => Asked::NoHost(name, error),
    })
}

/// Answers a request.
pub(crate) async fn reply(stream: &mut Peeked, reply: Reply) -> io::Result<()> {
    // The address bound at the proxy is of no use to anyone.
    stream.write_all(&[VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    stream.flush().await
}

impl From<&Stop> for Reply {
    fn from(stop: &Stop) -> Self {
        match stop {
            Stop::Failed(_) => Self::HostUnreachable,
            Stop::Refused(_) => Self::NotAllowed,
        }
    }
}

/// The refusal that goes with an answer.
pub(crate) fn refusal(why: &str) -> Stop {
    Stop::Refused(Refusal::Malformed(why.into()))
}

async fn bytes<const N: usize>(stream: &mut Peeked) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
