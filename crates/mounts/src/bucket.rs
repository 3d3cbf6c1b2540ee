//! The storage behind a mount, with its credentials, as an object store.
//!
//! Nothing is taken from this machine's environment, files or metadata service: what a manifest does not name is not
//! used, and without credentials requests are anonymous. Addresses come from manifests, too, so a request goes to
//! public addresses alone, or to those that the operator opened; a redirect is not followed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use mooring_egress::{Host, Operator};
use mooring_sandbox::{SandboxError, StorageMount, StorageSource};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::gcp::{GcpCredential, GcpSigningCredential, GoogleCloudStorageBuilder};
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig, StaticCredentialProvider};

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one request may take, a piece of an upload too.
const REQUEST: Duration = Duration::from_mins(1);
/// For how long a request that failed is tried again.
const RETRY: Duration = Duration::from_secs(8);

/// What mounts need of an object store.
pub(crate) trait Store: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Store for T {}

/// Storage that can be asked.
pub(crate) struct Bucket {
    pub(crate) store: Arc<dyn Store>,
    /// Where in it the mount begins, without slashes around it.
    pub(crate) prefix: String,
    /// The values of its secrets, which nobody must see.
    pub(crate) secrets: Vec<String>,
}

/// Opens what a mount names. Asks nobody yet.
pub(crate) fn open(mount: &StorageMount, operator: &Arc<Operator>) -> Result<Bucket, SandboxError> {
    let invalid =
        |reason: String| SandboxError::Invalid { reason: format!("mount '{}': {reason}", mount.path) };
    let mut values = BTreeMap::new();
    for (field, name) in &mount.credentials {
        let value = (operator.secret)(name).ok_or_else(|| {
            invalid(format!(
                "the manifest names the secret '{name}', and it is not configured on this machine; configure it \
                 (`moor` takes MOOR_SECRET_NAME, or [secrets] of config.toml), or remove it from the manifest"
            ))
        })?;
        values.insert(field.as_str(), value.expose().trim().to_owned());
    }
    let secrets: Vec<String> = values.values().cloned().collect();
    let field = |name: &str, literal: &Option<String>| values.get(name).or(literal.as_ref()).cloned();
    let (store, prefix) = match &mount.source {
        StorageSource::S3(s3) => {
            let keys = Keys {
                id: field("access_key_id", &s3.access_key_id),
                secret: field("secret_access_key", &None),
                token: field("session_token", &None),
            };
            let region = s3.region.as_deref().unwrap_or("us-east-1");
            (amazon(&s3.bucket, s3.endpoint_url.as_deref(), region, keys, operator), s3.prefix.clone())
        }
        StorageSource::R2(r2) => {
            let own = format!("https://{}.r2.cloudflarestorage.com", r2.account_id);
            let endpoint = r2.custom_domain.clone().unwrap_or(own);
            let keys = Keys {
                id: field("access_key_id", &r2.access_key_id),
                secret: field("secret_access_key", &None),
                token: None,
            };
            (amazon(&r2.bucket, Some(&endpoint), "auto", keys, operator), None)
        }
        StorageSource::Gcs(gcs) => {
            let (id, secret) = (field("access_id", &gcs.access_id), field("secret_access_key", &None));
            let endpoint = gcs.endpoint_url.as_deref();
            let store = if id.is_some() || secret.is_some() {
                // Keys of this kind are for its interface in the manner of S3.
                let endpoint = endpoint.unwrap_or("https://storage.googleapis.com");
                let region = gcs.region.as_deref().unwrap_or("auto");
                amazon(&gcs.bucket, Some(endpoint), region, Keys { id, secret, token: None }, operator)
            } else {
                let (account, token) =
                    (field("service_account_credentials", &None), field("access_token", &None));
                google(&gcs.bucket, endpoint, account, token, operator)
            };
            (store, gcs.prefix.clone())
        }
        StorageSource::AzureBlob(blob) => {
            let key = field("account_key", &None);
            (azure(&blob.account, &blob.container, blob.endpoint.as_deref(), key, operator), None)
        }
    };
    let prefix = prefix.unwrap_or_default().trim_matches('/').to_owned();
    if !prefix.is_empty() && object_store::path::Path::parse(&prefix).is_err() {
        return Err(invalid(format!("the prefix '{prefix}' is no path; write names with '/' between them")));
    }
    Ok(Bucket { store: store.map_err(invalid)?, prefix, secrets })
}

struct Keys {
    id: Option<String>,
    secret: Option<String>,
    token: Option<String>,
}

fn amazon(
    bucket: &str,
    endpoint: Option<&str>,
    region: &str,
    keys: Keys,
    operator: &Arc<Operator>,
) -> Result<Arc<dyn Store>, String> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_http_connector(connector(endpoint, operator)?)
        .with_allow_http(plain(endpoint))
        .with_retry(retry());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    builder = match keys {
        Keys { id: Some(id), secret: Some(secret), token } => {
            let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            match token {
                Some(token) => builder.with_token(token),
                None => builder,
            }
        }
        Keys { id: None, secret: None, token: None } => builder.with_skip_signature(true),
        _ => {
            return Err("a key has an id and a secret, and one of them is missing; give both, or neither for anonymous \
                        access"
                .to_owned());
        }
    };
    built(builder.build())
}

fn google(
    bucket: &str,
    endpoint: Option<&str>,
    account: Option<String>,
    token: Option<String>,
    operator: &Arc<Operator>,
) -> Result<Arc<dyn Store>, String> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_http_connector(connector(endpoint, operator)?)
        .with_client_options(ClientOptions::new().with_allow_http(plain(endpoint)))
        .with_retry(retry());
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let unsigned = || {
        Arc::new(StaticCredentialProvider::new(GcpSigningCredential {
            email: String::new(),
            private_key: None,
        }))
    };
    builder = match (account, token) {
        (Some(account), None) => builder.with_service_account_key(account),
        (None, Some(bearer)) => builder
            .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential { bearer })))
            .with_signing_credentials(unsigned()),
        // Both, so that nobody looks for credentials of this machine.
        (None, None) => builder
            .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential {
                bearer: String::new(),
            })))
            .with_signing_credentials(unsigned())
            .with_skip_signature(true),
        (Some(_), Some(_)) => {
            return Err("it has a service account and an access token; give one of them".to_owned());
        }
    };
    built(builder.build())
}

fn azure(
    account: &str,
    container: &str,
    endpoint: Option<&str>,
    key: Option<String>,
    operator: &Arc<Operator>,
) -> Result<Arc<dyn Store>, String> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(container)
        .with_http_connector(connector(endpoint, operator)?)
        .with_allow_http(plain(endpoint))
        .with_retry(retry());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    builder = match key {
        Some(key) => builder.with_access_key(key).with_credential_type("access_key"),
        None => builder.with_skip_signature(true),
    };
    built(builder.build())
}

fn built<S: Store>(store: object_store::Result<S>) -> Result<Arc<dyn Store>, String> {
    // What a builder says may hold what it was given.
    match store {
        Ok(store) => Ok(Arc::new(store)),
        Err(_) => Err("its credentials or its address cannot be read; check their form".to_owned()),
    }
}

/// Whether the manifest asks for HTTP without TLS.
fn plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn retry() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 3, retry_timeout: RETRY }
}

/// Makes clients that reach what may be reached.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn connector(endpoint: Option<&str>, operator: &Arc<Operator>) -> Result<Connector, String> {
    if let Some(endpoint) = endpoint {
        check_endpoint(endpoint, operator)?;
    }
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .redirect(reqwest::redirect::Policy::none())
        // A proxy would look names up by itself.
        .no_proxy()
        .dns_resolver(Arc::new(Resolver(Arc::clone(operator))))
        .build();
    client.map(Connector).map_err(|error| format!("no HTTP client can be made: {error}"))
}

/// An address in an endpoint is not looked up, so it is checked here.
fn check_endpoint(endpoint: &str, operator: &Arc<Operator>) -> Result<(), String> {
    let url = reqwest::Url::parse(endpoint).map_err(|error| format!("'{endpoint}' is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("'{endpoint}' must begin with https:// or http://"));
    }
    let host = Host::parse(url.host_str().unwrap_or_default()).map_err(|error| error.to_string())?;
    if !matches!(host, Host::Address(_)) {
        return Ok(());
    }
    // There is nothing to wait for.
    match operator.addresses(&host).now_or_never() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("{host} cannot be looked up")),
    }
}

/// Looks names up, and gives none that leads where the operator lets nobody be sent.
struct Resolver(Arc<Operator>);

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let operator = Arc::clone(&self.0);
        Box::pin(async move {
            let found = operator.addresses(&Host::parse(name.as_str())?).await?;
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as reqwest::dns::Addrs)
        })
    }
}
