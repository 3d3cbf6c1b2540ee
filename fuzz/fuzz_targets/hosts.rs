//! Host names from anywhere are read without a panic, and what is accepted is read alike by the parser of browsers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_egress::{Host, HostPattern, Target};

fuzz_target!(|bytes: &[u8]| {
    let Ok(host) = Host::parse_bytes(bytes) else { return };
    let text = std::str::from_utf8(bytes).expect("what is accepted is ASCII");
    assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(&host));
    let target = Target::parse(&format!("{text}:443"), None).expect("a host with a port");
    assert_eq!((&target.host, target.port), (&host, 443));
    assert!(HostPattern::parse(text).is_ok_and(|pattern| pattern.matches(&host)) || text.ends_with('.'));
    match (&host, url::Host::parse(text)) {
        (Host::Name(name), Ok(url::Host::Domain(other))) => assert_eq!(name.as_str(), other.trim_end_matches('.')),
        (Host::Address(address), Ok(url::Host::Ipv4(other))) => assert_eq!(*address, std::net::IpAddr::from(other)),
        (Host::Address(address), Ok(url::Host::Ipv6(other))) => {
            assert_eq!(*address, std::net::IpAddr::from(other).to_canonical());
        }
        // Browsers refuse malformed international names; they lead nowhere.
        (Host::Name(name), Err(_)) => assert!(name.as_str().contains("xn--"), "{text}"),
        (_, other) => panic!("{text:?} is {host:?} here and {other:?} there"),
    }
});
