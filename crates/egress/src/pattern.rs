//! Which hosts a rule is about: the manifest's patterns of names, and addresses.

use std::fmt;
use std::net::IpAddr;

use mooring_manifest::extension::{self, HostError};

use crate::host::Host;

/// Which hosts a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This name, or every name below one.
    Names(extension::HostPattern),
    /// This address.
    Address(IpAddr),
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match Host::parse(text) {
            Ok(Host::Address(address)) => Ok(Self::Address(address)),
            _ => extension::HostPattern::parse(text).map(Self::Names),
        }
    }

    /// Whether the host is meant.
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Names(names), Host::Name(name)) => names.matches(name),
            (Self::Address(this), Host::Address(address)) => this == address,
            _ => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => names.fmt(f),
            Self::Address(address) => Host::Address(*address).fmt(f),
        }
    }
}
