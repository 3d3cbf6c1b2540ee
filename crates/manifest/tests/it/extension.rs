//! What stands below `x-mooring`.

use std::fmt::Write;

use mooring_manifest::extension::{
    AllowRule, HostName, HostPattern, Method, Network, PathPattern, Seconds, Size,
};
use mooring_manifest::{Extension, Format, Manifest, ManifestError};
use serde_json::{Value, json};

pub(crate) const EVERYTHING: &str = r#"
entries:
  src/app: {type: git_repo, repo: acme/app, ref: main}
  data: {type: s3_mount, bucket: b, mount_strategy: {type: in_container, pattern: {type: rclone}}}
x-mooring:
  resources: {cpu: 1.5, memory: 512MiB, pids: 128, disk: 2 GiB, wall_clock: 30m}
  network:
    allow:
      - pypi.org
      - {host: "*.Example.com", ports: [8443], methods: [get], paths: [/v1/*, /health]}
      - api.github.com
  secrets:
    github:
      env: GITHUB_TOKEN
      inject:
        - {host: api.github.com, methods: [GET, POST], paths: [/repos/acme/*]}
    deploy-key: {}
  ports: [8080]
  setup:
    - pip install -r requirements.txt
    - {run: make, cwd: src/app, timeout: 1h}
  image: {context: docker, args: {PYTHON: "3.14"}, target: dev}
  git:
    src/app: {depth: full, submodules: true, lfs: true, credentials: deploy-key}
  mounts:
    data: {credentials: {access_key_id: deploy-key, secret_access_key: deploy-key}}
  outputs:
    - report.md
    - {path: dist, required: false, description: what was built}
"#;

fn extension(value: &Value) -> Result<Extension, ManifestError> {
    Manifest::from_value(&json!({ "x-mooring": value })).map(|manifest| manifest.extension)
}

#[test]
fn everything_that_can_be_said_is_read_and_written_in_one_form() {
    let manifest = Manifest::load(EVERYTHING, Format::Yaml).unwrap();
    let written = manifest.to_value();
    assert_eq!(Manifest::from_value(&written).unwrap(), manifest);
    insta::assert_json_snapshot!(written["x-mooring"]);
}

#[test]
fn what_says_nothing_is_not_written() {
    for nothing in [json!({}), json!({ "resources": {}, "ports": [], "secrets": {}, "network": null })] {
        let manifest = Manifest::from_value(&json!({ "x-mooring": nothing })).unwrap();
        assert_eq!(manifest, Manifest::default());
        assert_eq!(manifest.digest(), Manifest::default().digest());
    }
    assert_eq!(Manifest::default().to_value().get("x-mooring"), None);
}

#[test]
fn nothing_is_read_that_is_not_understood() {
    let mut found = String::new();
    for value in [
        json!([]),
        json!({ "netwrk": "deny" }),
        json!({ "resources": [] }),
        json!({ "resources": { "memory": "lots" } }),
        json!({ "resources": { "memory": 0 } }),
        json!({ "resources": { "cpu": -1 } }),
        json!({ "resources": { "cpu": "NaN" } }),
        json!({ "resources": { "wall_clock": "soon" } }),
        json!({ "resources": { "gpu": 1 } }),
        json!({ "network": "open" }),
        json!({ "network": { "allow": ["ok.example.com", "bad host"] } }),
        json!({ "network": { "allow": [{ "host": "10.0.0.1" }] } }),
        json!({ "network": { "allow": ["*.com"] } }),
        json!({ "network": { "allow": ["a.*.example.com"] } }),
        json!({ "network": { "allow": ["*"] } }),
        json!({ "network": { "allow": [{ "host": "a.example.com", "methods": ["G T"] }] } }),
        json!({ "network": { "allow": [{ "host": "a.example.com", "paths": ["/a/../b"] }] } }),
        json!({ "network": { "allow": [{ "host": "a.example.com", "scheme": "http" }] } }),
        json!({ "secrets": { "s": { "inject": [{ "host": "*.example.com" }] } } }),
        json!({ "secrets": { "s": { "value": "hunter2" } } }),
        json!({ "ports": [70000] }),
        json!({ "setup": [{ "cmd": "make" }] }),
        json!({ "image": { "build": "." } }),
        json!({ "git": { "r": { "depth": 0 } } }),
        json!({ "outputs": [1] }),
    ] {
        writeln!(found, "{value}\n    {}", extension(&value).unwrap_err()).unwrap();
    }
    insta::assert_snapshot!(found);
}

#[test]
fn what_does_not_fit_together_is_named_with_its_place() {
    let text = r#"
entries:
  repo: {type: git_repo, repo: a/b, ref: main}
  local: {type: git_repo, host: "file:///srv", repo: a/b, ref: main}
  data:
    {type: s3_mount, bucket: b, access_key_id: i, secret_access_key: k, mount_strategy: {type: docker_volume, driver: rclone}}
  file: {type: file, content: ""}
environment: {value: {TAKEN: "1"}}
x-mooring:
  resources: {pids: 0}
  network: {allow: [api.example.com, api.example.com, {host: b.example.com, ports: [0]}]}
  secrets:
    "a b": {}
    other: {env: TAKEN, inject: [{host: api.example.com, port: 8443}]}
    useless: {env: 1X}
  ports: [80, 80, 0]
  setup: ["", {run: make, cwd: ../..}]
  image: "-v /:/host"
  git:
    repo: {credentials: nobody}
    local: {credentials: other}
    file: {}
    missing: {}
  mounts:
    repo: {}
    data: {credentials: {account_key: other, access_key_id: other, secret_access_key: nobody}}
  outputs: [a, ./a, /etc/passwd]
"#;
    let error = Manifest::load(text, Format::Yaml).unwrap_err();
    insta::assert_snapshot!(error);
    let unguarded = r#"{"x-mooring": {"network": "unrestricted",
        "secrets": {"s": {"inject": [{"host": "a.example.com"}]}}}}"#;
    insta::assert_snapshot!(
        Manifest::load(unguarded, Format::Json).unwrap_err(),
        @"the manifest is not valid: x-mooring.secrets.s.inject[0]: a secret cannot be guarded where the network is unrestricted; name below 'network.allow' what may be reached"
    );
    let shut = r#"{"x-mooring": {"network": {"allow": []}}}"#;
    insta::assert_snapshot!(
        Manifest::load(shut, Format::Json).unwrap_err(),
        @r#"the manifest is not valid: x-mooring.network.allow: an empty list allows nothing; write "network": "deny""#
    );
}

#[test]
fn a_rule_means_its_host_port_method_and_path() {
    let rule: AllowRule = serde_json::from_value(json!({
        "host": "*.example.com", "methods": ["GET"], "paths": ["/v1/*", "/health"],
    }))
    .unwrap();
    let host = |name: &str| HostName::parse(name).unwrap();
    for (name, port, reached) in [
        ("a.example.com", 443, true),
        ("A.B.EXAMPLE.COM", 80, true),
        ("a.example.com", 8443, false),
        ("example.com", 443, false),
        ("badexample.com", 443, false),
        ("a.example.com.evil.org", 443, false),
    ] {
        assert_eq!(rule.reaches(&host(name), port), reached, "{name}:{port}");
    }
    let get = Method::parse("get").unwrap();
    for (path, allowed) in [
        ("/v1/models", true),
        ("/v1/", true),
        ("/health", true),
        ("/v1", false),
        ("/health/x", false),
        ("/v1/../admin", false),
        ("/v1/%2e%2e/admin", false),
        ("/v1/..%2Fadmin", false),
        ("/v1/%252e%252e/admin", false),
        ("/v1//admin", false),
        ("/v1/..;/admin", false),
        ("/v1\\..\\admin", false),
    ] {
        assert_eq!(rule.allows(&get, path), allowed, "{path}");
    }
    assert!(!rule.allows(&Method::parse("POST").unwrap(), "/health"));
    assert!(rule.needs_requests());
    assert!(!AllowRule::host(HostPattern::parse("example.com").unwrap()).needs_requests());
    assert_eq!(Network::Unrestricted.rules(), []);
}

#[test]
fn addresses_and_odd_names_are_no_hosts() {
    for text in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a.b",
        "a-.b",
        "a b",
        "a\n.b",
        "a/b",
        "a:80",
        "a@b",
        "ä.example",
        "*.example.com",
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "1.2.3.0x4",
        "[::1]",
        "::1",
        "a.1",
    ] {
        assert!(HostName::parse(text).is_err(), "{text:?}");
    }
    assert!(HostName::parse("a.".repeat(127).trim_end_matches('.')).is_ok());
    assert!(HostName::parse(&format!("{}.com", "a".repeat(64))).is_err());
    assert!(HostName::parse(&format!("{}.com", vec!["a".repeat(60); 5].join("."))).is_err());
    assert_eq!(HostName::parse("xn--bcher-kva.Example").unwrap().as_str(), "xn--bcher-kva.example");
    assert!(PathPattern::parse("/*").unwrap().matches("/a/%2e%2e/b"));
}

#[test]
fn amounts_are_kept_exactly() {
    for (text, bytes, written) in [
        ("512MiB", 512 << 20, "512MiB"),
        ("2G", 2 << 30, "2GiB"),
        ("1000", 1000, "1000B"),
        ("2GB", 2_000_000_000, "1953125KiB"),
    ] {
        let size: Size = text.parse().unwrap();
        assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, written));
    }
    for (text, seconds, written) in [("90", 90, "90s"), ("60m", 3600, "1h"), ("2d", 172_800, "2d")] {
        let time: Seconds = text.parse().unwrap();
        assert_eq!((time.seconds(), time.to_string().as_str()), (seconds, written));
    }
    for text in ["99999999999TiB", "", "MiB", "1.5GiB", "-1", "1 2"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
}
