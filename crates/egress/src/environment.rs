//! What programs in a sandbox must be told to find the proxy and to trust it. There is no one variable for either: this
//! is what curl, git, Python, Node, Cargo, Go, Deno, pip and the AWS tools read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Variables that name the proxy, as an `http://` address, and the file of trusted certificates, where it takes one.
pub fn environment(proxy: &str, bundle: Option<&str>) -> Vec<(&'static str, String)> {
    // Both spellings, since programs differ. `ALL_PROXY` is HTTP too: clients without SOCKS would fail over it.
    let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let none = ["NO_PROXY", "no_proxy"];
    let bundles = [
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "NODE_EXTRA_CA_CERTS",
        "CARGO_HTTP_CAINFO",
        "DENO_CERT",
        "AWS_CA_BUNDLE",
    ];
    let mut variables: Vec<_> = proxies.into_iter().map(|name| (name, proxy.to_owned())).collect();
    variables.extend(none.map(|name| (name, "localhost,127.0.0.1,::1".to_owned())));
    variables.extend(bundle.into_iter().flat_map(|bundle| bundles.map(|name| (name, bundle.to_owned()))));
    variables.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
    variables
}

/// The file of trusted certificates, in PEM: those that this machine trusts, and the session's authority. Programs take
/// it in the place of their own list, so it has to have both.
pub fn ca_bundle(authority_pem: &str) -> String {
    let mut bundle = authority_pem.to_owned();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let encoded = STANDARD.encode(&certificate);
        bundle.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            bundle.push_str(&String::from_utf8_lossy(line));
            bundle.push('\n');
        }
        bundle.push_str("-----END CERTIFICATE-----\n");
    }
    bundle
}
