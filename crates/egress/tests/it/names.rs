//! The parser of host names: it agrees with the parser of browsers wherever it accepts, and gives back what it took.

use mooring_egress::{Host, HostPattern, PathPattern, Target};
use proptest::prelude::*;

#[test]
fn names_are_brought_into_one_form() {
    for (text, form) in [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a_b.example", "a_b.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
    ] {
        assert_eq!(Host::parse(text).unwrap().to_string(), form, "{text}");
    }
}

#[test]
fn what_a_resolver_might_read_in_another_way_is_refused() {
    for text in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a...",
        "-a.test",
        "a-.test",
        "a b.test",
        "a\0.test",
        "a\n.test",
        "a\t",
        "a%2etest",
        "a@b.test",
        "a:80",
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "bücher.example",
        "ａ.test",
        "a。test",
        "127.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "2130706433",
        "0x7f000001",
        "1.2.3.4.",
        "1.2.3.4.5",
        "1.2.3.256",
        "01.2.3.4",
        "a.0x",
        "a.1",
        "::1",
        "[::1",
        "[::1%lo]",
        "[1.2.3.4]",
        "[]",
        "*.test",
    ] {
        assert!(Host::parse(text).is_err(), "{text:?}");
    }
    assert!(Host::parse(&"a".repeat(64)).is_err());
    assert!(Host::parse(&"a.".repeat(128)).is_err());
    insta::assert_snapshot!(Host::parse("evil\0.test").unwrap_err(), @r"`evil\x00.test` is not a host that can be reached: a name is made of letters, digits, `-` and `_` in parts of at most 63, 253 in all");
}

#[test]
fn a_port_is_a_plain_number() {
    assert_eq!(Target::parse("a.test:443", None).unwrap().to_string(), "a.test:443");
    assert_eq!(Target::parse("[::1]", Some(80)).unwrap().to_string(), "[::1]:80");
    for text in [
        "a.test",
        "a.test:",
        "a.test:0",
        "a.test:080",
        "a.test:+80",
        "a.test: 80",
        "a.test:65536",
        "a.test:8x",
        "a:1:2",
        "[::1]80",
    ] {
        assert!(Target::parse(text, None).is_err(), "{text}");
    }
    assert!(Target::parse("a.test:", Some(80)).is_err());
}

#[test]
fn a_pattern_means_what_stands_there() {
    let below = HostPattern::parse("*.Example.com").unwrap();
    let matches = |text: &str| below.matches(&Host::parse(text).unwrap());
    assert!(matches("a.example.com") && matches("a.b.example.com."));
    assert!(!matches("example.com") && !matches("badexample.com") && !matches("example.com.evil.test"));
    for text in ["*", "*.", "a.*.com", "*.*.com", "**.com", "*.1.2.3.4", "*com"] {
        assert!(HostPattern::parse(text).is_err(), "{text}");
    }
    for text in ["", "a", "*", "/a/../b", "/a//b", "/a*b", "/a?b", "/%2e%2e/", "/a;b"] {
        assert!(PathPattern::parse(text).is_err(), "{text}");
    }
}

/// Text that comes close to being a host.
fn nearly_a_host() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        "[a-zA-Z0-9_-]{0,12}",
        "(0x)?[0-9a-fA-F]{1,10}",
        "xn--[a-z0-9-]{1,10}",
        Just("%2e".to_owned()),
        Just("\0".to_owned()),
        Just("ａ".to_owned()),
        "\\PC{0,3}",
    ];
    prop_oneof![
        4 => prop::collection::vec(label, 1..5).prop_map(|labels| labels.join(".")),
        1 => "\\[[0-9a-fA-F:.%]{0,24}\\]",
        1 => "\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_accepted_is_read_alike_by_others(text in nearly_a_host()) {
        let Ok(host) = Host::parse(&text) else { return Ok(()) };
        // Written and read again, it is the same.
        prop_assert_eq!(&Host::parse(&host.to_string()).unwrap(), &host);
        match (&host, url::Host::parse(&text)) {
            (Host::Name(name), Ok(url::Host::Domain(other))) => {
                prop_assert_eq!(name.as_str(), other.trim_end_matches('.'));
                prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            }
            (Host::Address(address), Ok(url::Host::Ipv4(other))) => prop_assert_eq!(address, &std::net::IpAddr::from(other)),
            (Host::Address(address), Ok(url::Host::Ipv6(other))) => {
                prop_assert_eq!(address, &std::net::IpAddr::from(other).to_canonical());
            }
            // Browsers refuse malformed international names; they lead nowhere.
            (Host::Name(name), Err(_)) => prop_assert!(name.as_str().contains("xn--"), "{}", text),
            (_, other) => prop_assert!(false, "{:?} is {:?} here and {:?} there", text, host, other),
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Host::parse_bytes(&bytes);
        let _ = Target::parse(&String::from_utf8_lossy(&bytes), Some(80));
    }

    #[test]
    fn a_subdomain_pattern_matches_by_whole_labels(name in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}", parent in "[a-z]{1,5}(\\.[a-z]{1,5}){1,2}") {
        let pattern = HostPattern::parse(&format!("*.{parent}")).unwrap();
        let labels: Vec<_> = name.split('.').collect();
        let suffix: Vec<_> = parent.split('.').collect();
        let expected = labels.len() > suffix.len() && labels.ends_with(&suffix);
        prop_assert_eq!(pattern.matches(&Host::parse(&name).unwrap()), expected);
        let below = format!("{name}.{parent}");
        prop_assert!(pattern.matches(&Host::parse(&below).unwrap()));
    }
}
