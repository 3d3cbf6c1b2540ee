//! What a client names as the other end. Names are read by the manifest's parser, the only one of host names: every
//! protocol, policy rule and TLS name goes through it, and what it returns is what is compared, resolved and connected
//! to. Two parsers that disagree about a name are how allow-lists are got around.
//!
//! Addresses are read here, strictly: what some resolver could take for an address (`127.1`, `0x7f.1`, `2130706433`) is
//! refused unless it is the plain dotted form. So are ports with anything but digits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mooring_manifest::extension::{self, HostName};

/// What a client names as the other end: a name, or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name, to be resolved outside of the sandbox.
    Name(HostName),
    /// An address. An IPv4 address written as IPv6 (`::ffff:…`) is held as IPv4.
    Address(IpAddr),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// Why text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not a host that can be reached: {why}")]
pub struct HostError {
    /// The text, shortened, with control characters escaped.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Host {
    /// Reads a host as it stands in a URI: a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        Self::parse_bytes(text.as_bytes())
    }

    /// As `parse`, for bytes off the wire.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, HostError> {
        let fail = |why| Err(error(bytes, why));
        if let Some(inner) = bytes.strip_prefix(b"[") {
            let address = inner.strip_suffix(b"]").and_then(|inner| std::str::from_utf8(inner).ok());
            return match address.map(str::parse::<Ipv6Addr>) {
                Some(Ok(address)) => Ok(Self::address(IpAddr::V6(address))),
                _ => fail("what is in brackets is no IPv6 address"),
            };
        }
        let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()) else {
            return fail("it is not ASCII; write an international name in its xn-- form");
        };
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::address(IpAddr::V4(address)));
        }
        match HostName::parse(text.strip_suffix('.').unwrap_or(text)) {
            Ok(name) => Ok(Self::Name(name)),
            Err(extension::HostError::Address(_)) => {
                fail("it ends in a number, and is not an IPv4 address in its plain form")
            }
            Err(_) => {
                fail("a name is made of letters, digits, `-` and `_` in parts of at most 63, 253 in all")
            }
        }
    }

    /// An address, in the form that rules compare.
    pub fn address(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl Target {
    /// Reads `host:port`; the port may be absent where there is a default.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, HostError> {
        let fail = |why| Err(error(text.as_bytes(), why));
        let end = match text.strip_prefix('[') {
            Some(_) => text.find(']').map_or(text.len(), |end| end + 1),
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, port) = text.split_at(end);
        let host = Host::parse(host)?;
        let port = match (port.strip_prefix(':'), default_port) {
            (Some(digits), _) => parse_port(digits),
            (None, default) if port.is_empty() => default,
            (None, _) => None,
        };
        match port {
            Some(port) => Ok(Self { host, port }),
            None => fail("it has no port, or one that is not a plain number from 1 to 65535"),
        }
    }
}

/// A port without sign, space or leading zero.
fn parse_port(digits: &str) -> Option<u16> {
    let plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn error(text: &[u8], why: &'static str) -> HostError {
    HostError { text: format!("`{}`", quote(text)), why }
}

/// Untrusted bytes as short, printable text.
pub(crate) fn quote(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let mut text = bytes.get(..SHOWN).unwrap_or(bytes).escape_ascii().to_string();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}
