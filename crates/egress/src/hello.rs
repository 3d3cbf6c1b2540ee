//! The beginning of a TLS connection that passes unread. The name that its client asks for must be the name that the
//! tunnel was opened to: otherwise an allowed host that shares its servers with others leads to all of them.
//!
//! What cannot be seen cannot be checked: a connection that hides the name (encrypted client hello) or does not say one
//! is refused. The `Host` inside of the encrypted part stays unseen; where that matters, give the rule paths or methods,
//! and the proxy decrypts.

use mooring_manifest::extension::HostName;
use rustls::server::Acceptor;

use crate::host::{Host, Target};
use crate::record::{Refusal, Stop};
use crate::stream::Peeked;

/// Longest hello that is looked at, in bytes.
const MAX_HELLO: usize = 64 * 1024;
/// The extension that hides the name.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Reads the hello without taking it from the stream, and checks it.
pub(crate) async fn check(stream: &mut Peeked, target: &Target) -> Result<(), Stop> {
    let refuse = |why| Stop::Refused(Refusal::ServerName { target: target.clone(), why });
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    let accepted = loop {
        let mut new = stream.ahead().get(fed..).unwrap_or_default();
        while !new.is_empty() {
            fed += acceptor.read_tls(&mut new).map_err(|_| refuse("it does not begin as TLS does"))?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err(_) => return Err(refuse("its hello is damaged")),
        }
        if stream.ahead().len() > MAX_HELLO {
            return Err(refuse("its hello is too long"));
        }
        if stream.look().await.map_err(|error| Stop::Failed(error.to_string()))? == 0 {
            return Err(Stop::Failed("the client hung up before its TLS hello was complete".into()));
        }
    };
    matches(accepted.client_hello().server_name(), target)?;
    if has_extension(stream.ahead(), ENCRYPTED_CLIENT_HELLO).unwrap_or(true) {
        return Err(refuse("it hides the server name (encrypted client hello); turn that off in the client"));
    }
    Ok(())
}

/// Whether the server name is that of the target.
pub(crate) fn matches(name: Option<&str>, target: &Target) -> Result<(), Refusal> {
    let refuse = |why| Err(Refusal::ServerName { target: target.clone(), why });
    match (&target.host, name) {
        // A client that connects to an address has no name to send.
        (Host::Address(_), None) => Ok(()),
        (Host::Name(_), None) => refuse("it names no server (no SNI)"),
        (Host::Name(host), Some(name)) if HostName::parse(name).is_ok_and(|name| name == *host) => Ok(()),
        (_, Some(_)) => refuse("it names another server than the tunnel was opened to (SNI)"),
    }
}

/// Whether the hello has an extension. `None` where it cannot be read; it has been accepted before, so it can.
fn has_extension(records: &[u8], wanted: u16) -> Option<bool> {
    let mut message = Vec::new();
    let mut rest = records;
    // Records of handshake messages, until the hello is whole.
    let body = loop {
        let (header, after) = rest.split_at_checked(5)?;
        let length = usize::from(u16::from_be_bytes([*header.get(3)?, *header.get(4)?]));
        let (fragment, after) = after.split_at_checked(length)?;
        message.extend_from_slice(fragment);
        rest = after;
        if let Some([_, a, b, c]) = message.get(..4) {
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).ok()?;
            if let Some(body) = message.get(4..4 + length) {
                break body;
            }
        }
    };
    // Version and random; then session id, cipher suites, compression methods.
    let rest = body.get(34..)?;
    let (_, rest) = vector(rest, 1)?;
    let (_, rest) = vector(rest, 2)?;
    let (_, rest) = vector(rest, 1)?;
    let (mut extensions, _) = vector(rest, 2)?;
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_at_checked(2)?;
        let (_, rest) = vector(rest, 2)?;
        if kind == wanted.to_be_bytes() {
            return Some(true);
        }
        extensions = rest;
    }
    Some(false)
}

/// Splits off a vector whose length takes this many bytes.
fn vector(bytes: &[u8], length_bytes: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(length_bytes)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}
